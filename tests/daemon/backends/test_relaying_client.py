"""Answers that are passed on undecoded, from upstreams that behave and that do not."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.base import (
    Capabilities,
    GenerateRequest,
    Media,
    RelayRequest,
    Sampling,
)
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.deadlines import Deadlines
from inferd_daemon.backends.relaying_client import RelayingClient, can_be_relayed
from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.config import UpstreamKind
from inferd_daemon.errors import (
    AnswerTooLong,
    BackendFault,
    BackendSilence,
    CallerFault,
    RequestError,
)
from inferd_daemon.routing.upstream import counts_against_backend
from inferd_proto import ErrorCode, ImageAttachment, Message, Text, Tool, Usage
from tests.support.scripted_upstream import (
    CHUNKS_END,
    EVENTS_HEAD,
    Close,
    Hang,
    Hold,
    Pause,
    Repeat,
    Reset,
    Script,
    ScriptedUpstream,
    chunk,
    serve,
    whole,
)

KEY = "k3y-0123456789"
CAN = Capabilities(tools=True)
HI = GenerateRequest([Message("user", [Text("hi")])], Sampling(max_tokens=4, stop=["x"]))
CHAT = RelayRequest("/v1/chat/completions", HI, True)
FIELDS = {"input": msgspec.Raw(b'"hi"'), "model": msgspec.Raw(b'"route"')}
RESPONSES = RelayRequest("/v1/responses", FIELDS, True)
OBJECT = RelayRequest("/v1/messages", FIELDS, False)
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
GOOD: Script = [EVENTS_HEAD, chunk(TEXT), chunk(TEXT), chunk(FINISH + DONE) + CHUNKS_END]


@asynccontextmanager
async def connected(
    directory: Path,
    *scripts: Script,
    tcp: bool = False,
    model: str | None = None,
    api_prefix: str = "",
    kind: UpstreamKind = "llama_server",
) -> AsyncGenerator[tuple[RelayingClient, ScriptedUpstream], None]:
    """A client of an upstream that does what its script says."""
    async with serve(directory, *scripts, tcp=tcp) as upstream:
        client = RelayingClient(
            PlainTransport(uds=upstream.uds),
            base_url=upstream.url,
            dialect=DIALECTS[kind],
            model=model,
            api_key=KEY,
            api_prefix=api_prefix,
            deadlines=Deadlines(total_s=30, connect_s=10, first_byte_s=10, idle_s=5),
        )
        try:
            yield client, upstream
        finally:
            await client.aclose()


async def relayed(client: RelayingClient, request: RelayRequest = CHAT) -> tuple[bytes, int]:
    """All of the answer, and in how many pieces it came."""
    pieces: list[bytes] = []
    async with client.relay(request, CAN) as answer:
        async for piece in answer.pieces:
            pieces.append(piece)
            assert answer.pieces.over == (len(pieces) == 1 and not request.stream) or request.stream
        assert answer.pieces.over
    return b"".join(pieces), len(pieces)


async def failure(
    client: RelayingClient, request: RelayRequest = CHAT
) -> tuple[RequestError, bytes]:
    """What the answer ended with, and what came before."""
    data = b""
    with pytest.raises(RequestError) as caught:  # noqa: PT012  what comes first is kept
        async with client.relay(request, CAN) as answer:
            async for piece in answer.pieces:
                data += piece
    return caught.value, data


# -- what is asked -----------------------------------------------------------------------------


async def test_a_generation_is_asked_for_as_the_client_wants_it(tmp_path: Path) -> None:
    """Nothing is asked for that only a decoder understands."""
    async with connected(tmp_path, GOOD) as (client, upstream):
        await relayed(client)
        await relayed(client, RelayRequest(CHAT.path, HI, True, include_usage=True))
    plain, with_usage = (json.loads(request.body) for request in upstream.requests)
    assert plain == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 4,
        "stop": ["x"],
    }
    assert with_usage == plain | {"stream_options": {"include_usage": True}}


async def test_fields_go_as_they_are_but_for_the_model(tmp_path: Path) -> None:
    """Which is the upstream's own, where it is configured; below the API's prefix."""
    script = whole(200, b'{"ok":true}')
    async with connected(tmp_path, [script], model="own", api_prefix="/x") as (client, upstream):
        assert await relayed(client, OBJECT) == (b'{"ok":true}', 1)
    (request,) = upstream.requests
    assert request.path == "/x/v1/messages"
    assert json.loads(request.body) == {"input": "hi", "model": "own"}
    async with connected(tmp_path, [script]) as (client, upstream):
        await relayed(client, OBJECT)
    assert json.loads(upstream.requests[0].body) == {"input": "hi", "model": "route"}


@pytest.mark.parametrize("kind", ["llama_server", "openai"])
async def test_a_format_goes_to_who_knows_it(tmp_path: Path, kind: UpstreamKind) -> None:
    """Others refuse what their API does not define."""
    form = msgspec.Raw(b'{"type":"json_object"}')
    request = msgspec.structs.replace(RESPONSES, stream=False, response_format=form)
    async with connected(tmp_path, [whole(200, b"{}")], kind=kind) as (client, upstream):
        await relayed(client, request)
    asked = json.loads(upstream.requests[0].body)
    assert asked.get("response_format") == (
        {"type": "json_object"} if kind == "llama_server" else None
    )


async def test_what_is_not_supported_is_not_sent(tmp_path: Path) -> None:
    """The same check as where the answer is decoded."""
    request = RelayRequest(CHAT.path, msgspec.structs.replace(HI, response_schema={}), True)
    async with connected(tmp_path, GOOD) as (client, upstream):
        error, _ = await failure(client, request)
    assert isinstance(error, CallerFault)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("request_", "dialect", "possible"),
    [
        (HI, "generic", True),
        (HI, "llama_server", True),
        (HI, "openrouter", False),
        (HI, "vllm", False),
        (msgspec.structs.replace(HI, tools=[Tool("f", {})]), "generic", False),
        (msgspec.structs.replace(HI, thinking=False), "generic", False),
        (msgspec.structs.replace(HI, thinking=True), "generic", True),
        (
            msgspec.structs.replace(HI, media={"a": Media(ImageAttachment("a", 1, 1), b"123")}),
            "generic",
            False,
        ),
        (GenerateRequest([Message("user", [Text("x" * 20_000)])]), "generic", True),
        (GenerateRequest([Message("user", [Text("x" * 20_000)])]), "llama_server", False),
    ],
)
def test_what_needs_decoding(
    request_: GenerateRequest, dialect: UpstreamKind, possible: bool
) -> None:
    """Where more is promised than the upstream's own words."""
    assert can_be_relayed(request_, DIALECTS[dialect]) is possible


# -- what comes --------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_kept")
async def test_bytes_go_through_as_they_come(tmp_path: Path) -> None:
    """The connection is kept for the next request."""
    async with connected(tmp_path, GOOD) as (client, upstream):
        for _ in range(3):
            data, _ = await relayed(client)
            assert data == TEXT + TEXT + FINISH + DONE
        assert upstream.connections == 1
        assert client.signs.succeeded_at > 0


async def test_usage_is_read_where_the_upstream_tells_it(tmp_path: Path) -> None:
    """Of a stream and of an object, by the names that each API has."""
    told = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens": 5}}\n\n'
    script: Script = [EVENTS_HEAD, chunk(TEXT + told + DONE) + CHUNKS_END]
    body = b'{"content":"\\"input_tokens\\":9","usage":{"input_tokens":3,"output_tokens":5}}'
    for request, steps in ((CHAT, script), (OBJECT, [whole(200, body)])):
        async with (
            connected(tmp_path, steps) as (client, _),
            client.relay(request, CAN) as answer,
        ):
            async for _ in answer.pieces:
                pass
            assert answer.pieces.usage == Usage(3, 5)
    async with connected(tmp_path, GOOD) as (client, _), client.relay(CHAT, CAN) as answer:
        async for _ in answer.pieces:
            pass
        assert answer.pieces.usage is None


async def test_malformed_lines_are_dropped_and_counted(tmp_path: Path) -> None:
    """Nothing else of the stream is lost with them."""
    script: Script = [EVENTS_HEAD, chunk(TEXT + b"<p>\ndata: {oh\n\n" + FINISH + DONE), CHUNKS_END]
    async with connected(tmp_path, script) as (client, _):
        data, _ = await relayed(client)
        assert data == TEXT + b"\n" + FINISH + DONE
        assert client.dropped == 2


async def test_each_receive_is_a_piece(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing waits for more to come."""
    script: Script = [EVENTS_HEAD, chunk(TEXT), Pause(1), chunk(TEXT + FINISH + DONE) + CHUNKS_END]
    async with connected(tmp_path, script) as (client, _):
        assert await relayed(client) == (TEXT + TEXT + FINISH + DONE, 2)


@pytest.mark.parametrize("told", [b'"stop"', b'"length"'])
async def test_an_answer_that_said_why_it_ended_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock, told: bytes
) -> None:
    """Its missing end is made good, as where the upstream closes."""
    last = FINISH.replace(b'"stop"', told)
    async with connected(tmp_path, [EVENTS_HEAD, chunk(TEXT + last), Hang()]) as (client, _):
        started = trio.current_time()
        assert await relayed(client) == (TEXT + last + DONE, 2)
        assert trio.current_time() - started == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("script", "code", "before", "said"),
    [
        (
            [whole(500, b'{"error":{"message":"no memory"}}')],
            "backend_unavailable",
            b"",
            "no memory",
        ),
        ([whole(400, b'{"error":{"message":"too long"}}')], "invalid_request", b"", "too long"),
        ([whole(503, b"loading")], "backend_unavailable", b"", "503"),
        ([whole(302, b"")], "backend_unavailable", b"", "redirect"),
        ([whole(200, b"<html>hi</html>", "text/html")], "backend_unavailable", b"", "text/html"),
        (
            [whole(200, b'{"error":"bad"}')],
            "backend_unavailable",
            b"",
            "bad",
        ),
        ([Close()], "backend_unavailable", b"", "broke"),
        ([EVENTS_HEAD, chunk(TEXT), Close()], "backend_unavailable", TEXT, "broke"),
        ([EVENTS_HEAD, chunk(TEXT), Reset()], "backend_unavailable", TEXT, "broke"),
        ([EVENTS_HEAD, chunk(TEXT), CHUNKS_END], "backend_unavailable", TEXT, "in the middle"),
        (
            [EVENTS_HEAD, chunk(TEXT), chunk(b'data: {"cho'), CHUNKS_END],
            "backend_unavailable",
            TEXT,
            "in the middle",
        ),
        (
            [EVENTS_HEAD, chunk(TEXT + b'data: {"error":{"message":"slot lost"}}\n\n'), Hold()],
            "backend_unavailable",
            TEXT,
            "slot lost",
        ),
        (
            [EVENTS_HEAD, chunk(b'data: {"error":{"message":"bad","code":400}}\n\n'), Hold()],
            "invalid_request",
            b"",
            "bad",
        ),
        (
            [
                EVENTS_HEAD,
                chunk(TEXT),
                chunk(f'data: {{"error":"key {KEY}"}}\n\n'.encode()),
                Hold(),
            ],
            "backend_unavailable",
            TEXT,
            "key ***",
        ),
        (
            [
                EVENTS_HEAD,
                chunk(TEXT + f'data:{{"id":1,"error":{{"message":"key {KEY}"}}}}\n\n'.encode()),
                chunk(FINISH + DONE),
                CHUNKS_END,
            ],
            "backend_unavailable",
            TEXT,
            "key ***",
        ),
    ],
)
async def test_failures(
    tmp_path: Path, script: Script, code: str, before: bytes, said: str
) -> None:
    """One error, of the right code, and never a silent end."""
    async with connected(tmp_path, script, tcp=True) as (client, _):
        error, data = await failure(client)
    assert error.code == ErrorCode(code)
    assert isinstance(error, CallerFault if code == "invalid_request" else BackendFault)
    assert said in error.message
    assert KEY not in error.message
    assert data == before


@pytest.mark.parametrize(
    ("script", "after_s", "said"),
    [
        ([Hang()], 10, "no answer"),
        ([EVENTS_HEAD, Hang()], 10, "began no answer"),
        ([EVENTS_HEAD, Repeat(chunk(b": ping\n\n"), 1)], 10, "began no answer"),
        ([EVENTS_HEAD, chunk(TEXT), Hang()], 5, "did not go on"),
        (
            [EVENTS_HEAD, chunk(FINISH.replace(b'"stop"', b'""')), Hang()],
            5,
            "did not go on",
        ),
        ([EVENTS_HEAD, chunk(TEXT), Repeat(chunk(b": ping\n\n"), 1)], 30, "did not end"),
        ([EVENTS_HEAD, Repeat(chunk(TEXT), 1)], 30, "longer than it may, 30 s (timeout_s)"),
    ],
)
async def test_silence_ends_in_time(
    tmp_path: Path, autojump_clock: MockClock, script: Script, after_s: float, said: str
) -> None:
    """The same deadlines as where the answer is decoded."""
    async with connected(tmp_path, script) as (client, _):
        started = trio.current_time()
        error, _ = await failure(client)
        assert isinstance(error, BackendSilence) == (after_s < 30)
        assert isinstance(error, AnswerTooLong) == ("longer" in said)
        assert isinstance(error, BackendFault)
        assert said in error.message
        assert trio.current_time() - started == pytest.approx(after_s, abs=0.01)


async def test_a_slow_reader_is_not_held_against_the_upstream(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Neither is his pause a silence of the upstream, nor its answer too long."""
    paced: Script = [EVENTS_HEAD, chunk(TEXT), Pause(2), chunk(FINISH + DONE) + CHUNKS_END]
    async with connected(tmp_path, paced) as (client, _), client.relay(CHAT, CAN) as answer:
        assert await anext(answer.pieces) == TEXT
        await trio.sleep(20)
        assert await anext(answer.pieces) == FINISH + DONE
    async with connected(tmp_path, [EVENTS_HEAD, Repeat(chunk(TEXT), 0.5)]) as (client, _):
        with pytest.raises(AnswerTooLong, match="the client read too slowly") as caught:  # noqa: PT012
            async with client.relay(CHAT, CAN) as answer:
                async for _ in answer.pieces:
                    await trio.sleep(7)
        assert not counts_against_backend(caught.value)


async def test_a_model_that_an_upstream_has_not_is_told_apart(tmp_path: Path) -> None:
    """The API is there: it is the configuration that names another model."""
    refused = whole(404, b'{"error":{"message":"The model `m` does not exist."}}')
    async with connected(tmp_path, [refused]) as (client, _):
        error, _ = await failure(client, OBJECT)
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.message == "upstream answered 404: The model `m` does not exist."


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_api_that_is_not_there_is_nobodys_fault(tmp_path: Path, status: int) -> None:
    """It does not count against the upstream."""
    async with connected(tmp_path, [whole(status, b"{}")]) as (client, _):
        for request in (RESPONSES, OBJECT):
            error, _ = await failure(client, request)
            assert error.code is ErrorCode.INVALID_REQUEST
            assert not isinstance(error, BackendFault)


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{", Close()],
        [whole(200, b"{}", "application/json", "content-encoding: gzip")],
    ],
)
async def test_half_an_object_is_none(tmp_path: Path, script: Script) -> None:
    """It is held until it is whole: the client gets a status instead."""
    async with connected(tmp_path, script) as (client, _):
        error, data = await failure(client, OBJECT)
    assert isinstance(error, BackendFault)
    assert data == b""


async def test_leaving_closes_the_connection_at_once(tmp_path: Path) -> None:
    """In the middle of a stream, and before its head."""
    async with connected(tmp_path, [EVENTS_HEAD, chunk(TEXT), Hold()]) as (client, upstream):
        async with client.relay(CHAT, CAN) as answer:
            assert await anext(answer.pieces) == TEXT
        with trio.fail_after(10):
            await upstream.gone.wait()
    async with connected(tmp_path, [Hold()]) as (client, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(relayed, client)
        await upstream.arrived.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await upstream.gone.wait()
