"""Answers that are passed on undecoded, as a client sees them: bytes, ends and errors."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest

from inferd_daemon.backends.base import (
    Backend,
    Batch,
    Capabilities,
    Finished,
    GenerateRequest,
    Pieces,
    Readiness,
    Relayed,
    RelayRequest,
    TextDeltas,
)
from inferd_daemon.errors import BackendFault, CallerFault, RequestError
from inferd_proto import Usage

from .asking import asking, view_of

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
USER = {"role": "user", "content": "hi"}
HI: dict[str, object] = {"messages": [USER], "stream": True}


class Scripted(Pieces):
    """Pieces, or what is to be raised in their place."""

    def __init__(self, *script: bytes | RequestError) -> None:
        self._left = list(script)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        step = self._left.pop(0)
        if isinstance(step, RequestError):
            raise step
        self.over = not self._left
        self.usage = Usage(3, 2) if self.over else None
        return step


class Relaying(Backend):
    """Relays what it was given; `asked` is what it was asked, `left` how often it was left."""

    kind = "relaying"

    def __init__(self, *script: bytes | RequestError, fails: RequestError | None = None) -> None:
        self.name = "b"
        self.asked: list[RelayRequest] = []
        self.left = 0
        self._script = script
        self._fails = fails

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(tools=True, apis=(MESSAGES, RESPONSES))

    def readiness(self) -> Readiness:
        return Readiness(True)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        yield [TextDeltas(["decoded"]), Finished("end_turn", Usage(1, 1))]

    def relays(self, request: RelayRequest) -> bool:
        return isinstance(request.body, GenerateRequest) and not request.body.tools

    @asynccontextmanager
    async def relay(self, request: RelayRequest) -> AsyncGenerator[Relayed, None]:
        self.asked.append(request)
        if self._fails is not None:
            raise self._fails
        try:
            yield Relayed("application/json", Scripted(*self._script))
        finally:
            self.left += 1


async def ask(backend: Backend, path: str, **body: object) -> httpx.Response:
    """The whole answer."""
    async with asking(view_of({"b": backend})) as client:
        return await client.post(path, json=body)


async def test_a_stream_goes_through() -> None:
    """Byte for byte."""
    backend = Relaying(b"data: 1\n\n", b"data: 2\n\ndata: [DONE]\n\n")
    answer = await ask(backend, CHAT, **HI, stream_options={"include_usage": True})
    assert answer.content == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")
    (asked,) = backend.asked
    assert (asked.path, asked.stream, asked.include_usage) == (CHAT, True, True)
    assert backend.left == 1


@pytest.mark.parametrize(
    "fields",
    [{"stream": False}, {"tools": [{"type": "function", "function": {"name": "f"}}]}],
)
async def test_what_is_not_relayed_is_decoded(fields: dict[str, object]) -> None:
    """An object is put together here; what the backend cannot relay it generates."""
    backend = Relaying(b"data: 1\n\n")
    answer = await ask(backend, CHAT, **(HI | fields))
    assert b"decoded" in answer.content
    assert backend.asked == []


async def test_an_object_goes_through() -> None:
    """With the type that it has."""
    answer = await ask(Relaying(b'{"ok":true}'), MESSAGES, messages=[USER])
    assert answer.content == b'{"ok":true}'
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (CHAT, b'\n\ndata: {"error":{"message":"gone"'),
        (RESPONSES, b'\n\nevent: error\ndata: {"type":"error",'),
        (MESSAGES, b'\n\nevent: error\ndata: {"type":"error","error":'),
    ],
)
async def test_what_breaks_off_ends_with_an_error(path: str, last: bytes) -> None:
    """In the shape of each API, after what came before it."""
    backend = Relaying(b"data: 1\n\n", BackendFault("gone"))
    answer = await ask(backend, path, messages=[USER], input="hi", stream=True)
    assert answer.status_code == 200
    assert answer.content.startswith(b"data: 1" + last)
    assert answer.content.endswith(b"}\n\n")
    assert b"[DONE]" not in answer.content
    assert backend.left == 1


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("error", "status"), [(BackendFault("gone"), 503), (CallerFault("too long"), 400)]
)
async def test_what_fails_at_once_is_a_status(path: str, error: RequestError, status: int) -> None:
    """Before the head, and before the first piece."""
    for backend in (Relaying(fails=error), Relaying(error)):
        answer = await ask(backend, path, messages=[USER], input="hi", stream=True)
        assert answer.status_code == status
        assert json.loads(answer.content)["error"]["message"] == error.message


async def test_failures_count_against_the_backend() -> None:
    """Those of the backend, and not the caller's: then it is left alone for a while."""
    backend = Relaying(CallerFault("too long"))
    view = view_of({"b": backend})
    async with asking(view) as client:
        for _ in range(5):
            await client.post(MESSAGES, json=HI)
        backend._script = (b"data: 1\n\n", BackendFault("gone"))
        for _ in range(3):
            assert (await client.post(MESSAGES, json=HI)).status_code == 200
        refused = await client.post(MESSAGES, json=HI)
    assert refused.status_code == 503
    assert "breaker" in refused.json()["error"]["message"]
    assert len(backend.asked) == 8
