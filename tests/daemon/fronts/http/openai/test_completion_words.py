"""llama-server's older Completions become what OpenAI's clients know."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from inferd_daemon.backends.base import Pieces
from inferd_daemon.fronts.http.openai.completion_words import CompletionWords
from inferd_proto import Usage

FIGURES = {"completion_tokens": 3, "prompt_tokens": 2, "details": {"cached": 0}}
TEXT = {"choices": [{"text": 'say "usage": {}'}], "id": "chatcmpl-a"}
LAST = {"choices": [{"text": ""}], "id": "chatcmpl-a", "usage": FIGURES, "timings": {"n": {}}}
OWN = {"choices": [], "id": "chatcmpl-a", "usage": FIGURES}


class Given(Pieces):
    """Pieces that are there already."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._left = list(pieces)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        self.over, self.usage = len(self._left) == 1, Usage(2, 3)
        return self._left.pop(0)


def events(*values: object) -> bytes:
    lines = [json.dumps(value, separators=(",", ":")).encode() for value in values]
    return b"".join(b"data: %b\n\n" % line for line in (*lines, b"[DONE]"))


async def reworded(data: bytes, *, usage: bool, stream: bool = True, by: int = 1) -> bytes:
    """`data` in pieces of `by` lines."""
    lines = data.splitlines(keepends=True)
    pieces = [b"".join(lines[at : at + by]) for at in range(0, len(lines), by)]
    words = CompletionWords(Given(pieces), stream=stream, include_usage=usage)
    got = b"".join([piece async for piece in words])
    assert words.over
    assert words.usage == Usage(2, 3)
    return got


def decoded(data: bytes) -> list[Any]:
    blocks = [block.strip() for block in data.split(b"\n\n") if block.strip()]
    assert blocks.pop() == b"data: [DONE]"
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


@pytest.mark.parametrize("by", [1, 2, 100])
@pytest.mark.parametrize("given", [(TEXT, LAST), (TEXT, LAST | {"usage": None}, OWN)])
async def test_figures_come_when_asked_and_by_themselves(given: tuple[Any, ...], by: int) -> None:
    for usage in (True, False):
        found = decoded(await reworded(events(*given), usage=usage, by=by))
        assert all(event["id"] == "cmpl-a" and "timings" not in event for event in found)
        assert [event for event in found if event.get("usage")] == (
            [{"choices": [], "id": "cmpl-a", "usage": FIGURES}] if usage else []
        )
        assert [bool(event["choices"]) for event in found] == [True, True] + [False] * usage
        assert found[0]["choices"] == TEXT["choices"]


async def test_a_whole_answer_keeps_its_figures() -> None:
    data = json.dumps(LAST, separators=(",", ":")).encode()
    found = json.loads(await reworded(data, usage=False, stream=False))
    assert found == {"choices": LAST["choices"], "id": "cmpl-a", "usage": FIGURES}


@pytest.mark.parametrize("data", [b'data: {"usage":\n\n', b'data: ["usage":]\n', b': "usage":\n'])
async def test_what_is_no_event_passes(data: bytes) -> None:
    assert await reworded(data, usage=False) == data
