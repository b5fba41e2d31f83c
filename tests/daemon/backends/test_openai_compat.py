"""The backend as configured: where it sends, what it promises, when it is ready."""

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.base import (
    Batch,
    EmbedRequest,
    Finished,
    GenerateRequest,
    Media,
    Readiness,
    RelayRequest,
    RerankRequest,
    TextDeltas,
)
from inferd_daemon.backends.openai_compat import (
    OpenAICompatBackend,
    normalise_base_url,
    unfit_keys,
)
from inferd_daemon.config import OpenAICompatConfig, UpstreamKind
from inferd_daemon.errors import (
    BackendFault,
    BackendSilence,
    CallerFault,
    KeyRefused,
    OperatorError,
)
from inferd_daemon.routing.requirements import missing
from inferd_proto import Audio, AudioAttachment, ErrorCode, Message, Text
from tests.support.certificate import Certificate
from tests.support.scripted_upstream import EVENTS_HEAD as HEAD
from tests.support.scripted_upstream import (
    Close,
    Hang,
    Hold,
    Pause,
    Script,
    chunk,
    serve,
    whole,
)

HI = GenerateRequest([Message("user", [Text("hi")])])
ON_ITS_WAY_S = 0.02
"""What goes over TCP may be on its way while everyone waits: the clock is to jump later."""
ANSWER: Script = [
    HEAD
    + chunk(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n')
    + chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
]


async def run(backend: OpenAICompatBackend) -> list[Batch]:
    async with aclosing(backend.generate(HI)) as batches:
        return [batch async for batch in batches]


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://localhost:8080/v1", "http://localhost:8080"),
        ("https://api.example.com/v1/", "https://api.example.com"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
        ("HTTP://Example.com:8080/V1", "http://example.com:8080"),
    ],
)
def test_base_url_is_normalised(given: str, normal: str) -> None:
    assert normalise_base_url(given) == normal


@pytest.mark.parametrize("path", ["", "/", "/v1", "/api", "/api/", "/api/v1", "/API/V1/"])
def test_a_prefix_that_the_kind_has_anyway_is_dropped(path: str) -> None:
    assert normalise_base_url(f"https://h{path}", "/api") == "https://h"


@pytest.mark.parametrize("path", ["/apix", "/api/v1/x", "/api/api", "//api"])
def test_no_other_path_is(path: str) -> None:
    with pytest.raises(OperatorError, match=r"`/api/v1/…` is appended"):
        normalise_base_url(f"https://h{path}", "/api")


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8080",
        "ftp://localhost",
        "http://",
        "http://localhost/api/v1",
        "http://localhost/v1?key=1",
        "http://user:pass@localhost",
        "http://local host",
    ],
)
def test_other_base_urls_are_refused(given: str) -> None:
    with pytest.raises(OperatorError, match="base_url") as caught:
        normalise_base_url(given)
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_it_asks_the_right_path(tmp_path: Path, path: str) -> None:
    async with serve(tmp_path, ANSWER, tcp=True) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(base_url=upstream.url + path))
        (batch,) = await run(backend)
        assert batch[0] == TextDeltas(["a"])
        assert isinstance(batch[-1], Finished)
        assert upstream.requests[0].path == "/v1/chat/completions"
        await backend.close()


@pytest.mark.parametrize("path", ["", "/api/v1", "/api/v1/"])
async def test_openrouter_has_its_api_below_a_path(tmp_path: Path, path: str) -> None:
    async with serve(tmp_path, [whole(200, b"{}")], ANSWER, tcp=True) as upstream:
        config = OpenAICompatConfig(base_url=upstream.url + path, upstream="openrouter")
        assert list(unfit_keys(config)) == []
        backend = OpenAICompatBackend("b", config)
        await backend.probe()
        await run(backend)
        assert [seen.path for seen in upstream.requests] == [
            "/api/v1/models",
            "/api/v1/chat/completions",
        ]
        await backend.close()


async def test_key_file_headers_and_socket(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k3y-from-file\n")
    async with serve(tmp_path, ANSWER) as upstream:
        config = OpenAICompatConfig(
            uds=upstream.uds, api_key_file=str(key), headers={"X-Team": "blue"}, model="m"
        )
        backend = OpenAICompatBackend("b", config)
        await run(backend)
        (seen,) = upstream.requests
        assert seen.headers["authorization"] == "Bearer k3y-from-file"
        assert seen.headers["x-team"] == "blue"
        assert json.loads(seen.body)["model"] == "m"
        await backend.close()


@pytest.mark.parametrize(("value", "sent"), [("k3y-of-env", "Bearer k3y-of-env"), ("", None)])
async def test_a_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, sent: str | None
) -> None:
    monkeypatch.setenv("OFFICE_KEY", value)
    async with serve(tmp_path, ANSWER) as upstream:
        config = OpenAICompatConfig(uds=upstream.uds, api_key_env="OFFICE_KEY")
        backend = OpenAICompatBackend("b", config)
        await run(backend)
        assert upstream.requests[0].headers.get("authorization") == sent
        await backend.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (OpenAICompatConfig(base_url="http://x/y"), "base_url"),
        (OpenAICompatConfig(api_key="a", api_key_file="/b"), "excludes"),
        (OpenAICompatConfig(api_key_env="NOT_SET_ANYWHERE"), "no variable NOT_SET_ANYWHERE"),
        (OpenAICompatConfig(api_key_env="$KEY"), "not the name of a variable"),
        (OpenAICompatConfig(api_key_file="/nowhere/key"), "No such file"),
        (OpenAICompatConfig(api_key="line\nbreak"), "one line"),
        (OpenAICompatConfig(headers={"a b": "c"}), "headers"),
        (OpenAICompatConfig(headers={"a": "c\r\nd: e"}), "headers"),
        (OpenAICompatConfig(headers={"Content-Length": "3"}), "headers"),
        (OpenAICompatConfig(tls_ca_file="/ca.pem"), "https"),
        (OpenAICompatConfig(base_url="https://x", tls_ca_file="/nowhere/ca.pem"), "tls_ca_file"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(config: OpenAICompatConfig, words: str) -> None:
    with pytest.raises(OperatorError, match="backend b: ") as caught:
        OpenAICompatBackend("b", config)
    assert words in str(caught.value)
    assert "break" not in str(caught.value)


@pytest.mark.parametrize(
    ("upstream", "tool_choice", "response_format", "grammar", "thinking"),
    [
        ("llama_server", True, True, True, True),
        ("vllm", True, True, False, True),
        ("sglang", True, True, True, True),
        ("lmstudio", False, True, False, False),
        ("localai", False, False, True, False),
        ("ollama", False, True, False, True),
        ("openai", True, True, False, False),
        ("openrouter", True, True, False, True),
        ("generic", False, False, False, False),
    ],
)
def test_what_each_kind_promises(
    upstream: UpstreamKind,
    tool_choice: bool,
    response_format: bool,
    grammar: bool,
    thinking: bool,
) -> None:
    can = OpenAICompatBackend("b", OpenAICompatConfig(upstream=upstream)).capabilities
    assert can.tools
    assert (can.tool_choice, can.response_format) == (tool_choice, response_format)
    assert (can.grammar, can.thinking) == (grammar, thinking)


@pytest.mark.parametrize(
    ("config", "tools", "tool_choice", "response_format", "grammar"),
    [
        (OpenAICompatConfig(tool_choice=True), True, True, False, False),
        (OpenAICompatConfig(response_format=True, grammar=True), True, False, True, True),
        (OpenAICompatConfig(upstream="vllm", tool_choice=False), True, False, True, False),
        (OpenAICompatConfig(upstream="sglang", grammar=False), True, True, True, False),
        (OpenAICompatConfig(upstream="lmstudio", response_format=False), True, False, False, False),
        (OpenAICompatConfig(upstream="openai", tools=False), False, False, True, False),
    ],
)
def test_the_configuration_knows_better_than_the_kind(
    config: OpenAICompatConfig,
    tools: bool,
    tool_choice: bool,
    response_format: bool,
    grammar: bool,
) -> None:
    can = OpenAICompatBackend("b", config).capabilities
    assert (can.tools, can.tool_choice) == (tools, tool_choice)
    assert (can.response_format, can.grammar) == (response_format, grammar)


@pytest.mark.parametrize(("upstream", "field"), [("generic", "grammar"), ("sglang", "ebnf")])
async def test_a_grammar_goes_as_the_server_takes_it(
    tmp_path: Path, upstream: UpstreamKind, field: str
) -> None:
    async with serve(tmp_path, ANSWER) as server:
        config = OpenAICompatConfig(uds=server.uds, upstream=upstream, grammar=True)
        backend = OpenAICompatBackend("b", config)
        request = GenerateRequest(HI.messages, grammar='root ::= "a"')
        async with aclosing(backend.generate(request)) as batches:
            assert [batch async for batch in batches]
        assert json.loads(server.requests[0].body)[field] == 'root ::= "a"'
        await backend.close()


@pytest.mark.parametrize(("rate", "code"), [(24_000, None), (16_000, ErrorCode.INVALID_REQUEST)])
async def test_audio_at_the_rate_it_takes(
    tmp_path: Path, rate: int, code: ErrorCode | None
) -> None:
    spoken = Media(AudioAttachment("a", rate), bytes(4 * 100))
    request = GenerateRequest([Message("user", [Audio("a")])], media={"a": spoken})
    async with serve(tmp_path, ANSWER) as server:
        config = OpenAICompatConfig(uds=server.uds, audio=True, audio_sample_rate=24_000)
        backend = OpenAICompatBackend("b", config)
        lacking = missing(request, backend.capabilities)
        assert (lacking and lacking.code) == code
        if lacking is None:
            async with aclosing(backend.generate(request)) as batches:
                assert [batch async for batch in batches]
        else:
            assert lacking.message == "takes audio at 24000 Hz, not at 16000 Hz"
        assert len(server.requests) == (0 if code else 1)
        await backend.close()


@pytest.mark.parametrize(
    ("script", "ready", "words"),
    [
        ([whole(200, b"{}")], True, ""),
        ([whole(404, b"")], True, ""),
        ([whole(405, b"")], True, ""),
        ([whole(501, b"")], True, ""),
        ([whole(401, b"")], True, "401 when probed: its api_key may be wrong"),
        ([whole(403, b"")], True, "403 when probed"),
        ([whole(500, b"")], False, "500"),
        ([whole(503, b"")], False, "loading"),
        ([Close()], False, "broke the connection"),
    ],
)
async def test_readiness_by_probe(
    tmp_path: Path, autojump_clock: MockClock, script: Script, ready: bool, words: str
) -> None:
    async with serve(tmp_path, script) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds))
        assert backend.readiness().ready
        await backend.probe()
        assert backend.readiness().ready == ready
        assert words in backend.readiness().reason
        assert upstream.requests[0].path == "/v1/models"
        await backend.close()


async def test_it_probes_from_time_to_time_and_a_success_makes_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serve(tmp_path, [whole(503, b"")], ANSWER, [whole(503, b"")]) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            await trio.sleep(1)
            assert not backend.readiness().ready
            await run(backend)
            assert backend.readiness().ready
            await trio.sleep(10)
            assert not backend.readiness().ready
            nursery.cancel_scope.cancel()
        await backend.close()


async def test_an_upstream_that_answers_us_is_not_missed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One that does one thing at a time has no time for probes."""
    text = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    scripts: list[Script] = [
        [HEAD + chunk(text), Pause(8), chunk(text), Hang()],
        [Hang()],
        [Hang()],
        [Hang()],
    ]
    async with serve(tmp_path, *scripts) as upstream:
        backend = OpenAICompatBackend(
            "b", OpenAICompatConfig(uds=upstream.uds, idle_timeout_s=12.0)
        )
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(BackendFault, match="did not go on"):
                    await run(backend)

            nursery.start_soon(read)
            await upstream.arrived.wait()
            assert (await backend.probe()).ready
            await trio.sleep(8)
            assert (await backend.probe()).ready
        assert not (await backend.probe()).ready
        assert "in time" in backend.readiness().reason
        await backend.close()


async def generate(backend: OpenAICompatBackend) -> None:
    await run(backend)


async def embed(backend: OpenAICompatBackend) -> None:
    await backend.embed(EmbedRequest(["a"]))


async def relay(backend: OpenAICompatBackend) -> None:
    async with backend.relay(RelayRequest("/v1/chat/completions", HI, True)) as relayed:
        assert [piece async for piece in relayed.pieces]


async def relay_object(backend: OpenAICompatBackend) -> None:
    async with backend.relay(RelayRequest("/v1/messages", {}, False)) as relayed:
        assert [piece async for piece in relayed.pieces]


Ask = Callable[[OpenAICompatBackend], Awaitable[None]]
ASKED: dict[str, tuple[Ask, Script]] = {
    "generate": (generate, ANSWER),
    "embed": (embed, [whole(200, b'{"data":[{"index":0,"embedding":[1.0]}]}')]),
    "relay": (relay, ANSWER),
    "relay an object": (relay_object, [whole(200, b"{}")]),
}


@pytest.mark.parametrize(("ask", "answer"), ASKED.values(), ids=ASKED)
async def test_an_upstream_that_reads_a_long_prompt_is_not_missed(
    tmp_path: Path, autojump_clock: MockClock, ask: Ask, answer: Script
) -> None:
    """Silence means nothing until the request's own time is over."""
    async with serve(tmp_path, [Pause(100), *answer], [Hang()]) as upstream:
        backend = OpenAICompatBackend(
            "b", OpenAICompatConfig(uds=upstream.uds, idle_timeout_s=12.0)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, backend)
            await upstream.arrived.wait()
            for _ in range(9):
                assert (await backend.probe()).ready
                await trio.sleep(5)
        await trio.sleep(12)
        assert not (await backend.probe()).ready
        await backend.close()


@pytest.mark.parametrize("ask", [generate, relay])
async def test_waiting_proves_nothing_where_another_has_waited_in_vain(
    tmp_path: Path, autojump_clock: MockClock, ask: Ask
) -> None:
    async with serve(tmp_path, [Hang()]) as upstream:
        backend = OpenAICompatBackend(
            "b", OpenAICompatConfig(uds=upstream.uds, first_byte_timeout_s=20.0)
        )

        async def wait() -> None:
            with pytest.raises(BackendSilence):
                await ask(backend)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(10)
            nursery.start_soon(wait)
            assert (await backend.probe()).ready
            await trio.sleep(6)
            assert not (await backend.probe()).ready
            assert not (await backend.probe()).ready
        assert not (await backend.probe()).ready
        await backend.close()


async def test_who_reads_slowly_does_not_make_it_busy(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What the upstream does then, nobody knows."""
    text = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    async with serve(tmp_path, [HEAD + chunk(text), Hang()], [Hang()]) as upstream:
        backend = OpenAICompatBackend(
            "b", OpenAICompatConfig(uds=upstream.uds, idle_timeout_s=12.0)
        )
        async with aclosing(backend.generate(HI)) as batches:
            await anext(batches)
            await trio.sleep(12)
            assert not (await backend.probe()).ready
        await backend.close()


async def test_a_key_that_may_not_list_models_is_good_for_requests(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    refused: Script = [whole(403, b"")]
    async with serve(tmp_path, refused, ANSWER, refused, [whole(401, b"")], refused) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds, api_key="k3y!"))
        assert "may be wrong" in (await backend.probe()).reason
        await run(backend)
        assert backend.readiness() == Readiness(True)
        await backend.probe()
        assert backend.readiness() == Readiness(True)
        with pytest.raises(BackendFault):
            await run(backend)
        assert backend.readiness() == Readiness(True)  # from now on it is for the breaker
        await backend.close()


@pytest.mark.parametrize("probed_first", [True, False])
async def test_a_key_that_is_no_good_at_all(
    tmp_path: Path, autojump_clock: MockClock, probed_first: bool
) -> None:
    """A request more every minute, unless a probe finds it mended."""
    refused: Script = [whole(401, b'{"error":{"message":"bad key k3y!"}}')]
    wrong = "upstream answered 401: it does not accept the api_key"
    async with serve(tmp_path, *[refused] * 5, [whole(200, b"{}")]) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds, api_key="k3y!"))
        if probed_first:
            await backend.probe()
        assert backend.readiness().ready
        with pytest.raises(
            KeyRefused, match=r"401, it does not accept the api_key: bad key \*\*\*"
        ):
            await run(backend)
        assert backend.readiness().ready == (not probed_first)
        await backend.probe()
        assert backend.readiness() == Readiness(False, wrong)
        await trio.sleep(59)
        assert not backend.readiness().ready
        await trio.sleep(1)
        assert backend.readiness().ready
        with pytest.raises(KeyRefused):
            await run(backend)
        assert backend.readiness() == Readiness(False, wrong)
        while len(upstream.requests) < 6:
            await backend.probe()
        assert backend.readiness() == Readiness(True)
        await backend.close()


@pytest.mark.parametrize(
    ("base_url", "probes"),
    [
        ("http://127.0.0.1:{port}", 13),
        ("http://0.0.0.0:{port}", 3),  # is this machine, too, but by no name that is loopback's
    ],
)
async def test_what_is_far_away_is_probed_seldom(
    tmp_path: Path, mock_clock: MockClock, base_url: str, probes: int
) -> None:
    long = [whole(200, b"x" * 1000)]
    async with serve(tmp_path, long, tcp=True) as upstream:
        address = base_url.format(port=upstream.port)
        backend = OpenAICompatBackend("b", OpenAICompatConfig(base_url=address))
        mock_clock.autojump_threshold = ON_ITS_WAY_S
        with trio.move_on_after(125):
            await backend.run()
        assert len(upstream.requests) == probes
        await backend.close()


async def test_what_is_far_away_is_not_probed_while_it_serves(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """And often while it does not."""
    scripts: list[Script] = [[whole(503, b"")]] * 3 + [ANSWER] * 3 + [[whole(200, b"")]]
    async with serve(tmp_path, *scripts, tcp=True) as upstream:
        address = f"http://0.0.0.0:{upstream.port}"
        backend = OpenAICompatBackend("b", OpenAICompatConfig(base_url=address))
        mock_clock.autojump_threshold = ON_ITS_WAY_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            await trio.sleep(25)
            assert len(upstream.requests) == 3
            for _ in range(3):
                await run(backend)
                await trio.sleep(40)
            assert [seen.method for seen in upstream.requests] == ["GET"] * 3 + ["POST"] * 3
            assert backend.readiness().ready
            nursery.cancel_scope.cancel()
        await backend.close()


async def test_a_failed_request_leaves_readiness_to_the_breaker(tmp_path: Path) -> None:
    async with serve(tmp_path, [whole(500, b"")]) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds))
        with pytest.raises(BackendFault):
            await run(backend)
        assert backend.readiness().ready
        await backend.close()


async def test_llama_server_tells_what_its_model_takes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    props = {
        "default_generation_settings": {"n_ctx": 2048},
        "total_slots": 2,
        "modalities": {"vision": True, "audio": False},
    }
    scripts: list[Script] = [[whole(200, b"{}")], [whole(200, json.dumps(props).encode())]]
    async with serve(tmp_path, *scripts) as upstream:
        config = OpenAICompatConfig(uds=upstream.uds, upstream="llama_server")
        backend = OpenAICompatBackend("b", config)
        assert not backend.capabilities.vision
        assert backend.slots == 4
        await backend.probe()
        assert backend.slots == 2
        assert [seen.path for seen in upstream.requests] == ["/health", "/props"]
        can = backend.capabilities
        assert (can.vision, can.audio, can.n_ctx) == (True, False, 2048)
        await backend.close()


@pytest.mark.parametrize(
    ("config", "slots"),
    [
        (OpenAICompatConfig(), 32),
        (OpenAICompatConfig(slots=3), 3),
        (OpenAICompatConfig(upstream="llama_server"), 4),
        (OpenAICompatConfig(upstream="llama_server", slots=3), 3),
    ],
)
def test_slots_are_the_configured_ones_else_what_the_kind_has(
    config: OpenAICompatConfig, slots: int
) -> None:
    assert OpenAICompatBackend("b", config).slots == slots


async def test_configured_slots_win_over_told_ones(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    scripts: list[Script] = [[whole(200, b"{}")], [whole(200, b'{"total_slots":2}')]]
    async with serve(tmp_path, *scripts) as upstream:
        config = OpenAICompatConfig(uds=upstream.uds, upstream="llama_server", slots=7)
        backend = OpenAICompatBackend("b", config)
        await backend.probe()
        assert backend.slots == 7
        await backend.close()


async def test_embed_and_rerank_pass(tmp_path: Path) -> None:
    scripts: list[Script] = [
        [whole(200, b'{"data":[{"index":0,"embedding":[1.0]}]}')],
        [whole(200, b'{"results":[{"index":0,"relevance_score":0.5}]}')],
    ]
    async with serve(tmp_path, *scripts) as upstream:
        backend = OpenAICompatBackend("b", OpenAICompatConfig(uds=upstream.uds, rerank=True))
        assert (await backend.embed(EmbedRequest(["a"]))).embeddings == [[1.0]]
        assert (await backend.rerank(RerankRequest("q", ["a"]))).scores == [0.5]
        await backend.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_only_to_whom_it_trusts(
    tmp_path: Path, certificate: Certificate, trusted: bool
) -> None:
    async with serve(tmp_path, ANSWER, tcp=True, tls=certificate.server()) as upstream:
        config = OpenAICompatConfig(
            base_url=upstream.url,
            tls_ca_file=str(certificate.made) if trusted else None,
            connect_timeout_s=60.0,
        )
        backend = OpenAICompatBackend("b", config)
        if trusted:
            for _ in range(2):
                assert (await run(backend))[0][0] == TextDeltas(["a"])
        else:
            with pytest.raises(
                BackendFault, match="refused: self-signed certificate; give tls_ca_file"
            ):
                await run(backend)
            assert "tls_ca_file" in (await backend.probe()).reason
        assert len(upstream.requests) == (2 if trusted else 0)
        await backend.close()


async def test_leaving_closes_a_tls_connection_too(
    tmp_path: Path, certificate: Certificate
) -> None:
    script: Script = [HEAD + chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'), Hold()]
    async with serve(tmp_path, script, tcp=True, tls=certificate.server()) as upstream:
        config = OpenAICompatConfig(
            base_url=upstream.url, tls_ca_file=str(certificate.made), connect_timeout_s=60.0
        )
        backend = OpenAICompatBackend("b", config)
        async with aclosing(backend.generate(HI)) as batches:
            assert await anext(batches) == [TextDeltas(["a"])]
        with trio.fail_after(10):
            await upstream.gone.wait()
        await backend.close()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_prompt_that_is_refused_unread_is_its_senders_fault(
    tmp_path: Path, certificate: Certificate, secure: bool
) -> None:
    tls = certificate.server() if secure else None
    words = b'{"error":{"message":"too long for me"}}'
    prompt = GenerateRequest([Message("user", [Text("x" * 8_000_000)])])
    async with serve(
        tmp_path, [whole(413, words), Hang()], tcp=True, tls=tls, early=True
    ) as upstream:
        ca = str(certificate.made) if secure else None
        config = OpenAICompatConfig(base_url=upstream.url, tls_ca_file=ca, connect_timeout_s=60.0)
        backend = OpenAICompatBackend("b", config)
        with trio.fail_after(60), pytest.raises(CallerFault, match="413: too long for me"):
            async with aclosing(backend.generate(prompt)) as batches:
                await anext(batches)
        await backend.close()


@pytest.mark.usefixtures("long_kept")
async def test_over_tls_a_connection_that_died_is_no_failure_and_none_gets_anothers_answer(
    tmp_path: Path, certificate: Certificate
) -> None:
    def answer(text: str) -> bytes:
        delta = (
            f'data: {{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":"stop"}}]}}\n\n'
        )
        return HEAD + chunk(delta.encode()) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    first = [answer("alice") + answer("more of alice")]
    scripts: list[Script] = [first, [answer("bob")], [Close()], [answer("carol")]]
    async with serve(tmp_path, *scripts, tcp=True, tls=certificate.server()) as upstream:
        config = OpenAICompatConfig(
            base_url=upstream.url, tls_ca_file=str(certificate.made), connect_timeout_s=60.0
        )
        backend = OpenAICompatBackend("b", config)
        for text in ("alice", "bob", "carol"):
            assert (await run(backend))[0][0] == TextDeltas([text])
        assert [seen.connection for seen in upstream.requests] == [0, 1, 1, 2]
        await backend.close()


@pytest.mark.parametrize("base_url", ["http://xn--zzzz", "https://xn--a.b"])
async def test_a_name_that_means_nothing_is_an_upstream_that_is_not_there(base_url: str) -> None:
    backend = OpenAICompatBackend("b", OpenAICompatConfig(base_url=base_url, model="m"))
    readiness = await backend.probe()
    assert not readiness.ready
    assert "cannot connect to upstream" in readiness.reason
    await backend.close()
