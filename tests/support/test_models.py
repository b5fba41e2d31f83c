"""Each tiny model loads in llama.cpp and does what its builder says."""

import base64
import io
import itertools
import math
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from inferd_daemon.models.demo import demo_model_path
from tests.support import models

ASKED = [{"role": "user", "content": "Well?"}]


def serve(path: Path, **options: object) -> xllamacpp.Server:
    """Start a server on `path` in this process; `options` are attributes of its parameters.

    Raises RuntimeError when the model does not load.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [str(path.with_suffix(".sock"))]
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    mmproj = options.pop("mmproj", None)
    if mmproj is not None:
        params.mmproj.path = str(mmproj)
    for name, value in options.items():
        setattr(params, name, value)
    return xllamacpp.Server(params)


def png(width: int, height: int) -> str:
    """Return a one-coloured PNG as a data URL."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\x40\x00" * width) * height)
    image = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def tone(seconds: float) -> str:
    """Return a sine of 16 kHz mono WAV, in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        samples = (int(8000 * math.sin(at / 10)) for at in range(int(16_000 * seconds)))
        sound.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "build",
    [
        models.build_embedding_model,
        models.build_rerank_model,
        models.build_generate_model,
        models.build_thinking_model,
        lambda path: models.build_multimodal_model(path.with_suffix(".text"), path),
    ],
)
def test_builds_are_repeatable_and_small(build: Callable[[Path], None], tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    build(first)
    build(second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 5_000_000


def test_embeddings_of_texts_alike_lie_close(tmp_path: Path) -> None:
    path = tmp_path / "embedding.gguf"
    models.build_embedding_model(path)
    texts = ["hello world", "hello, world", "ZZTOP 1234567890"]
    reply = serve(path, embedding=True).handle_embeddings({"input": texts})
    near, nearer, far = (item["embedding"] for item in reply["data"])
    assert len(near) == models.EMBEDDING_SIZE

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(near, near) == pytest.approx(1)
    assert cosine(near, nearer) > 0.95 > cosine(near, far)


def test_rerank_scores_differ_and_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "rerank.gguf"
    models.build_rerank_model(path)
    rank = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    server = serve(path, embedding=True, pooling_type=rank)
    documents = ["a red fox", "a blue whale", "12345"]
    reply = server.handle_rerank({"query": "fox", "documents": documents})
    scores = [item["relevance_score"] for item in reply["results"]]
    assert all(above > below for above, below in itertools.pairwise(scores))
    assert {item["index"] for item in reply["results"]} == {0, 1, 2}


def test_generation_never_ends_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "endless.gguf"
    models.build_generate_model(path, layers=1, feed_forward=64)
    server = serve(path)
    reply = server.handle_chat_completions({"messages": ASKED, "max_tokens": 500})
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 500


def test_thought_and_answer_stream_apart(tmp_path: Path) -> None:
    path = tmp_path / "thinking.gguf"
    models.build_thinking_model(path)
    server = serve(path)
    deltas: list[dict[str, Any]] = []

    def collect(chunk: dict[str, Any]) -> bool:
        deltas.append(chunk["choices"][0]["delta"])
        return False

    server.handle_chat_completions({"messages": ASKED, "stream": True}, collect)
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    answer = "".join(delta.get("content") or "" for delta in deltas)
    assert (thought.strip(), answer) == (models.THOUGHT, models.ANSWER)

    at_once = {"messages": ASKED, "chat_template_kwargs": {"enable_thinking": False}}
    message = server.handle_chat_completions(at_once)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": models.ANSWER}


def test_images_and_audio_become_tokens(tmp_path: Path) -> None:
    path, mmproj = tmp_path / "seeing.gguf", tmp_path / "mmproj.gguf"
    models.build_multimodal_model(path, mmproj)
    server = serve(path, mmproj=mmproj)

    def prompt_tokens(*parts: dict[str, Any]) -> int:
        messages = [{"role": "user", "content": [{"type": "text", "text": "Well?"}, *parts]}]
        reply = server.handle_chat_completions({"messages": messages, "max_tokens": 3})
        assert reply["choices"][0]["message"]["content"] == "Hello! I am"
        return int(reply["usage"]["prompt_tokens"])

    text = prompt_tokens()
    image = prompt_tokens({"type": "image_url", "image_url": {"url": png(100, 40)}})
    audio = {"type": "input_audio", "input_audio": {"data": tone(0.5), "format": "wav"}}
    # Each stands between a few words of its own.
    assert models.IMAGE_TOKENS < image - text < models.IMAGE_TOKENS + 40
    assert models.AUDIO_TOKENS < prompt_tokens(audio) - text < models.AUDIO_TOKENS + 40


@pytest.mark.parametrize("spoil", [models.truncate, models.spoil_magic, models.spoil_version])
def test_a_corrupt_copy_does_not_load(spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    path = tmp_path / "corrupt.gguf"
    spoil(demo_model_path(), path)
    with pytest.raises(RuntimeError):
        serve(path)
