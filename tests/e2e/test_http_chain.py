"""One daemon behind another over HTTP: chat that is passed on undecoded, end to end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from openai import OpenAI

from tests.support.daemon import RunningDaemon, wait_until
from tests.support.http_client import Answer, ask, chat, http_daemon
from tests.support.http_models import HttpModels, http_models
from tests.support.wire_client import connected

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

QUESTION: "list[ChatCompletionMessageParam]" = [{"role": "user", "content": "Who are you?"}]
_CHAINED = """
[backends.{name}]
kind = "openai_compat"
base_url = "{url}"
api_key_file = "{key_file}"
model = "{name}"
upstream = "{upstream}"

[routes.{name}]
backends = ["{name}"]
"""


@pytest.fixture(scope="module")
def models() -> Iterator[HttpModels]:
    """The daemon behind."""
    with http_models() as behind:
        yield behind


@pytest.fixture(scope="module")
def front(models: HttpModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """The daemon before it, with a route for each of its routes."""
    key_file = tmp_path_factory.mktemp("keys") / "key"
    key_file.write_text(models.key)
    with http_daemon(more="".join(_tables(models.root_url, key_file))) as daemon:
        yield daemon


def _tables(url: str, key_file: Path) -> Iterator[str]:
    for name, upstream in (
        ("demo", "generic"),
        ("endless", "generic"),
        ("broken", "generic"),
        ("spawned", "llama_server"),
    ):
        yield _CHAINED.format(name=name, url=url, key_file=key_file, upstream=upstream)


@pytest.fixture
def client(front: RunningDaemon) -> Iterator[OpenAI]:
    """Of the daemon in front."""
    (address,) = [
        line["address"] for line in front.log_lines() if line["event"] == "listening for HTTP"
    ]
    with OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=80) as made:
        yield made


def events(answer: Answer) -> list[object]:
    """The payloads of a stream."""
    lines = answer.body.decode().splitlines()
    payloads = [line.removeprefix("data: ") for line in lines if line]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def test_the_bytes_are_those_of_the_daemon_behind(front: RunningDaemon, models: HttpModels) -> None:
    """But for what each answer has of its own: the id and the time."""
    relayed = events(ask(front, chat("demo", stream=True, max_tokens=5, temperature=0)))
    key = f"Authorization: Bearer {models.key}"
    direct = events(ask(models.daemon, chat("demo", key, stream=True, max_tokens=5, temperature=0)))
    for chunk in [*relayed, *direct]:
        if isinstance(chunk, dict):
            assert chunk.pop("id").startswith("chatcmpl-")
            del chunk["created"]
    assert relayed == direct


def test_the_sdk_sees_no_difference(client: OpenAI) -> None:
    """Streamed and whole say the same; usage only where it was asked for."""
    whole = client.chat.completions.create(
        model="demo", messages=QUESTION, max_tokens=8, temperature=0
    )
    for include_usage in (True, False):
        stream = client.chat.completions.create(
            model="demo",
            messages=QUESTION,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": include_usage},
        )
        chunks = list(stream)
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(texts) == whole.choices[0].message.content
        assert (chunks[-1].usage is not None) is include_usage
        assert all(chunk.choices for chunk in chunks[:-1])


def test_what_breaks_off_behind_breaks_off_in_front(client: OpenAI) -> None:
    """With an error as the last event, not with an end."""
    stream = client.chat.completions.create(model="broken", messages=QUESTION, stream=True)
    deltas = (chunk.choices[0].delta.content or "" for chunk in stream)
    texts: list[str] = []
    with pytest.raises(openai.APIError):
        texts.extend(deltas)
    assert "".join(texts) == "tok0 tok1 tok2 "


def test_leaving_reaches_the_daemon_behind(client: OpenAI, models: HttpModels) -> None:
    """Through both of them, at once."""

    def active() -> int:
        with connected(models.daemon.socket) as wire:
            wire.say(op="route.list")
            routes = wire.hear()["value"]["routes"]
        return int(*(route["active"] for route in routes if route["name"] == "endless"))

    stream = client.chat.completions.create(model="endless", messages=QUESTION, stream=True)
    next(iter(stream))
    assert active() == 1
    stream.close()
    wait_until(lambda: active() == 0, 1, "the end of the request behind")


def test_a_refusal_behind_is_told(client: OpenAI) -> None:
    """As the caller's fault, which it is."""
    with pytest.raises(openai.BadRequestError, match=r"n_ctx|context|exceed"):
        client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "word " * 20_000}],
            stream=True,
        )


def test_other_apis_go_through_two_daemons(client: OpenAI) -> None:
    """To the llama-server that the one behind has started."""
    answer = client.responses.create(model="spawned", input="Who are you?", max_output_tokens=4)
    assert answer.output_text
    completion = client.completions.create(model="spawned", prompt="Hello", max_tokens=4)
    assert completion.choices[0].text
