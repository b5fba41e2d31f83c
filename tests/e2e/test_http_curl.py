"""curl against a real daemon: what a shell script sees, and what is left when it is interrupted."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.daemon import wait_until
from tests.support.http_models import HttpModels, http_models
from tests.support.wire_client import connected

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
HI = {"messages": [{"role": "user", "content": "hi"}]}


class Said(NamedTuple):
    """What curl printed: the status it was asked to append, and the body."""

    status: int
    body: str

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever it was
        """The body's."""
        return json.loads(self.body)


@pytest.fixture(scope="module")
def serving() -> Iterator[HttpModels]:
    """One daemon for all tests here."""
    with http_models() as models:
        yield models


def command(serving: HttpModels, path: str, body: object | None, *options: str) -> list[str]:
    """The command line, with the key."""
    line = ["curl", "-sSN", "--max-time", "80", serving.root_url + path]
    line += ["-H", f"Authorization: Bearer {serving.key}", *options]
    if body is not None:
        data = body if isinstance(body, str) else json.dumps(body)
        line += ["-H", "Content-Type: application/json", "--data-binary", data]
    return line


def curl(serving: HttpModels, path: str, body: object | None = None, *options: str) -> Said:
    """Run it to its end."""
    line = command(serving, path, body, "-w", "\n%{http_code}", *options)
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=100)
    text, _, status = done.stdout.rpartition("\n")
    return Said(int(status), text)


def active(serving: HttpModels, route: str) -> int:
    """How many requests the daemon's socket says that run on `route`."""
    with connected(serving.daemon.socket) as client:
        client.say(op="route.list")
        routes = client.hear()["value"]["routes"]
    return int(*(one["active"] for one in routes if one["name"] == route))


def test_chat(serving: HttpModels) -> None:
    """One object; the same as a stream of events."""
    asked = {"model": "demo", **HI, "max_tokens": 6, "temperature": 0}
    whole = curl(serving, "/v1/chat/completions", asked)
    assert whole.status == 200
    text = whole.json["choices"][0]["message"]["content"]
    stream = curl(serving, "/v1/chat/completions", asked | {"stream": True})
    *events, done, empty = stream.body.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == text


def test_headers_of_a_stream(serving: HttpModels) -> None:
    """What browsers and proxies go by."""
    said = curl(serving, "/v1/chat/completions", {"model": "mock", **HI, "stream": True}, "-i")
    head = said.body.replace("\r", "").partition("\n\n")[0].lower()
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-cache" in head


def test_embeddings_and_rerank(serving: HttpModels) -> None:
    """Numbers, and documents in the order of their scores."""
    vectors = curl(serving, "/v1/embeddings", {"model": "vectors", "input": ["a", "b"]})
    assert [len(one["embedding"]) for one in vectors.json["data"]] == [
        len(vectors.json["data"][0]["embedding"])
    ] * 2
    ranked = curl(
        serving,
        "/v1/rerank",
        {"model": "mock", "query": "red", "documents": ["blue", "red"], "top_n": 1},
    )
    assert [one["index"] for one in ranked.json["results"]] == [1]


def test_messages_and_responses(serving: HttpModels) -> None:
    """The APIs that the worker itself serves."""
    counted = curl(serving, "/v1/messages/count_tokens", {"model": "demo", **HI})
    assert counted.json["input_tokens"] > 0
    stream = curl(serving, "/v1/responses", {"model": "demo", "input": "hi", "stream": True})
    assert "event: response.completed\n" in stream.body


def test_a_server_that_is_started_for_the_request(serving: HttpModels) -> None:
    """Its own words, but for where its model lies."""
    asked = {"model": "spawned", **HI, "max_tokens": 3}
    whole = curl(serving, "/v1/messages", asked)
    assert (whole.json["model"], whole.json["usage"]["output_tokens"]) == ("spawned", 3)
    stream = curl(serving, "/v1/messages", asked | {"stream": True})
    assert '"model":"spawned"' in stream.body
    assert stream.body.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    response = {"model": "spawned", "input": "hi", "max_output_tokens": 3, "stream": True}
    assert '"model":"spawned"' in curl(serving, "/v1/responses", response).body
    for said in (whole, stream):
        assert ".gguf" not in said.body


@pytest.mark.parametrize("route", ["demo", "spawned"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_an_interrupted_curl_frees_the_models_slot(
    serving: HttpModels, path: str, route: str
) -> None:
    """Asked many times in a row, two slots would be full long ago."""
    body = {"model": route, **HI, "max_tokens": 2000, "stream": True}
    for _ in range(6):
        with subprocess.Popen(command(serving, path, body), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.kill()
    wait_until(lambda: active(serving, route) == 0, 1, "the end of the requests")
    assert curl(serving, path, body | {"max_tokens": 1}).status == 200


BAD: list[tuple[str, object, int]] = [
    ("/v1/chat/completions", "", 400),
    ("/v1/chat/completions", "{", 400),
    ("/v1/chat/completions", '{"messages": "\\ud800"}', 400),
    ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "wizard", "content": "x"}]}, 400),
    ("/v1/chat/completions", {"model": "gpt-4o", **HI}, 404),
    ("/v1/chat/completions", {"model": "demo", **HI, "n": 3}, 400),
    ("/v1/completions", {"model": "demo", "prompt": [1, 2, 3]}, 400),
    ("/v1/embeddings", {"model": "vectors", "input": [[1, 2]]}, 400),
    ("/v1/embeddings", {"model": "demo", "input": "x"}, 400),
    ("/v1/rerank", {"model": "mock", "query": "x"}, 400),
    ("/v1/responses", {"model": "demo", "input": []}, 400),
    ("/v1/nothing", {}, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD)
def test_bad_input(serving: HttpModels, path: str, body: object, status: int) -> None:
    """OpenAI's shape and a status of the caller's; no connection is lost over it."""
    said = curl(serving, path, body)
    assert said.status == status
    assert set(said.json["error"]) == {"message", "type", "param", "code"}
    assert serving.daemon.process.poll() is None


def test_a_stream_that_breaks_off(serving: HttpModels) -> None:
    """An error as its last event, and a clean end of the body: curl is content."""
    said = curl(serving, "/v1/chat/completions", {"model": "broken", **HI, "stream": True})
    last = said.body.strip().rpartition("\n\n")[2]
    assert json.loads(last.removeprefix("data: "))["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_an_interrupted_curl_stops_the_work(serving: HttpModels, *, stream: bool) -> None:
    """At once: its place is free for the next one."""
    body = {"model": "endless", **HI, "stream": stream, "max_tokens": 100_000}
    with subprocess.Popen(
        command(serving, "/v1/chat/completions", body), stdout=subprocess.PIPE
    ) as process:
        wait_until(lambda: active(serving, "endless") == 1, 5, "the request to run")
        process.kill()
    wait_until(lambda: active(serving, "endless") == 0, 1, "the end of the request")
