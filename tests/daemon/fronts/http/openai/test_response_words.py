"""llama-server's Responses become what OpenAI's clients know, and own up to being cut."""

import json
from typing import Any

import pytest

from inferd_daemon.backends.base import Pieces
from inferd_daemon.fronts.http.openai.response_words import (
    MAX_HELD_BYTES,
    Limits,
    ResponseWords,
    RewordedPieces,
)
from inferd_proto import Usage

TEXT = {"type": "output_text", "text": "hi"}
MESSAGE = {"id": "msg_a", "type": "message", "role": "assistant"}
CALL = {"id": "fc_b", "type": "function_call", "name": "f"}
CUT = {"reason": "max_output_tokens"}


def whole(*, given: int = 10, made: int = 4, **fields: object) -> dict[str, object]:
    """A response as llama-server ends it."""
    item = MESSAGE | {"status": "completed", "content": [TEXT]}
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    return {"id": "resp_a", "status": "completed", "output": [item], "usage": usage} | fields


def stream(last: dict[str, object], newline: str = "\n") -> bytes:
    """All of an answer, with an item of each kind."""
    begun = {"id": "resp_a", "status": "in_progress"}
    events: list[dict[str, object]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "item": MESSAGE},
        {"type": "response.content_part.added", "item_id": "msg_a", "part": TEXT},
        {"type": "response.output_text.delta", "item_id": "msg_a", "delta": "hi"},
        {"type": "response.output_text.done", "item_id": "msg_a", "text": "hi"},
        {"type": "response.output_item.done", "item": MESSAGE},
        {"type": "response.output_item.added", "item": CALL},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_b", "delta": "{"},
        {"type": "response.output_item.done", "item": CALL},
        {"type": "response.completed", "response": last, "timings": {"n": 1}},
    ]
    lines = [
        f"event: {event['type']}{newline}data: {json.dumps(event)}{newline}{newline}"
        for event in events
    ]
    return "".join(lines).encode()


def decoded(data: bytes) -> list[dict[str, Any]]:
    """Its events, each of which is named as its data are."""
    found = []
    for block in data.replace(b"\r\n", b"\n").decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def reworded(data: bytes, limits: Limits, *, by: int, is_stream: bool = True) -> bytes:
    """`data` in pieces of `by` bytes."""
    words = ResponseWords(limits, stream=is_stream)
    pieces = [words.feed(data[at : at + by]) for at in range(0, len(data), by)]
    return b"".join(pieces) + words.feed_eof()


@pytest.mark.parametrize(
    ("limits", "last", "status"),
    [
        (Limits(), whole(), "completed"),
        (Limits(5, 15), whole(), "completed"),
        (Limits(4), whole(), "incomplete"),
        (Limits(None, 14), whole(), "incomplete"),
        (Limits(4, 14), whole(status="failed"), "failed"),
        (Limits(4, 14), whole(usage=None), "completed"),
        # who tells of limits is believed
        (Limits(4, 14), whole(incomplete_details=None), "completed"),
    ],
)
def test_a_cut_answer_says_so(limits: Limits, last: dict[str, object], status: str) -> None:
    """Whole as in a stream: by its status, its reason and the name of its last event."""
    is_cut = status == "incomplete"
    data = json.dumps(last).encode()
    answer = json.loads(reworded(data, limits, by=100, is_stream=False))
    event = decoded(reworded(stream(last), limits, by=100))[-1]
    assert event["type"] == ("response.incomplete" if is_cut else "response.completed")
    for found in (answer, event["response"]):
        assert found["status"] == status
        assert found["incomplete_details"] == (CUT if is_cut else None)
        assert found["output"][0]["status"] == ("incomplete" if is_cut else "completed")
        assert found["output"][0]["content"] == [TEXT]
        assert found["usage"] == last["usage"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("by", [1, 7, 100_000])
def test_every_event_says_where_it_belongs(by: int, newline: str) -> None:
    """By the order in which items came, wherever the pieces end."""
    found = decoded(reworded(stream(whole(), newline), Limits(), by=by))
    assert [event["sequence_number"] for event in found] == list(range(10))
    indices = [event.get("output_index") for event in found]
    assert indices == [None, 0, 0, 0, 0, 0, 1, 1, 1, None]
    assert [event.get("content_index") for event in found] == [None] * 2 + [0] * 3 + [None] * 5
    assert found[0]["response"]["output"] == []
    assert found[3]["logprobs"] == found[4]["logprobs"] == []
    assert found[-1]["timings"] == {"n": 1}


def test_what_an_event_says_itself_stays() -> None:
    kind = "response.output_text.delta"
    event = {
        **{"type": kind, "item_id": "x", "delta": "hi", "logprobs": [1]},
        **{"output_index": 5, "content_index": 6, "sequence_number": 7},
    }
    data = b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(event).encode())
    assert decoded(reworded(data, Limits(), by=1000)) == [event]


@pytest.mark.parametrize(
    "data",
    [
        b"data: 1\n\n",
        b": comment\n\n",
        b'event: x\ndata: {"type":"x"}\n\n',
        b"event: x\nid: 1\ndata: {\n\n",
        b'data: {"type":["response.created"]}\n',
        b'data: {"type":"error","message":"\xff"}\n',
        b"event: last",
    ],
)
def test_what_is_none_of_the_api_passes(data: bytes) -> None:
    for by in (1, 1000):
        assert reworded(data, Limits(1, 1), by=by) == data


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"error":{}}', b""])
def test_an_object_that_is_none_passes(data: bytes) -> None:
    assert reworded(data, Limits(1, 1), by=1, is_stream=False) == data


@pytest.mark.parametrize("is_stream", [True, False])
def test_what_is_too_long_to_hold_passes(is_stream: bool) -> None:
    """And what comes after it."""
    words = ResponseWords(Limits(1, 1), stream=is_stream)
    begin, rest = b'event: x\ndata: {"', b"a" * (MAX_HELD_BYTES + 1)
    assert words.feed(begin) == b""
    assert words.feed(rest) == begin + rest
    assert words.feed(b"b") == b"b"
    assert words.feed_eof() == b""


class Given(Pieces):
    """Lines, one by one."""

    def __init__(self, data: bytes) -> None:
        self._left = data.splitlines(keepends=True)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        piece = self._left.pop(0)
        self.over, self.usage = not self._left, None if self._left else Usage(10, 4)
        return piece


async def test_pieces_end_as_those_that_they_are_made_of() -> None:
    """None of them is empty."""
    pieces = RewordedPieces(Given(stream(whole())), ResponseWords(Limits(4), stream=True))
    got: list[bytes] = []
    async for piece in pieces:
        assert piece
        assert pieces.over == (b"response.incomplete" in b"".join(got[-1:]) and piece == b"\n")
        got.append(piece)
    assert pieces.usage == Usage(10, 4)
    assert decoded(b"".join(got))[-1]["type"] == "response.incomplete"
