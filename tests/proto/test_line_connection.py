"""Requests and answers as lines, whatever the pieces in which they come."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_proto import (
    Embed,
    Embeddings,
    Error,
    ErrorCode,
    Event,
    InputUsage,
    LineConnection,
    LocalProtocolError,
    RankedDocument,
    Ranking,
    Refused,
    RequestReceived,
    Rerank,
)
from inferd_proto.account import FREE_MESSAGE_BYTES
from inferd_proto.events import Closed

EMBED = b'{"id":"e1","input":["one","two"],"task":"similarity"}\n'
RERANK = b'{"query":"cat","documents":["dog","cat"],"top_n":1}\n'


class Purse:
    """An account with so many bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> bool:
        if self.held + count > self.limit:
            return False
        self.held += count
        return True

    def give_back(self, count: int) -> None:
        assert 0 <= count <= self.held
        self.held -= count


def events(connection: LineConnection, *pieces: bytes) -> list[Event]:
    found: list[Event] = []
    for piece in pieces:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not None:
            found.append(event)
    return found


def refused(connection: LineConnection, *pieces: bytes) -> Refused:
    (event,) = events(connection, *pieces)
    assert isinstance(event, Refused)
    return event


def test_requests_need_neither_version_nor_op() -> None:
    (asked,) = events(LineConnection("embed"), EMBED)
    wanted = Embed(id="e1", input=["one", "two"], task="similarity")
    assert asked == RequestReceived("e1", wanted, ())
    (asked,) = events(LineConnection("rerank"), RERANK)
    assert asked == RequestReceived("", Rerank(query="cat", documents=["dog", "cat"], top_n=1), ())


def test_answers_are_the_bytes_of_a_line() -> None:
    usage = InputUsage(3)
    assert LineConnection("embed").send(Embeddings("e1", [[0.5, 1.0]], 2, "m", usage, "b")) == (
        b'{"type":"embeddings","id":"e1","embeddings":[[0.5,1.0]],"dimensions":2,"model":"m",'
        b'"usage":{"input_tokens":3},"backend":"b"}\n'
    )
    ranking = Ranking("", [RankedDocument(1, 0.5)], "m", usage, "b")
    assert LineConnection("rerank").send(ranking) == (
        b'{"type":"rerank","id":"","results":[{"index":1,"score":0.5}],"model":"m",'
        b'"usage":{"input_tokens":3},"backend":"b"}\n'
    )
    error = Error("e1", ErrorCode.QUEUE_FULL, "two\nlines")
    assert LineConnection("embed").send(error).count(b"\n") == 1
    with pytest.raises(LocalProtocolError, match="Ranking answers no embed"):
        LineConnection("embed").send(ranking)


@pytest.mark.parametrize(
    ("line", "request_id", "code", "words"),
    [
        (b"hello\n", "", "invalid_request", "JSON"),
        (b"[]\n", "", "invalid_request", "Expected `object`"),
        (b'{"id":"a"}\n', "a", "invalid_request", "`input`"),
        (b'{"id":"a","input":[""]}\n', "a", "invalid_request", "input"),
        (b'{"id":"a","op":"rerank","input":["x"]}\n', "a", "invalid_request", "for embed alone"),
        (b'{"id":"a","input":["\xff"]}\n', "a", "invalid_request", "UTF-8"),
        (b'{"id":7,"input":["x"]}\n', "", "invalid_request", "`id`"),
        (b'{"id":"a","wire_version":2,"input":["x"]}\n', "a", "wire_version_unsupported", "2"),
    ],
)
def test_mistakes_are_answered(line: bytes, request_id: str, code: str, words: str) -> None:
    connection = LineConnection("embed")
    event = refused(connection, line)
    answer = json.loads(event.data)
    assert event.data.endswith(b"}\n")
    assert (answer["type"], answer["id"], answer["code"]) == ("error", request_id, code)
    assert words in answer["message"]
    assert event.close == (code == "wire_version_unsupported")
    assert len(events(connection, EMBED)) == (0 if event.close else 1)


def test_version_and_op_may_be_told_and_null_is_nothing() -> None:
    told = b'{"wire_version":1,"op":"embed","id":null,"input":["x"],"dimensions":null}\n'
    (asked,) = events(LineConnection("embed"), told)
    assert asked == RequestReceived("", Embed(input=["x"]), ())


def test_empty_lines_say_nothing_and_returns_may_end_one() -> None:
    (asked,) = events(LineConnection("embed"), b"\n \r\n" + EMBED.replace(b"\n", b"\r\n"))
    assert isinstance(asked, RequestReceived)


@given(st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same(cuts: list[int]) -> None:
    stream = EMBED + b"\nwhat?\n" + EMBED
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges) if b > a]
    assert events(LineConnection("embed"), *pieces) == events(LineConnection("embed"), stream)


def test_the_end_is_clean_between_lines_only() -> None:
    assert events(LineConnection("embed"), b"") == [Closed(True)]
    half = LineConnection("embed")
    assert events(half, EMBED[:-1]) == []
    assert not half.at_rest
    assert events(half, b"") == [Closed(False)]


def test_a_line_is_bounded_before_it_has_ended() -> None:
    connection = LineConnection("embed", max_line_bytes=100)
    assert events(connection, b" " * 100) == []
    event = refused(connection, b" ")
    assert (event.code, event.close) == (ErrorCode.FRAME_TOO_LARGE, True)
    assert events(connection, EMBED) == []


def test_long_lines_are_charged_as_they_come() -> None:
    purse = Purse(200_000)
    connection = LineConnection("embed", account=purse)
    text = b"a" * 100_000
    assert events(connection, b'{"input":["', text) == []
    assert purse.held == 100_011
    (asked,) = events(connection, b'"]}\n')
    assert isinstance(asked, RequestReceived)
    assert asked.charged == purse.held == 100_014
    purse.give_back(asked.charged)
    events(connection, EMBED, b'{"input":["', b"a" * FREE_MESSAGE_BYTES)
    assert purse.held > FREE_MESSAGE_BYTES
    connection.close()
    assert purse.held == 0


def test_who_has_no_room_is_told_and_closed() -> None:
    purse = Purse(100_000)
    event = refused(LineConnection("embed", account=purse), b'{"input":["', b"a" * 100_000)
    assert (event.code, event.close) == (ErrorCode.QUEUE_FULL, True)
    assert "max_request_bytes_in_memory" in event.message
    assert purse.held == 0


def test_what_is_refused_is_not_charged() -> None:
    purse = Purse(200_000)
    refused(LineConnection("embed", account=purse), b'{"input":["' + b"a" * 100_000 + b'",3]}\n')
    assert purse.held == 0
