"""Models of every kind over HTTP, by OpenAI's own client: what they see, hear, think and rank."""

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import soundfile
from openai import OpenAI
from PIL import Image

from tests.support import models
from tests.support.daemon import wait_until
from tests.support.http_client import addresses, http_daemon

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionContentPartParam

_BACKEND = """
[backends.{name}]
kind = "libllama"
model = "{model}"
threads = 1
{more}
[routes.{name}]
backends = ["{name}"]
"""


@pytest.fixture(scope="module")
def root_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with a worker for each of the models: senses, thoughts, ranks, vectors."""
    directory = tmp_path_factory.mktemp("models")
    built = dict(_build(directory))
    config = "".join(
        _BACKEND.format(name=name, model=path, more=more) for name, (path, more) in built.items()
    )
    with http_daemon(more=config) as daemon:
        wait_until(
            lambda: (
                {line.get("runtime") for line in daemon.log_lines() if ready(line)} >= set(built)
            ),
            20,
            "all of the workers",
        )
        yield addresses(daemon)[-1]


def ready(line: dict[str, Any]) -> bool:
    """Whether a line of the log tells that a worker is ready."""
    return bool(line["event"] == "runtime ready")


def _build(directory: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    senses, projector = directory / "senses.gguf", directory / "projector.gguf"
    models.build_multimodal_model(senses, projector)
    yield "senses", (senses, f'mmproj = "{projector}"')
    for name, build, more in (
        ("thoughts", models.build_thinking_model, ""),
        ("ranks", models.build_rerank_model, "reranking = true"),
        ("vectors", models.build_embedding_model, "embeddings = true"),
    ):
        build(directory / f"{name}.gguf")
        yield name, (directory / f"{name}.gguf", more)


@pytest.fixture
def client(root_url: str) -> Iterator[OpenAI]:
    """Without retries."""
    with OpenAI(base_url=f"{root_url}/v1", api_key="any", max_retries=0, timeout=80) as made:
        yield made


def picture(kind: str = "PNG") -> str:
    """Red, as a data URL."""
    file = BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, kind)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"


def sound(rate: int = 16_000) -> str:
    """A second of silence in two channels, as the base64 of a file."""
    file = BytesIO()
    soundfile.write(file, [[0.0, 0.0]] * rate, rate, format="WAV")
    return b64encode(file.getvalue()).decode()


def tokens_of(client: OpenAI, *parts: "ChatCompletionContentPartParam") -> int:
    """How many the prompt has, with these parts after a text."""
    answer = client.chat.completions.create(
        model="senses",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Well?"}, *parts]}],
        max_tokens=1,
    )
    assert answer.usage is not None
    return answer.usage.prompt_tokens


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_reaches_the_model(client: OpenAI, kind: str) -> None:
    """It takes its tokens of the prompt."""
    plain = tokens_of(client)
    seen = tokens_of(client, {"type": "image_url", "image_url": {"url": picture(kind)}})
    assert seen >= plain + models.IMAGE_TOKENS


def test_a_sound_reaches_the_model(client: OpenAI) -> None:
    """Whatever its channels and its rate."""
    heard = tokens_of(
        client, {"type": "input_audio", "input_audio": {"data": sound(), "format": "wav"}}
    )
    assert heard >= tokens_of(client) + models.AUDIO_TOKENS


def test_a_broken_image_does_not(client: OpenAI) -> None:
    """It is refused with its place, before a model is asked."""
    with pytest.raises(openai.BadRequestError) as caught:
        tokens_of(client, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
    assert caught.value.param == "messages[0].content[1]"


def test_thoughts_stand_apart(client: OpenAI) -> None:
    """As `reasoning_content`, which the SDK keeps; and are left out where effort is none."""
    answer = client.chat.completions.create(
        model="thoughts", messages=[{"role": "user", "content": "Well?"}], reasoning_effort="high"
    )
    message = answer.choices[0].message
    assert message.content == models.ANSWER
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"].strip() == models.THOUGHT
    stream = client.chat.completions.create(
        model="thoughts", messages=[{"role": "user", "content": "Well?"}], stream=True
    )
    extras = [chunk.choices[0].delta.model_extra or {} for chunk in stream]
    thought = "".join(extra.get("reasoning_content", "") for extra in extras)
    assert thought.strip() == models.THOUGHT
    answer = client.chat.completions.create(
        model="thoughts", messages=[{"role": "user", "content": "Well?"}], reasoning_effort="none"
    )
    message = answer.choices[0].message
    assert message.content == models.ANSWER
    assert "reasoning_content" not in (message.model_extra or {})


def test_embeddings(client: OpenAI) -> None:
    """Texts alike lie close."""
    texts = ["a red house", "a red house by the sea", "prime numbers"]
    made = client.embeddings.create(model="vectors", input=texts)
    vectors = [one.embedding for one in made.data]
    assert {len(vector) for vector in vectors} == {models.EMBEDDING_SIZE}

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])


def test_rerank(root_url: str) -> None:
    """Best first, as Jina's and llama-server's clients read it."""
    documents = ["one", "two", "three"]
    answer = httpx.post(
        f"{root_url}/v1/rerank",
        json={"model": "ranks", "query": "q", "documents": documents, "return_documents": True},
        timeout=80,
    ).json()
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(one["index"] for one in answer["results"]) == [0, 1, 2]
    for one in answer["results"]:
        assert one["document"]["text"] == documents[one["index"]]
