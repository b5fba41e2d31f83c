"""Real tokens of tiny models through a real worker: what a client can ask for, and gets."""

import json
from contextlib import aclosing
from itertools import count
from math import inf
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.base import EmbedRequest, GenerateRequest, Media, RerankRequest
from inferd_daemon.errors import CallerFault, RequestError
from inferd_proto import ErrorCode, Image, ImageAttachment, Message, Text, Tool
from tests.support import models
from tests.support.serving import answer, ask, serving

WEATHER = Tool(
    "weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "Tells the weather",
)


async def test_the_demo_model_recites_and_the_engine_counts(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        whole = await answer(demo.backend, ask())
        assert whole.text.startswith("Hello! I am")
        assert whole.finished.stop_reason == "end_turn"
        assert whole.finished.usage.input_tokens > 10
        assert whole.finished.usage.output_tokens > 20
        cut = await answer(demo.backend, ask(max_tokens=3))
        assert (cut.text, cut.finished.stop_reason) == ("Hello! I am", "max_tokens")
        assert cut.finished.usage.output_tokens == 3
        stopped = await answer(
            demo.backend, GenerateRequest([Message("user", [Text("?")])], ask().sampling)
        )
        assert stopped.finished.stop_reason == "end_turn"


async def test_tools_are_called_as_declared(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        for choice in ("required", "auto"):
            whole = await answer(
                demo.backend, ask(tools=[WEATHER], tool_choice=choice, max_tokens=200)
            )
            (call,) = whole.calls
            assert call.name == "weather"
            assert isinstance(call.input["city"], str)
            assert whole.finished.stop_reason == "tool_use"
        none = await answer(demo.backend, ask(tools=[WEATHER], tool_choice="none", max_tokens=20))
        assert none.calls == []


async def test_a_schema_and_a_grammar_hold(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"],
        "additionalProperties": False,
    }
    async with serving(tmp_path, "demo") as demo:
        by_schema = await answer(demo.backend, ask(response_schema=schema, max_tokens=200))
        value = json.loads(by_schema.text)
        assert value["n"] in (1, 2)
        assert isinstance(value["ok"], bool)
        by_grammar = await answer(demo.backend, ask(grammar='root ::= "yes" | "no"'))
        assert by_grammar.text in ("yes", "no")
        with pytest.raises(CallerFault):
            await answer(demo.backend, ask(grammar="root ::= ("))


async def test_thinking_comes_apart_and_can_be_left_out(tmp_path: Path) -> None:
    model = tmp_path / "thinking.gguf"
    models.build_thinking_model(model)
    async with serving(tmp_path, model) as thinker:
        assert thinker.backend.capabilities.thinking
        both = await answer(thinker.backend, ask(thinking=True))
        assert (both.thinking.strip(), both.text) == (models.THOUGHT, models.ANSWER)
        plain = await answer(thinker.backend, ask(thinking=False))
        assert (plain.thinking, plain.text) == ("", models.ANSWER)


async def test_embeddings_come_from_an_embedding_model_alone(tmp_path: Path) -> None:
    model = tmp_path / "embedding.gguf"
    models.build_embedding_model(model)
    async with serving(tmp_path, model, embeddings=True) as embedder:
        result = await embedder.backend.embed(EmbedRequest(["one text", "another"]))
        assert [len(vector) for vector in result.embeddings] == [models.EMBEDDING_SIZE] * 2
        assert result.model == "embedding"
        assert result.input_tokens > 2
        with pytest.raises(RequestError) as refused:
            await embedder.backend.rerank(RerankRequest("q", ["d"]))
        assert refused.value.code is ErrorCode.RERANK_UNSUPPORTED
        with pytest.raises(RequestError):
            await answer(embedder.backend, ask())


async def test_a_text_too_long_to_embed_is_its_callers_fault(tmp_path: Path) -> None:
    model = tmp_path / "embedding.gguf"
    models.build_embedding_model(model)
    async with serving(tmp_path, model, embeddings=True) as embedder:
        # Beyond the model's context, and beyond what the engine takes in one batch.
        for words in (200, 4000):
            with pytest.raises(CallerFault, match=r"input \(\d+ tokens\) is"):
                await embedder.backend.embed(EmbedRequest(["hello " * words]))


async def test_documents_are_ranked_by_a_reranker(tmp_path: Path) -> None:
    model = tmp_path / "rerank.gguf"
    models.build_rerank_model(model)
    async with serving(tmp_path, model, reranking=True) as ranker:
        documents = ["a red fox", "a blue whale", "12345"]
        result = await ranker.backend.rerank(RerankRequest("fox", documents))
        assert len(set(result.scores)) == 3
        with pytest.raises(RequestError) as refused:
            await ranker.backend.embed(EmbedRequest(["x"]))
        assert refused.value.code is ErrorCode.EMBED_UNSUPPORTED


def picture() -> GenerateRequest:
    attachment = ImageAttachment("i", 8, 8)
    return GenerateRequest(
        [Message("user", [Text("Well?"), Image("i")])],
        ask(max_tokens=3).sampling,
        media={"i": Media(attachment, bytes(8 * 8 * 3))},
    )


async def test_an_image_goes_to_a_model_with_a_projector(tmp_path: Path) -> None:
    model, mmproj = tmp_path / "seeing.gguf", tmp_path / "mmproj.gguf"
    models.build_multimodal_model(model, mmproj)
    async with serving(tmp_path, model, mmproj=str(mmproj)) as seeing:
        assert seeing.backend.capabilities.vision
        assert seeing.backend.capabilities.audio
        seen = await answer(seeing.backend, picture())
        blind = await answer(seeing.backend, ask(max_tokens=3))
        assert seen.text == "Hello! I am"
        more = seen.finished.usage.input_tokens - blind.finished.usage.input_tokens
        assert more >= models.IMAGE_TOKENS


async def test_an_image_is_refused_without_a_projector(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        with pytest.raises(RequestError) as refused:
            await answer(demo.backend, picture())
        assert refused.value.code is ErrorCode.ATTACHMENT_UNSUPPORTED


async def test_a_prompt_beyond_the_context_is_the_callers_fault(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo", ctx_size=512, parallel=1) as demo:
        with pytest.raises(CallerFault) as refused:
            await answer(demo.backend, ask("word " * 2000))
        assert "context" in refused.value.message


async def test_four_answer_at_once_and_a_fifth_waits(tmp_path: Path) -> None:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    async with serving(tmp_path, model) as endless:
        assert endless.backend.capabilities.n_ctx
        tokens: list[int] = []

        async def run_one() -> None:
            done = await answer(endless.backend, ask(max_tokens=60))
            tokens.append(done.finished.usage.output_tokens)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(run_one)
        assert tokens == [60] * 5


async def test_a_cancel_frees_the_slot_within_50_ms(tmp_path: Path) -> None:
    """A busy machine may delay most of them; what waits for the engine to look delays them all."""
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model)
    async with serving(tmp_path, model) as endless:
        took_s = {True: inf, False: inf}
        give_up = trio.current_time() + 60
        for attempt in count():
            if attempt >= 10 and (max(took_s.values()) < 0.05 or trio.current_time() > give_up):
                break
            by_scope = attempt % 2 == 0
            with trio.CancelScope() as scope:
                async with aclosing(endless.backend.generate(ask())) as batches:
                    async for _ in batches:
                        assert await endless.busy_slots() == 1
                        if not by_scope:
                            break
                        scope.cancel()
            cancelled_at = trio.current_time()
            with trio.fail_after(10):
                while await endless.busy_slots():
                    pass
            took_s[by_scope] = min(took_s[by_scope], trio.current_time() - cancelled_at)
        assert max(took_s.values()) < 0.05
