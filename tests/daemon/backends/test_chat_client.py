"""One request against upstreams that misbehave: one error, in time, of the right code."""

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.base import (
    Batch,
    Capabilities,
    EmbedRequest,
    Finished,
    GenerateRequest,
    Media,
    RerankRequest,
    Sampling,
    TextDeltas,
)
from inferd_daemon.backends.chat_client import ChatClient
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.deadlines import Deadlines
from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.errors import (
    AnswerTooLong,
    BackendFault,
    BackendSilence,
    CallerFault,
    MachineFault,
    RequestError,
)
from inferd_daemon.routing.upstream import counts_against_backend
from inferd_proto import ErrorCode, Image, ImageAttachment, Message, Text, Usage
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
    Step,
    chunk,
    serve,
    whole,
)

KEY = "k3y-0123456789"
TOKEN = "t0ken-9876543210"
BASIC = "Basic " + b64encode(b"alice:<p4ss&word").decode()
HI = GenerateRequest([Message("user", [Text("hi")])], Sampling(max_tokens=4))
CAN = Capabilities(tools=True, vision=True)
DEADLINES = Deadlines(total_s=30, connect_s=10, first_byte_s=10, idle_s=5)


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(content: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": None}])


FINISH = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
END = chunk(FINISH + USAGE + DONE) + CHUNKS_END
GOOD: Script = [EVENTS_HEAD, chunk(text("a")), chunk(text("b")), END]
WHOLE_ANSWER = [TextDeltas(["a"]), TextDeltas(["b"]), Finished("end_turn", Usage(3, 2))]


@asynccontextmanager
async def connected(
    directory: Path, *scripts: Script, deadlines: Deadlines = DEADLINES, tcp: bool = False
) -> AsyncGenerator[tuple[ChatClient, ScriptedUpstream], None]:
    async with serve(directory, *scripts, tcp=tcp) as upstream:
        client = ChatClient(
            PlainTransport(uds=upstream.uds),
            base_url=upstream.url,
            dialect=DIALECTS["generic"],
            model="m",
            api_key=KEY,
            headers={"X-Team": "blue-team", "X-Auth": f"Bearer {TOKEN}", "X-Basic": BASIC},
            deadlines=deadlines,
        )
        yield client, upstream
        await client.aclose()


async def run(
    client: ChatClient, request: GenerateRequest = HI, got: list[Batch] | None = None
) -> list[Batch]:
    """The batches; also in `got`, as they come."""
    got = [] if got is None else got
    async with aclosing(client.generate(request, CAN)) as batches:
        async for batch in batches:
            got.append(batch)
    return got


async def fail(client: ChatClient, got: list[Batch] | None = None) -> RequestError:
    """The one error of a request; `got` is filled with what came before it."""
    with pytest.raises(RequestError) as caught:
        await run(client, got=got)
    return caught.value


async def test_what_is_asked(tmp_path: Path) -> None:
    async with connected(tmp_path, GOOD) as (client, upstream):
        await run(client)
        (seen,) = upstream.requests
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["x-team"] == "blue-team"
    asked = json.loads(seen.body)
    assert asked["stream"] is True
    assert asked["stream_options"] == {"include_usage": True}
    assert (asked["model"], asked["max_tokens"]) == ("m", 4)


async def test_an_answer_comes_as_it_is_ready(tmp_path: Path, autojump_clock: MockClock) -> None:
    pieces: list[Step] = [chunk(text("a")), Pause(1), chunk(text("b") + text("c")), Pause(1), END]
    async with connected(tmp_path, [EVENTS_HEAD, *pieces]) as (client, _):
        assert await run(client) == [
            [TextDeltas(["a"])],
            [TextDeltas(["b", "c"])],
            [Finished("end_turn", Usage(3, 2))],
        ]


async def test_the_connection_is_kept_after_a_whole_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # llama-server writes the end of the chunks apart from `[DONE]`.
    apart: Script = [EVENTS_HEAD, chunk(text("a") + FINISH + DONE), Pause(0.001), CHUNKS_END]
    async with connected(tmp_path, apart) as (client, upstream):
        for _ in range(3):
            await run(client)
        assert upstream.connections == 1


async def test_a_body_that_stays_open_holds_nothing_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its connection is worth a few milliseconds."""
    script: Script = [EVENTS_HEAD, chunk(text("a") + FINISH + USAGE + DONE), Hang()]
    async with connected(tmp_path, script) as (client, _):
        started = trio.current_time()
        (batch,) = await run(client)
        assert batch[-1] == Finished("end_turn", Usage(3, 2))
        assert trio.current_time() - started < 0.02


@pytest.mark.parametrize("after", [Hang(), Repeat(chunk(b": ping\n\n"), 0.7)])
async def test_an_answer_that_said_why_it_ended_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock, after: Step
) -> None:
    """Some servers neither say `[DONE]` nor close."""
    script: Script = [EVENTS_HEAD, chunk(text("a") + FINISH), Pause(0.5), chunk(USAGE), after]
    async with connected(tmp_path, script) as (client, _):
        started = trio.current_time()
        assert (await run(client))[-1] == [Finished("end_turn", Usage(3, 2))]
        assert trio.current_time() - started == pytest.approx(1.5, abs=0.05)


# What it does: its script, the code, words of the message, events before the error, the latest
# second at which the error comes.
BEFORE, AFTER = 0, 1
LONG_CONTEXT = "context_length_exceeded"
UNAVAILABLE = ErrorCode.BACKEND_UNAVAILABLE
BAD: dict[str, tuple[list[Step], ErrorCode, str, int, float]] = {
    "closes at once": ([Close()], UNAVAILABLE, "broke the connection", BEFORE, 0),
    "speaks no HTTP": ([b"hello?\r\n\r\n", Hold()], UNAVAILABLE, "HTTP", BEFORE, 0),
    "never answers": ([Hang()], UNAVAILABLE, "in time", BEFORE, 10),
    "half a head": ([b"HTTP/1.1 200 OK\r\n", Hang()], UNAVAILABLE, "in time", BEFORE, 10),
    "endless head": (
        [b"HTTP/1.1 200 OK\r\n", Repeat(b"a: " + b"b" * 4000 + b"\r\n", 0)],
        UNAVAILABLE,
        "head of more",
        BEFORE,
        0,
    ),
    "head, then nothing": ([EVENTS_HEAD, Hang()], UNAVAILABLE, "began no answer", BEFORE, 10),
    "500": ([whole(500, b'{"error":{"message":"oh"}}')], UNAVAILABLE, "500: oh", BEFORE, 0),
    "401 that repeats the key": (
        [whole(401, b'{"error":{"message":"bad key ' + KEY.encode() + b'"}}')],
        UNAVAILABLE,
        "401, it does not accept the api_key: bad key ***",
        BEFORE,
        0,
    ),
    "an encoding that repeats the key": (
        [whole(200, b"x", "text/event-stream", f"content-encoding: {KEY}")],
        UNAVAILABLE,
        "content-encoding '***'",
        BEFORE,
        0,
    ),
    "401 that repeats the password of a header": (
        [whole(401, b"no &lt;p4ss&amp;word", "text/html")],
        UNAVAILABLE,
        "api_key: no ***",
        BEFORE,
        0,
    ),
    "401 that repeats a part of a header": (
        [whole(401, b'{"error":{"message":"bad token ' + TOKEN.encode() + b'"}}')],
        UNAVAILABLE,
        "401, it does not accept the api_key: bad token ***",
        BEFORE,
        0,
    ),
    "400": (
        [whole(400, b'{"error":{"message":"context exceeded","code":400}}')],
        ErrorCode.INVALID_REQUEST,
        "400: context exceeded",
        BEFORE,
        0,
    ),
    "endless refusal": (
        [b"HTTP/1.1 503 No\r\n\r\n", Repeat(b"busy " * 100, 0)],
        UNAVAILABLE,
        "503: busy busy",
        BEFORE,
        0,
    ),
    "refusal that does not end": (
        [b"HTTP/1.1 503 No\r\ncontent-length: 99\r\n\r\nbusy", Hang()],
        UNAVAILABLE,
        "503: busy",
        BEFORE,
        5,
    ),
    "cut refusal": (
        [b"HTTP/1.1 503 No\r\ncontent-length: 99\r\n\r\nbusy", Close()],
        UNAVAILABLE,
        "503: busy",
        BEFORE,
        0,
    ),
    "redirect": (
        [whole(302, b"", "text/html", "location: http://elsewhere/")],
        UNAVAILABLE,
        "redirect",
        BEFORE,
        0,
    ),
    "400, compressed": (
        [whole(400, b"\x1f\x8b" * 9, "application/json", "content-encoding: gzip")],
        ErrorCode.INVALID_REQUEST,
        "answered 400",
        BEFORE,
        0,
    ),
    "500, compressed": (
        [whole(500, b"\x1f\x8b" * 9, "application/json", "content-encoding: gzip")],
        UNAVAILABLE,
        "answered 500",
        BEFORE,
        0,
    ),
    "200 with a JSON error of the request": (
        [whole(200, b'{"error":{"message":"too long","code":400}}')],
        ErrorCode.INVALID_REQUEST,
        "too long",
        BEFORE,
        0,
    ),
    "a mistake of the request told in the stream": (
        [EVENTS_HEAD, chunk(event(error={"message": "too long", "code": LONG_CONTEXT})), Hold()],
        ErrorCode.INVALID_REQUEST,
        "too long",
        BEFORE,
        0,
    ),
    "200 with HTML": (
        [whole(200, b"<html>Welcome</html>", "text/html; charset=utf-8")],
        UNAVAILABLE,
        "'text/html' instead",
        BEFORE,
        0,
    ),
    "200 with JSON": (
        [whole(200, b'{"choices":[]}')],
        UNAVAILABLE,
        "'application/json' instead",
        BEFORE,
        0,
    ),
    "200 with a JSON error": (
        [whole(200, b'{"error":{"message":"no credits"}}')],
        UNAVAILABLE,
        "no credits",
        BEFORE,
        0,
    ),
    "HTML without a type": (
        [b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n<html>\n"],
        UNAVAILABLE,
        "in the middle",
        BEFORE,
        0,
    ),
    "gzip": (
        [whole(200, b"\x1f\x8b" * 9, "text/event-stream", "content-encoding: gzip")],
        UNAVAILABLE,
        "'gzip'",
        BEFORE,
        0,
    ),
    "ends without a finish": (
        [EVENTS_HEAD, chunk(text("a")), CHUNKS_END],
        UNAVAILABLE,
        "in the middle",
        AFTER,
        0,
    ),
    "[DONE] without a finish": (
        [EVENTS_HEAD, chunk(text("a")), chunk(DONE), CHUNKS_END],
        UNAVAILABLE,
        "in the middle",
        AFTER,
        0,
    ),
    "closes in the stream": (
        [EVENTS_HEAD, chunk(text("a")), Close()],
        UNAVAILABLE,
        "broke the connection",
        AFTER,
        0,
    ),
    "closes after the finish, without an end": (
        [EVENTS_HEAD, chunk(text("a")), chunk(FINISH), Close()],
        UNAVAILABLE,
        "broke the connection",
        AFTER,
        0,
    ),
    "half a chunk": (
        [EVENTS_HEAD, chunk(text("a")), chunk(text("b"))[:-20], Close()],
        UNAVAILABLE,
        "broke the connection",
        AFTER,
        0,
    ),
    "a chunk that is none": (
        [EVENTS_HEAD, chunk(text("a")), b"zz\r\n", Hold()],
        UNAVAILABLE,
        "broke the connection",
        AFTER,
        0,
    ),
    "an error in the stream": (
        [EVENTS_HEAD, chunk(text("a")), chunk(event(error={"message": "oom"})), Hold()],
        UNAVAILABLE,
        "oom",
        AFTER,
        0,
    ),
    "silence in the stream": (
        [EVENTS_HEAD, chunk(text("a")), Hang()],
        UNAVAILABLE,
        "did not go on",
        AFTER,
        5,
    ),
    "comments for ever, and no event": (
        [EVENTS_HEAD, Repeat(chunk(b": still here\n\n"), 1)],
        UNAVAILABLE,
        "began no answer",
        BEFORE,
        10,
    ),
    "comments for ever after an event": (
        [EVENTS_HEAD, chunk(text("a")), Repeat(chunk(b": still here\n\n"), 1)],
        UNAVAILABLE,
        "did not end its answer",
        AFTER,
        30,
    ),
    "a byte a minute": (
        [EVENTS_HEAD, chunk(text("a")), Repeat(chunk(b"d"), 60)],
        UNAVAILABLE,
        "did not go on",
        AFTER,
        5,
    ),
    "a byte now and then": (
        [EVENTS_HEAD, chunk(text("a")), Repeat(chunk(b"d"), 4)],
        UNAVAILABLE,
        "did not end its answer",
        AFTER,
        30,
    ),
    "a line without an end": (
        [EVENTS_HEAD, chunk(text("a")), Repeat(chunk(b"d" * 50_000), 0)],
        UNAVAILABLE,
        "more than",
        AFTER,
        0,
    ),
    "text for ever": (
        [EVENTS_HEAD, Repeat(chunk(text("a")), 1)],
        UNAVAILABLE,
        "longer than it may, 30 s (timeout_s)",
        AFTER,
        30,
    ),
}


@pytest.mark.parametrize(("script", "code", "words", "events", "seconds"), BAD.values(), ids=BAD)
async def test_misbehaviour_ends_in_one_error_in_time(
    tmp_path: Path,
    autojump_clock: MockClock,
    script: list[Step],
    code: ErrorCode,
    words: str,
    events: int,
    seconds: float,
) -> None:
    async with connected(tmp_path, script) as (client, upstream):
        started = trio.current_time()
        got: list[Batch] = []
        error = await fail(client, got)
        assert trio.current_time() - started <= seconds + 0.01
        assert len(upstream.requests) == 1
    assert error.code == code
    assert words in error.message
    assert KEY not in error.message
    assert TOKEN not in error.message
    assert isinstance(error, CallerFault if code is ErrorCode.INVALID_REQUEST else BackendFault)
    assert (len(got) > 0) == (events == AFTER)
    assert not any(isinstance(event, Finished) for batch in got for event in batch)


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("never answers", True),
        ("head, then nothing", True),
        ("comments for ever, and no event", True),
        ("a byte a minute", True),
        ("text for ever", False),
        ("closes in the stream", False),
    ],
)
async def test_each_who_is_kept_waiting_says_so_for_itself(
    tmp_path: Path, autojump_clock: MockClock, name: str, silent: bool
) -> None:
    """The breaker counts silence by requests; an answer that only goes on is none."""
    async with connected(tmp_path, BAD[name][0]) as (client, _):
        assert isinstance(await fail(client, []), BackendSilence) == silent


# Whether the time that ran out speaks against the upstream.
ENDLESS: dict[str, tuple[Step, bool]] = {
    "text": (Repeat(chunk(text("a")), 1), False),
    "pieces of a call": (
        Repeat(chunk(event(choices=[{"delta": {"tool_calls": [{"index": 0}]}}])), 1),
        False,
    ),
    "comments": (Repeat(chunk(b": still here\n\n"), 1), True),
    "bytes": (Repeat(chunk(b"d"), 4), True),
}


@pytest.mark.parametrize(("step", "counts"), ENDLESS.values(), ids=ENDLESS)
async def test_a_long_answer_is_not_held_against_the_upstream(
    tmp_path: Path, autojump_clock: MockClock, step: Step, counts: bool
) -> None:
    """As long as it goes on. What is no event is no answer that goes on."""
    async with connected(tmp_path, [EVENTS_HEAD, chunk(text("a")), step]) as (client, _):
        error = await fail(client, [])
        assert counts_against_backend(error) == counts
        assert isinstance(error, AnswerTooLong) != counts


async def test_a_slow_reader_is_not_held_against_the_upstream(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    script: Script = [EVENTS_HEAD, Repeat(chunk(text("a")), 0.5)]
    async with connected(tmp_path, script) as (client, _):
        with pytest.raises(AnswerTooLong, match="the client read too slowly") as caught:  # noqa: PT012
            async with aclosing(client.generate(HI, CAN)) as batches:
                async for _ in batches:
                    await trio.sleep(7)
        assert not counts_against_backend(caught.value)


async def test_who_reads_slowly_gets_all_that_comes_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """His pauses are no silence of the upstream."""
    async with (
        connected(tmp_path, [EVENTS_HEAD, chunk(text("a")), Pause(2), END]) as (client, _),
        aclosing(client.generate(HI, CAN)) as batches,
    ):
        assert await anext(batches) == [TextDeltas(["a"])]
        await trio.sleep(20)
        assert await anext(batches) == [Finished("end_turn", Usage(3, 2))]


async def test_a_reset_in_the_stream(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD, chunk(text("a")), Pause(0.01), Reset()]
    async with connected(tmp_path, script, tcp=True) as (client, _):
        got: list[Batch] = []
        error = await fail(client, got)
    assert got == [[TextDeltas(["a"])]]
    assert error.code is UNAVAILABLE


async def test_malformed_lines_are_dropped_and_counted(tmp_path: Path) -> None:
    rubbish = chunk(b"data: {oh\n\n") + chunk(b"<p>no\n") + chunk(b"data: []\n\n")
    script: Script = [EVENTS_HEAD, chunk(text("a")), rubbish, chunk(text("b")), END]
    async with connected(tmp_path, script) as (client, _):
        events = [event for batch in await run(client) for event in batch]
        assert "".join(d for e in events if isinstance(e, TextDeltas) for d in e.deltas) == "ab"
        assert isinstance(events[-1], Finished)
        assert client.dropped == 3


async def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    client = ChatClient(
        PlainTransport(uds=str(tmp_path / "none.sock")), dialect=DIALECTS["generic"]
    )
    error = await fail(client)
    assert error.code is UNAVAILABLE
    assert "cannot connect" in error.message


@pytest.mark.parametrize("script", [[Hold()], [EVENTS_HEAD, Hold()], [*GOOD[:2], Hold()]])
async def test_cancelling_closes_the_upstreams_connection(
    tmp_path: Path, autojump_clock: MockClock, script: Script
) -> None:
    async with connected(tmp_path, script) as (client, upstream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, client)
            await upstream.arrived.wait()
            await wait_all_tasks_blocked()
            cancelled_at = trio.current_time()
            nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            await upstream.gone.wait()
        assert upstream.gone_at - cancelled_at < 0.05


async def test_leaving_closes_the_upstreams_connection(tmp_path: Path) -> None:
    async with connected(tmp_path, [*GOOD[:2], Hold()]) as (client, upstream):
        async with aclosing(client.generate(HI, CAN)) as batches:
            assert await anext(batches) == [TextDeltas(["a"])]
        with trio.fail_after(10):
            await upstream.gone.wait()


async def test_who_does_not_read_stops_the_upstream(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD, Repeat(chunk(text("a" * 1000)), 0)]
    async with (
        connected(tmp_path, script) as (client, upstream),
        aclosing(client.generate(HI, CAN)) as batches,
    ):
        await anext(batches)
        await wait_all_tasks_blocked()
        stopped_at = upstream.sent_bytes
        await wait_all_tasks_blocked(0.05)
        assert upstream.sent_bytes == stopped_at < 2_000_000


async def test_what_cannot_be_asked_is_not_sent(tmp_path: Path) -> None:
    async with connected(tmp_path, GOOD) as (client, upstream):
        with pytest.raises(CallerFault, match="`grammar`"):
            await run(client, GenerateRequest(HI.messages, grammar="root ::= x"))
        assert upstream.requests == []


async def test_media_are_encoded_on_the_way(tmp_path: Path) -> None:
    media = {"i": Media(ImageAttachment("i", 1, 1), b"\xff\x00\x00")}
    request = GenerateRequest([Message("user", [Image("i")])], media=media)
    async with connected(tmp_path, GOOD) as (client, upstream):
        await run(client, request)
        (part,) = json.loads(upstream.requests[0].body)["messages"][0]["content"]
    assert part["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


async def test_no_key_sends_no_header(tmp_path: Path) -> None:
    async with serve(tmp_path, GOOD) as upstream:
        client = ChatClient(
            PlainTransport(uds=upstream.uds), dialect=DIALECTS["generic"], api_key=""
        )
        await run(client)
        assert "authorization" not in upstream.requests[0].headers
        await client.aclose()


async def test_a_machine_without_threads_is_not_the_upstreams_fault(
    tmp_path: Path, refuse_threads: Callable[[], None]
) -> None:
    """Media are encoded, vectors decoded, and names looked up in threads."""
    seen = {"i": Media(ImageAttachment("i", 1, 1), b"abc")}
    request = GenerateRequest([Message("user", [Image("i")])], media=seen)
    named = ChatClient(PlainTransport(), base_url="http://localhost", dialect=DIALECTS["generic"])
    async with connected(tmp_path, answer(200, VECTORS)) as (client, upstream):
        refuse_threads()
        for ask in (
            lambda: run(client, request),
            lambda: client.embed(EmbedRequest(["a", "b"])),
            lambda: run(named),
            lambda: named.get("/v1/models", timeout_s=60),
        ):
            with pytest.raises(
                MachineFault, match="at its limits: cannot start a thread"
            ) as caught:
                await ask()
            assert caught.value.code is UNAVAILABLE
        assert [asked.path for asked in upstream.requests] == ["/v1/embeddings"]
    await named.aclose()


# -- embeddings and rerank -----------------------------------------------------------------

VECTORS = {
    "data": [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": [1.0, 2.0]}],
    "model": "e",
    "usage": {"prompt_tokens": 5},
}
SCORES = {
    "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": -0.5}],
    "model": "r",
    "usage": {"total_tokens": 7},
}


def answer(status: int, body: object) -> Script:
    return [whole(status, json.dumps(body).encode())]


async def test_embed(tmp_path: Path) -> None:
    async with connected(tmp_path, answer(200, VECTORS)) as (client, upstream):
        result = await client.embed(EmbedRequest(["a", "b"], dimensions=2))
        (seen,) = upstream.requests
    assert seen.path == "/v1/embeddings"
    assert json.loads(seen.body) == {"input": ["a", "b"], "encoding_format": "float", "model": "m"}
    assert result.embeddings == [[1.0, 2.0], [3.0, 4.0]]
    assert (result.model, result.input_tokens) == ("e", 5)


async def test_rerank(tmp_path: Path) -> None:
    async with connected(tmp_path, answer(200, SCORES)) as (client, upstream):
        result = await client.rerank(RerankRequest("q", ["a", "b"]))
        (seen,) = upstream.requests
    assert seen.path == "/v1/rerank"
    assert json.loads(seen.body) == {
        "query": "q",
        "documents": ["a", "b"],
        "top_n": 2,
        "model": "m",
    }
    assert result.scores == [-0.5, 0.9]
    assert (result.model, result.input_tokens) == ("r", 7)


@pytest.mark.parametrize(
    ("script", "embed_code", "rerank_code"),
    [
        (answer(404, {}), ErrorCode.EMBED_UNSUPPORTED, ErrorCode.RERANK_UNSUPPORTED),
        (answer(501, {}), ErrorCode.EMBED_UNSUPPORTED, ErrorCode.RERANK_UNSUPPORTED),
        (
            answer(404, {"error": {"message": "oh", "code": "model_not_found"}}),
            UNAVAILABLE,
            UNAVAILABLE,
        ),
        (answer(400, {"error": "too long"}), ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST),
        (
            answer(200, {"error": {"message": "too long", "code": 400}}),
            ErrorCode.INVALID_REQUEST,
            ErrorCode.INVALID_REQUEST,
        ),
        (
            answer(200, {"error": "Unexpected endpoint or method. (POST /v1/x)"}),
            ErrorCode.EMBED_UNSUPPORTED,
            ErrorCode.RERANK_UNSUPPORTED,
        ),
        (answer(200, {"error": "oh", "data": [], "results": []}), UNAVAILABLE, UNAVAILABLE),
        (answer(500, {"error": "oh"}), UNAVAILABLE, UNAVAILABLE),
        (answer(200, {"data": [], "results": []}), UNAVAILABLE, UNAVAILABLE),
        (answer(200, {"odd": 1}), UNAVAILABLE, UNAVAILABLE),
        ([whole(200, b'{"data":[')], UNAVAILABLE, UNAVAILABLE),
        ([whole(200, b"x" * 99)[:-9], Close()], UNAVAILABLE, UNAVAILABLE),
        ([whole(200, b"x" * 99)[:-9], Hang()], UNAVAILABLE, UNAVAILABLE),
        ([b"HTTP/1.1 200 OK\r\n\r\n", Repeat(b" ", 4)], UNAVAILABLE, UNAVAILABLE),
        ([Hang()], UNAVAILABLE, UNAVAILABLE),
    ],
)
async def test_embed_and_rerank_fail_with_one_error(
    tmp_path: Path,
    autojump_clock: MockClock,
    script: Script,
    embed_code: ErrorCode,
    rerank_code: ErrorCode,
) -> None:
    async with connected(tmp_path, script) as (client, _):
        with pytest.raises(RequestError) as caught:
            await client.embed(EmbedRequest(["a", "b"]))
        assert caught.value.code == embed_code
        with pytest.raises(RequestError) as caught:
            await client.rerank(RerankRequest("q", ["a", "b"]))
        assert caught.value.code == rerank_code


async def test_what_went_wrong_is_told_in_the_upstreams_words(tmp_path: Path) -> None:
    told = {"error": {"message": f"no room for {KEY}", "code": 500}}
    async with connected(tmp_path, answer(200, told)) as (client, _):
        with pytest.raises(BackendFault, match=r"^upstream failed: no room for \*\*\*$"):
            await client.embed(EmbedRequest(["a"]))
        with pytest.raises(BackendFault, match=r"^upstream failed: no room for \*\*\*$"):
            await client.rerank(RerankRequest("q", ["a"]))


@pytest.mark.parametrize(
    ("step", "seconds", "words"),
    [(Hang(), 5, "did not go on"), (Repeat(b" ", 4), 30, "did not end its answer")],
)
async def test_a_body_may_not_be_silent_for_long(
    tmp_path: Path, autojump_clock: MockClock, step: Step, seconds: float, words: str
) -> None:
    script: Script = [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", step]
    async with connected(tmp_path, script) as (client, _):
        started = trio.current_time()
        with pytest.raises(BackendFault, match=words) as caught:
            await client.embed(EmbedRequest(["a"]))
        assert isinstance(caught.value, BackendSilence) == (seconds == 5)
        assert trio.current_time() - started == pytest.approx(seconds, abs=2.01)
