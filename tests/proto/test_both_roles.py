"""Both roles piped into each other: whatever is asked, answered and cancelled, and in whatever
pieces it travels, each side learns exactly what the other said, in order, and ends in agreement.
"""

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from inferd_proto import (
    Answer,
    AnswerReceived,
    BlockAnswer,
    CancelReceived,
    Control,
    DoneV1,
    DoneV2,
    Embed,
    Embeddings,
    Error,
    ErrorCode,
    FrameType,
    GenerateV1,
    GenerateV2,
    InputUsage,
    Item,
    Message,
    Queued,
    RankedDocument,
    Ranking,
    Request,
    RequestReceived,
    Rerank,
    Result,
    StreamDone,
    Text,
    TextDelta,
    TextMessage,
    ThinkingDelta,
    Token,
    ToolUse,
    Usage,
    UsageV1,
    VideoAttachment,
)
from tests.support.pair import ConnectionPair

IDS = [f"id{n}" for n in range(5)]
WORDS = st.text(max_size=8)
Asked = tuple[Request, tuple[bytes, ...]]


def requests(id_: str) -> st.SearchStrategy[Asked]:
    blobs = st.lists(st.binary(max_size=40), max_size=3).map(tuple)
    turns = st.builds(lambda text: [Message("user", [Text(text)])], WORDS)
    v2 = st.builds(
        lambda messages, blobs: (
            GenerateV2(
                id=id_,
                messages=messages,
                attachments=[VideoAttachment(str(i)) for i in range(len(blobs))],
            ),
            blobs,
        ),
        turns,
        blobs,
    )
    rest = st.one_of(
        st.builds(lambda text: GenerateV1(id=id_, messages=[TextMessage("user", text)]), WORDS),
        st.just(Embed(id=id_, input=["a"])),
        st.just(Rerank(id=id_, query="q", documents=["a"])),
        st.builds(lambda text: Control(id_, "a.b", {"x": text}), WORDS),
    )
    return v2 | rest.map(lambda request: (request, ()))


def parts(request: Request) -> st.SearchStrategy[Answer]:
    match request:
        case GenerateV2(id=id_):
            blocks = st.one_of(
                st.builds(TextDelta, WORDS),
                st.builds(ThinkingDelta, WORDS),
                st.builds(lambda text: ToolUse("c", "f", {"x": text}), WORDS),
                st.just(Queued(1, None)),
            )
            return st.builds(lambda block: BlockAnswer(id_, block), blocks)
        case GenerateV1(id=id_):
            return st.builds(lambda text: Token(id_, text), WORDS)
        case Control(id=id_):
            return st.builds(lambda text: Item(id_, text), WORDS)
        case _:
            return st.nothing()


def endings(request: Request) -> st.SearchStrategy[Answer]:
    id_ = request.id
    errors = st.builds(lambda text: Error(id_, ErrorCode.INTERNAL, text), WORDS)
    match request:
        case GenerateV2():
            return errors | st.just(DoneV2(id_, Usage(1, 2), "end_turn", "mock"))
        case GenerateV1():
            return errors | st.just(DoneV1(id_, "x", UsageV1(1, 2), "end", "mock"))
        case Embed():
            return errors | st.just(Embeddings(id_, [[0.5]], 1, "m", InputUsage(1), "mock"))
        case Rerank():
            return errors | st.just(
                Ranking(id_, [RankedDocument(0, 1.0)], "m", InputUsage(1), "mock")
            )
        case _:
            return errors | st.sampled_from([Result(id_, {"ok": True}), StreamDone(id_)])


class BothRoles(RuleBasedStateMachine):
    """Random interleavings; `asked`, `said` and `heard` are what must agree in the end."""

    @initialize(encoding=st.sampled_from([FrameType.JSON, FrameType.MSGPACK]))
    def connect(self, encoding: FrameType) -> None:
        self.pair = ConnectionPair(encoding=encoding)
        self.asked: list[Asked] = []
        self.arrived: list[Asked] = []
        self.running: dict[str, Request] = {}
        self.said: dict[str, list[Answer]] = defaultdict(list)
        self.heard: dict[str, list[Answer]] = defaultdict(list)

    @rule(data=st.data(), id_=st.sampled_from(IDS))
    def ask(self, data: st.DataObject, id_: str) -> None:
        if id_ in self.pair.client.in_flight:
            return
        asked = data.draw(requests(id_))
        self.pair.ask(*asked)
        self.asked.append(asked)

    @rule(id_=st.sampled_from(IDS))
    def cancel(self, id_: str) -> None:
        in_flight = id_ in self.pair.client.in_flight
        before = len(self.pair.upstream)
        self.pair.cancel(id_)
        assert (len(self.pair.upstream) > before) is in_flight

    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        if not self.running:
            return
        request = self.running[data.draw(st.sampled_from(sorted(self.running)))]
        possible = parts(request)
        if possible.is_empty:
            return
        answer = data.draw(possible)
        self.pair.answer(answer)
        self.said[request.id].append(answer)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if not self.running:
            return
        self.finish(data.draw(st.sampled_from(sorted(self.running))), data)

    @rule(size=st.integers(1, 200))
    def carry_up(self, size: int) -> None:
        for event in self.pair.to_server(size):
            match event:
                case RequestReceived(id_, request, blobs):
                    assert id_ == request.id
                    self.arrived.append((request, blobs))
                    self.running[id_] = request
                case CancelReceived(id_):
                    assert id_ in self.running
                case _:
                    raise AssertionError(event)

    @rule(size=st.integers(1, 200))
    def carry_down(self, size: int) -> None:
        for event in self.pair.to_client(size):
            assert isinstance(event, AnswerReceived)
            self.heard[event.id].append(event.answer)
            if event.terminal:
                assert event.id not in self.pair.client.in_flight

    @invariant()
    def what_arrived_is_the_beginning_of_what_was_asked(self) -> None:
        assert self.asked[: len(self.arrived)] == self.arrived
        for id_, answers in self.heard.items():
            assert self.said[id_][: len(answers)] == answers
        assert set(self.running) <= set(self.pair.client.in_flight)

    def finish(self, id_: str, data: st.DataObject | None = None) -> None:
        request = self.running.pop(id_)
        answer: Answer = Error(id_, ErrorCode.INTERNAL, "over")
        if data is not None:
            answer = data.draw(endings(request))
        self.pair.answer(answer)
        self.said[id_].append(answer)

    def teardown(self) -> None:
        while self.pair.upstream:
            self.carry_up(7)
        for id_ in list(self.running):
            self.finish(id_)
        while self.pair.downstream:
            self.carry_down(7)
        assert self.arrived == self.asked
        assert self.heard == self.said
        assert self.pair.client.in_flight == self.pair.server.in_flight == []


TestBothRoles = BothRoles.TestCase
TestBothRoles.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("encoding", [FrameType.JSON, FrameType.MSGPACK])
def test_every_split_of_a_conversation_tells_the_same(encoding: FrameType) -> None:
    request = GenerateV2(
        id="a",
        messages=[Message("user", [Text("hi")])],
        attachments=[VideoAttachment("v"), VideoAttachment("w")],
    )
    answers: list[Answer] = [
        BlockAnswer("a", TextDelta("x" * 130)),
        DoneV2("a", Usage(1, 2), "end_turn", "mock"),
    ]
    whole = ConnectionPair(encoding=encoding)
    whole.ask(request, (b"xyz", bytes(200)))
    for split in range(len(whole.upstream) + 1):
        pair = ConnectionPair(encoding=encoding)
        pair.ask(request, (b"xyz", bytes(200)))
        events = pair.to_server(split) + pair.to_server()
        assert events == [RequestReceived("a", request, (b"xyz", bytes(200)))]
        for answer in answers:
            pair.answer(answer)
        heard = pair.to_client(split) + pair.to_client()
        assert [event.answer for event in heard if isinstance(event, AnswerReceived)] == answers
