"""The client's decisions, without I/O: every byte split, every way to end, the bound on memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_client import (
    ClientClosed,
    ConnectionLost,
    DaemonFault,
    InferdError,
    ProtocolViolation,
    StreamOverflow,
)
from inferd_client.requests import Build, control, generate
from inferd_client.switchboard import Mailbox, Switchboard
from inferd_proto import (
    Answer,
    BlockAnswer,
    CancelReceived,
    Control,
    DoneV2,
    Error,
    ErrorCode,
    FrameType,
    Item,
    RequestReceived,
    Result,
    ServerConnection,
    StreamDone,
    TextDelta,
    Usage,
    encode,
    pack,
)


class Pair:
    """A switchboard and a server's connection, joined by hand."""

    def __init__(self, max_buffered_bytes: int = 1 << 20) -> None:
        self.board = Switchboard(max_buffered_bytes=max_buffered_bytes)
        self.server = ServerConnection()

    def ask(self, prompt: str = "x") -> Mailbox:
        mailbox = self.board.open(generate(prompt, {}, ""))
        assert [type(event) for event in self.deliver()] == [RequestReceived]
        return mailbox

    def deliver(self) -> list[object]:
        """Everything in the outbox to the server; what the server made of it."""
        while self.board.outbox:
            piece = self.board.outbox[0]
            self.server.receive_data(bytes(piece))
            self.board.sent(len(piece))
        return list(iter(self.server.next_event, None))

    def answer(self, *answers: Answer) -> None:
        self.board.receive(b"".join(self.server.send(answer) for answer in answers))


def text(mailbox: Mailbox, delta: str) -> BlockAnswer:
    return BlockAnswer(mailbox.id, TextDelta(delta))


def done(mailbox: Mailbox) -> DoneV2:
    return DoneV2(mailbox.id, Usage(1, 1), "end_turn", "test")


def drain(mailbox: Mailbox) -> list[str]:
    """The text that is there; raises what ended the stream early."""
    deltas: list[str] = []
    while mailbox.ready and (answer := mailbox.take()) is not None:
        if isinstance(answer, BlockAnswer) and isinstance(answer.block, TextDelta):
            deltas.append(answer.block.delta)
    return deltas


def take_all(mailbox: Mailbox, taken: list[Answer] | None = None) -> None:
    """Everything into `taken`; raises what ended the stream early."""
    while (answer := mailbox.take()) is not None:
        if taken is not None:
            taken.append(answer)


@given(
    deltas=st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.text(max_size=20)), max_size=30),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_whatever_the_pieces_each_gets_its_own(
    deltas: list[tuple[int, str]], cuts: list[int]
) -> None:
    pair = Pair()
    mailboxes = [pair.ask() for _ in range(3)]
    stream = b"".join(pair.server.send(text(mailboxes[n], delta)) for n, delta in deltas)
    stream += b"".join(pair.server.send(done(mailbox)) for mailbox in mailboxes)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in pairwise(edges):
        pair.board.receive(stream[start:end])
    for n, mailbox in enumerate(mailboxes):
        assert drain(mailbox) == [delta for m, delta in deltas if m == n]
        assert mailbox.ended
        assert mailbox.take() is None
    assert pair.board.in_flight == 0


def test_the_end_of_the_stream_at_every_byte() -> None:
    pair = Pair()
    mailbox = pair.ask()
    answers: list[Answer] = [text(mailbox, "one"), text(mailbox, "two"), done(mailbox)]
    stream = b"".join(pair.server.send(answer) for answer in answers)
    for cut in range(len(stream) + 1):
        fresh = Pair()
        cut_off = fresh.ask()
        fresh.board.receive(stream[:cut])
        fresh.board.receive(b"")
        assert fresh.board.lost
        if cut == len(stream):
            assert drain(cut_off) == ["one", "two"]
        else:
            with pytest.raises(ConnectionLost):
                take_all(cut_off)
        with pytest.raises(ConnectionLost):
            fresh.board.open(control("status", {}))


GARBAGE = [
    b"\xff\xff\xff\xff\xff\xff",
    b"\x01\x09x",
    b"\xff\xff\xff\xff\x0f\x01",
    pack(FrameType.JSON, b"\xff\xfe"),
    pack(FrameType.JSON, b"[1,2]"),
    pack(FrameType.JSON, b"[" * 5000),
    pack(FrameType.JSON, b'{"id":"r1","type":"frame","block":{"type":"text","delta":3}}'),
    pack(FrameType.JSON, b'{"id":"r1","type":"embeddings"}'),
    pack(FrameType.BLOB, b"x"),
    pack(FrameType.MSGPACK, b"\xc1"),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:24]))
def test_bytes_that_make_no_sense_end_everything(garbage: bytes) -> None:
    pair = Pair()
    mailboxes = [pair.ask(), pair.ask()]
    pair.answer(text(mailboxes[0], "before"))
    pair.board.receive(garbage)
    assert mailboxes[0].take() == text(mailboxes[0], "before")
    for mailbox in mailboxes:
        with pytest.raises(ProtocolViolation):
            mailbox.take()


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing(data: bytes) -> None:
    pair = Pair()
    mailbox = pair.ask()
    pair.board.receive(data)
    pair.board.receive(b"")
    assert mailbox.ended
    with pytest.raises(InferdError):
        take_all(mailbox)


def test_news_from_a_newer_daemon_is_passed_over() -> None:
    pair = Pair()
    mailbox = pair.ask()
    news = {"id": "r1", "type": "frame", "block": {"type": "mood", "delta": "fine"}}
    pair.board.receive(pack(FrameType.JSON, encode(FrameType.JSON, news)))
    pair.answer(text(mailbox, "still here"), done(mailbox))
    assert drain(mailbox) == ["still here"]


def test_a_refused_connection_says_why() -> None:
    pair = Pair()
    mailbox = pair.ask()
    refusal = Error("", ErrorCode.INTERNAL, "out of descriptors")
    pair.board.receive(pack(FrameType.JSON, encode(FrameType.JSON, refusal)))
    assert not mailbox.ready
    pair.board.receive(b"")
    with pytest.raises(DaemonFault, match="out of descriptors"):
        mailbox.take()


def test_closing_ends_what_is_in_flight() -> None:
    pair = Pair()
    mailbox = pair.ask()
    pair.answer(text(mailbox, "kept"))
    pair.board.close()
    assert drain_one(mailbox) == "kept"
    with pytest.raises(ClientClosed):
        mailbox.take()


def drain_one(mailbox: Mailbox) -> str:
    answer = mailbox.take()
    assert isinstance(answer, BlockAnswer)
    assert isinstance(answer.block, TextDelta)
    return answer.block.delta


def test_a_cancel_that_crosses_the_end_is_not_sent() -> None:
    pair = Pair()
    mailbox = pair.ask()
    pair.answer(done(mailbox))
    pair.board.cancel(mailbox)
    assert not pair.board.outbox


def test_an_abandoned_request_keeps_nothing_and_ends() -> None:
    pair = Pair()
    mailbox = pair.ask()
    pair.board.abandon(mailbox)
    assert pair.deliver() == [CancelReceived(mailbox.id)]
    pair.answer(*(text(mailbox, "x" * 1000) for _ in range(50)))
    assert not mailbox.ready
    pair.answer(done(mailbox))
    assert mailbox.ended
    assert mailbox.take() is None


def take_back(answer: Answer) -> Build | None:
    """What undoes the grant of a lease."""
    return control("undo", {"what": answer.value}) if isinstance(answer, Result) else None


def ask_for_a_grant(pair: Pair) -> Mailbox:
    mailbox = pair.board.open(control("grant", {}), take_back)
    pair.deliver()
    return mailbox


def undone(pair: Pair) -> list[tuple[str, object]]:
    """The undoing requests that go out now: their ids, and what they take back."""
    return [
        (event.id, event.request.arguments["what"])
        for event in pair.deliver()
        if isinstance(event, RequestReceived) and isinstance(event.request, Control)
    ]


def test_a_grant_that_was_taken_is_not_taken_back() -> None:
    pair = Pair()
    mailbox = ask_for_a_grant(pair)
    pair.answer(Result(mailbox.id, "it"))
    assert mailbox.take() == Result(mailbox.id, "it")
    pair.board.abandon(mailbox)
    assert mailbox.settled
    assert not pair.board.outbox


@pytest.mark.parametrize("late", [False, True])
def test_a_grant_that_nobody_took_is_taken_back(late: bool) -> None:
    """Whether it was there when the request was left, or came after."""
    pair = Pair()
    mailbox = ask_for_a_grant(pair)
    if late:
        pair.board.abandon(mailbox)
        assert pair.deliver() == [CancelReceived(mailbox.id)]
        assert pair.board.owes
    pair.answer(Result(mailbox.id, "it"))
    if not late:
        pair.board.abandon(mailbox)
    assert (mailbox.ended, mailbox.settled, pair.board.owes) == (True, False, True)
    ((undoing, what),) = undone(pair)
    assert what == "it"
    pair.answer(Result(undoing, None))
    assert mailbox.settled
    assert not pair.board.owes
    pair.board.abandon(mailbox)
    assert not pair.board.outbox  # once is enough


def test_a_refusal_leaves_nothing_to_take_back() -> None:
    pair = Pair()
    mailbox = ask_for_a_grant(pair)
    pair.board.abandon(mailbox)
    pair.deliver()
    pair.answer(Error(mailbox.id, ErrorCode.TIMEOUT, "cancelled"))
    assert mailbox.settled
    assert not pair.board.owes
    assert not pair.board.outbox


def test_a_lost_connection_owes_nothing() -> None:
    pair = Pair()
    mailbox = ask_for_a_grant(pair)
    pair.board.abandon(mailbox)
    pair.board.close()
    assert mailbox.settled
    assert not pair.board.owes


def test_a_stream_past_its_bound_is_cancelled_and_the_other_is_whole() -> None:
    pair = Pair(max_buffered_bytes=10_000)
    slow, quick = pair.ask(), pair.ask()
    got: list[str] = []
    for i in range(100):
        pair.answer(text(slow, f"{i:03d}"), text(quick, f"{i:03d}"))
        got += drain(quick)
    assert pair.deliver() == [CancelReceived(slow.id)]
    pair.answer(done(quick), done(slow))
    assert got == [f"{i:03d}" for i in range(100)]

    kept: list[Answer] = []
    with pytest.raises(StreamOverflow):
        take_all(slow, kept)
    assert kept == [text(slow, f"{i:03d}") for i in range(len(kept))]
    assert 35 <= len(kept) <= 45


def test_big_parts_weigh_what_they_are() -> None:
    pair = Pair(max_buffered_bytes=10_000)
    mailbox = pair.board.open(control("logs", {}))
    pair.deliver()
    big = Item(mailbox.id, {"line": "x" * 20_000})
    pair.answer(big, big)
    pair.answer(big)
    pair.answer(StreamDone(mailbox.id))
    assert mailbox.take() == big
    assert mailbox.take() == big
    with pytest.raises(StreamOverflow):
        mailbox.take()


def test_the_one_that_reads_is_under_no_bound() -> None:
    pair = Pair(max_buffered_bytes=1000)
    mailbox = pair.ask()
    for _ in range(3):
        pair.answer(*(text(mailbox, "x") for _ in range(100)))
        assert drain(mailbox) == ["x"] * 100
    assert not pair.board.outbox
