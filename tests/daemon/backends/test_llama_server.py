"""The client against a real llama-server over its Unix socket: nothing here is scripted."""

import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from inferd_daemon.backends.base import (
    Batch,
    EmbedRequest,
    Finished,
    GenerateEvent,
    GenerateRequest,
    Media,
    RerankRequest,
    Sampling,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.backends.openai_compat import OpenAICompatBackend
from inferd_daemon.config import OpenAICompatConfig
from inferd_daemon.errors import CallerFault, RequestError
from inferd_daemon.models.demo import demo_model_path
from inferd_proto import (
    Audio,
    AudioAttachment,
    Block,
    ErrorCode,
    Image,
    ImageAttachment,
    Message,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from tests.support import models
from tests.support.llama_server import llama_server_path

HI = [Message("user", [Text("hi")])]
WEATHER = Tool(
    "get_weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
PATIENCE_S = 60.0
"""With a server that only a stalled machine keeps waiting."""


@contextmanager
def serving(directory: Path, model: Path, *arguments: str) -> Generator[str, None, None]:
    """The socket of a llama-server that is ready."""
    # A path of a test's own directory may be too long for a socket.
    uds = str(Path(os.path.relpath(directory)) / "llama.sock")
    command = [str(llama_server_path()), "--model", str(model), "--host", uds, "--threads", "1"]
    environ = {"PATH": os.environ.get("PATH", ""), "GGML_NO_BACKTRACE": "1"}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, *arguments], stderr=log, stdout=log, env=environ)
    try:
        wait_healthy(uds, process, directory / "log")
        yield uds
    finally:
        process.kill()
        process.wait(15)


def wait_healthy(uds: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PATIENCE_S)
            if probe.connect_ex(uds) == 0:
                probe.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                if b" 200 " in probe.recv(100):
                    return
        time.sleep(0.02)
    pytest.fail(f"llama-server is not ready: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    directory = tmp_path_factory.mktemp("demo")
    with serving(directory, demo_model_path(), "-c", "4096", "-np", "2", "--jinja") as uds:
        yield uds


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """A server that never stops answering by itself, with one slot."""
    directory = tmp_path_factory.mktemp("endless")
    models.build_generate_model(directory / "model.gguf")
    arguments = ["-c", "32768", "-np", "1", "--jinja", "--slots"]
    with serving(directory, directory / "model.gguf", *arguments) as uds:
        yield uds


@asynccontextmanager
async def backend_of(uds: str) -> AsyncGenerator[OpenAICompatBackend, None]:
    backend = OpenAICompatBackend(
        "b", OpenAICompatConfig(uds=uds, upstream="llama_server", rerank=True)
    )
    with trio.fail_after(PATIENCE_S):
        while not (await backend.probe()).ready:
            pass
    yield backend
    await backend.close()


async def run(uds: str, request: GenerateRequest) -> list[GenerateEvent]:
    async with backend_of(uds) as backend, aclosing(backend.generate(request)) as batches:
        return [event async for batch in batches for event in batch]


def text_of(events: list[GenerateEvent]) -> str:
    return "".join(d for e in events if isinstance(e, TextDeltas) for d in e.deltas)


def finish_of(events: list[GenerateEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def busy_slots(uds: str) -> int:
    transport = httpx.AsyncHTTPTransport(uds=uds)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
        slots = (await client.get("http://localhost/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


async def test_text_with_the_engines_own_numbers(demo: str) -> None:
    events = await run(demo, GenerateRequest(HI, Sampling(max_tokens=6)))
    assert text_of(events).startswith("Hello! I am inferd's")
    end = finish_of(events)
    assert (end.stop_reason, end.usage.output_tokens) == ("max_tokens", 6)
    assert end.usage.input_tokens > 10


async def test_it_gets_as_many_requests_as_it_has_slots(demo: str, endless: str) -> None:
    """What is more would wait in the server, by no rule of fairness."""
    for uds, slots in ((demo, 2), (endless, 1)):
        async with backend_of(uds) as backend:
            assert backend.slots == slots


async def test_the_end_of_turn_and_a_stop_word(demo: str) -> None:
    assert finish_of(await run(demo, GenerateRequest(HI))).stop_reason == "end_turn"
    events = await run(demo, GenerateRequest(HI, Sampling(stop=["demo"])))
    assert finish_of(events).stop_reason == "stop_sequence"
    assert "demo" not in text_of(events)


@pytest.mark.parametrize("choice", ["required", "auto"])
async def test_a_tool_is_called(demo: str, choice: ToolChoice) -> None:
    events = await run(demo, GenerateRequest(HI, tools=[WEATHER], tool_choice=choice))
    (call,) = [event for event in events if isinstance(event, ToolCall)]
    assert call.name == "get_weather"
    assert isinstance(call.input["city"], str)
    assert call.id
    assert finish_of(events).stop_reason == "tool_use"


async def test_no_tool_is_called_where_none_is_allowed(demo: str) -> None:
    events = await run(demo, GenerateRequest(HI, tools=[WEATHER], tool_choice="none"))
    assert not any(isinstance(event, ToolCall) for event in events)


async def test_a_required_call_that_the_budget_cuts(demo: str) -> None:
    request = GenerateRequest(HI, Sampling(max_tokens=8), [WEATHER], "required")
    end = finish_of(await run(demo, request))
    assert (end.stop_reason, end.tool_choice_unsatisfied) == ("max_tokens", True)


async def test_a_tools_result_is_understood(demo: str) -> None:
    history = [
        *HI,
        Message("assistant", [ToolUse("c1", "get_weather", {"city": "Ulm"})]),
        Message("user", [ToolResult("c1", [Text("rain")])]),
    ]
    events = await run(demo, GenerateRequest(history, tools=[WEATHER]))
    assert text_of(events).startswith("The tool has answered.")


async def test_a_json_schema_is_kept(demo: str) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    answer = json.loads(text_of(await run(demo, GenerateRequest(HI, response_schema=schema))))
    assert isinstance(answer["a"], bool)
    assert answer["b"] in ("x", "y")


async def test_a_grammar_is_kept(demo: str) -> None:
    events = await run(demo, GenerateRequest(HI, grammar='root ::= "yes" | "no"'))
    assert text_of(events) in ("yes", "no")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (GenerateRequest(HI, grammar="root := ("), "grammar"),
        (GenerateRequest(HI, response_schema={"type": "bogus"}), "bogus"),
        (GenerateRequest([Message("user", [Text("word " * 20_000)])]), "context"),
    ],
)
async def test_the_callers_mistakes_are_the_callers(
    demo: str, request_: GenerateRequest, words: str
) -> None:
    with pytest.raises(CallerFault) as caught:
        await run(demo, request_)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    too_long = words == "context"
    begins = "the prompt is too long for the model" if too_long else "upstream answered 400"
    assert caught.value.message.startswith(begins)
    assert caught.value.details == ({"reason": "context_length_exceeded"} if too_long else None)
    assert words in caught.value.message


async def test_embeddings_and_rerank_where_the_server_has_none(demo: str) -> None:
    async with backend_of(demo) as backend:
        with pytest.raises(RequestError) as caught:
            await backend.embed(EmbedRequest(["a"]))
        assert caught.value.code is ErrorCode.EMBED_UNSUPPORTED
        with pytest.raises(RequestError) as caught:
            await backend.rerank(RerankRequest("q", ["a"]))
        assert caught.value.code is ErrorCode.RERANK_UNSUPPORTED


async def test_a_probe_learns_the_context(demo: str) -> None:
    async with backend_of(demo) as backend:
        assert backend.readiness().ready
        assert backend.capabilities.n_ctx == 2048
        assert not backend.capabilities.vision


async def test_more_requests_than_a_connection_carries(demo: str) -> None:
    async with backend_of(demo) as backend:
        for _ in range(120):
            async with aclosing(
                backend.generate(GenerateRequest(HI, Sampling(max_tokens=1)))
            ) as batches:
                assert [batch async for batch in batches]


async def test_a_pause_longer_than_the_server_keeps_a_connection(demo: str) -> None:
    async with backend_of(demo) as backend:
        for pause_s in (5.2, 0):
            async with aclosing(
                backend.generate(GenerateRequest(HI, Sampling(max_tokens=1)))
            ) as batches:
                assert [batch async for batch in batches]
            await trio.sleep(pause_s)


@pytest.mark.parametrize("how", ["leave", "cancel"])
async def test_stopping_early_frees_the_slot(endless: str, how: str) -> None:
    async with backend_of(endless) as backend:
        with trio.CancelScope() as scope:
            async with aclosing(backend.generate(GenerateRequest(HI))) as batches:
                async for _ in batches:
                    assert await busy_slots(endless) == 1
                    if how == "leave":
                        break
                    scope.cancel()
        with trio.fail_after(10):  # by itself it would go on for longer
            while await busy_slots(endless):
                pass


async def test_who_does_not_read_loses_nothing(endless: str) -> None:
    request = GenerateRequest(HI, Sampling(max_tokens=3000, seed=1, temperature=0.0))
    batches: list[Batch] = []
    async with backend_of(endless) as backend, aclosing(backend.generate(request)) as stream:
        async for batch in stream:
            if len(batches) == 1:
                await trio.sleep(1)
            batches.append(batch)
    events = [event for batch in batches for event in batch]
    assert finish_of(events).usage.output_tokens == 3000
    # A token that ends in half a character is told with the next one.
    assert 2500 < sum(len(e.deltas) for e in events if isinstance(e, TextDeltas)) <= 3000


def test_thinking_comes_apart_and_can_be_switched_off(tmp_path: Path) -> None:
    models.build_thinking_model(tmp_path / "model.gguf")
    with serving(tmp_path, tmp_path / "model.gguf", "-c", "2048", "-np", "1", "--jinja") as uds:
        for thinking in (True, False):
            events = trio.run(run, uds, GenerateRequest(HI, thinking=thinking))
            thoughts = [d for e in events if isinstance(e, ThinkingDeltas) for d in e.deltas]
            assert "".join(thoughts).strip() == (models.THOUGHT if thinking else "")
            assert text_of(events) == models.ANSWER


def test_images_and_audio_are_taken(tmp_path: Path) -> None:
    model, mmproj = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    models.build_multimodal_model(model, mmproj)
    blocks: list[Block] = [Text("what is this?"), Image("i"), Audio("a")]
    media = {
        "i": Media(ImageAttachment("i", 32, 32), bytes(32 * 32 * 3)),
        "a": Media(AudioAttachment("a", 16_000), bytes(4 * 16_000)),
    }
    seen = GenerateRequest([Message("user", blocks)], Sampling(max_tokens=4), media=media)
    with serving(
        tmp_path, model, "--mmproj", str(mmproj), "-c", "4096", "-np", "1", "--jinja"
    ) as uds:
        plain = finish_of(trio.run(run, uds, GenerateRequest(HI, Sampling(max_tokens=4))))
        end = finish_of(trio.run(run, uds, seen))
    added = end.usage.input_tokens - plain.usage.input_tokens
    assert added >= models.IMAGE_TOKENS + models.AUDIO_TOKENS


def test_embeddings(tmp_path: Path) -> None:
    models.build_embedding_model(tmp_path / "model.gguf")

    async def embed(uds: str) -> None:
        async with backend_of(uds) as backend:
            result = await backend.embed(EmbedRequest(["one", "two", "one"]))
            assert [len(vector) for vector in result.embeddings] == [models.EMBEDDING_SIZE] * 3
            assert result.embeddings[0] == pytest.approx(result.embeddings[2], abs=1e-5)
            assert result.embeddings[0] != pytest.approx(result.embeddings[1], abs=1e-3)
            assert result.input_tokens > 0

    with serving(tmp_path, tmp_path / "model.gguf", "--embeddings") as uds:
        trio.run(embed, uds)


def test_rerank(tmp_path: Path) -> None:
    models.build_rerank_model(tmp_path / "model.gguf")

    async def rerank(uds: str) -> None:
        async with backend_of(uds) as backend:
            result = await backend.rerank(RerankRequest("q", ["one", "two", "three"]))
            assert len(set(result.scores)) == 3
            swapped = await backend.rerank(RerankRequest("q", ["three", "two", "one"]))
            assert swapped.scores == pytest.approx(result.scores[::-1], abs=1e-5)

    with serving(tmp_path, tmp_path / "model.gguf", "--reranking") as uds:
        trio.run(rerank, uds)
