"""The OpenAI surface asked over ASGI: statuses and shapes, and that bad input starts nothing."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from inferd_daemon.backends.base import (
    Backend,
    Batch,
    Capabilities,
    EmbedRequest,
    EmbedResult,
    Finished,
    GenerateRequest,
    Readiness,
    RerankRequest,
    RerankResult,
    TextDeltas,
)
from inferd_daemon.config import RouteConfig, RouteDefaults, RouteLimits
from inferd_daemon.errors import BackendFault, RequestError
from inferd_proto import ErrorCode, Usage

from .asking import asking, view_of

USER = {"role": "user", "content": "hi"}
HI = {"messages": [USER]}
CHAT = "/v1/chat/completions"


class Scripted(Backend):
    """Answers with what it was given: batches, or what is to be raised in their place."""

    kind = "scripted"

    def __init__(self, *script: Batch | RequestError, can: Capabilities | None = None) -> None:
        self.name = "scripted"
        self.asked: list[object] = []
        self._script = script or ([TextDeltas(["a", "b"])], [Finished("end_turn", Usage(3, 2))])
        self._can = can or Capabilities(tools=True, embed=True, rerank=True)

    @property
    def capabilities(self) -> Capabilities:
        return self._can

    def readiness(self) -> Readiness:
        return Readiness(True)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        self.asked.append(request)
        for step in self._script:
            if isinstance(step, RequestError):
                raise step
            yield step

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self.asked.append(request)
        return EmbedResult([[0.5, 1.0] for _ in request.input], "e", 2)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        self.asked.append(request)
        return RerankResult([float(len(text)) for text in request.documents], "r", 2)


async def ask(
    backend: Backend, path: str, body: object, route: RouteConfig | None = None
) -> tuple[int, Any]:
    """Status and JSON of an answer; a stream as the list of its events."""
    routes = None if route is None else {"scripted": route}
    async with asking(view_of({"scripted": backend}, routes)) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await client.post(path, content=content)
    if answer.headers["content-type"].startswith("text/event-stream"):
        payloads = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        return answer.status_code, [p if p == "[DONE]" else json.loads(p) for p in payloads]
    return answer.status_code, answer.json()


# -- what goes well --------------------------------------------------------------------------


async def test_chat() -> None:
    """The model is the route's name, whatever alias was asked for."""
    status, answer = await ask(Scripted(), CHAT, HI)
    assert status == 200
    assert answer["model"] == "scripted"
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["id"].startswith("chatcmpl-")
    status, events = await ask(Scripted(), CHAT, HI | {"stream": True})
    assert status == 200
    assert events[-1] == "[DONE]"
    assert len({event["id"] for event in events[:-1]}) == 1


async def test_completions_of_a_backend_that_only_chats() -> None:
    """The prompt is what one user says."""
    status, answer = await ask(Scripted(), "/v1/completions", {"prompt": "hi"})
    assert (status, answer["choices"][0]["text"]) == (200, "ab")
    status, events = await ask(Scripted(), "/v1/completions", {"prompt": "hi", "stream": True})
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["a", "b", ""]


async def test_vectors() -> None:
    """Both take the same way through the router."""
    status, answer = await ask(Scripted(), "/v1/embeddings", {"input": ["x", "y"]})
    assert (status, len(answer["data"])) == (200, 2)
    status, answer = await ask(Scripted(), "/v1/rerank", {"query": "q", "documents": ["a", "bb"]})
    assert (status, [one["index"] for one in answer["results"]]) == (200, [1, 0])


async def test_presets_of_the_route() -> None:
    """Defaults under the caller's wishes, and the cap over them."""
    backend = Scripted()
    route = RouteConfig(
        backends=["scripted"],
        defaults=RouteDefaults(temperature=0.5, top_p=0.9),
        limits=RouteLimits(max_tokens=7),
    )
    await ask(backend, CHAT, HI | {"temperature": 1, "max_tokens": 100}, route)
    (asked,) = backend.asked
    assert isinstance(asked, GenerateRequest)
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1, 0.9, 7)


async def test_a_large_body_is_parsed_elsewhere() -> None:
    """With the same result."""
    backend = Scripted()
    text = "x" * 300_000
    status, _ = await ask(backend, CHAT, {"messages": [{"role": "user", "content": text}]})
    assert status == 200
    status, answer = await ask(backend, CHAT, {"messages": [USER], "n": 2, "pad": text})
    assert (status, answer["error"]["param"]) == (400, "n")


# -- what does not ---------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
REMOTE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
TOOL = {"type": "function", "function": {"name": "f"}}
BAD: list[tuple[str, object, int, str | None]] = [
    (CHAT, b"", 400, None),
    (CHAT, b"{", 400, None),
    (CHAT, {}, 400, "messages"),
    (CHAT, {"messages": []}, 400, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": ""}]}, 400, "messages[0].content"),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role"),
    (CHAT, HI | {"model": "gpt-4o"}, 404, "model"),
    (CHAT, HI | {"n": 2}, 400, "n"),
    (CHAT, HI | {"max_tokens": "5"}, 400, "max_tokens"),
    (CHAT, HI | {"tool_choice": "required"}, 400, "tool_choice"),
    (CHAT, HI | {"tools": [TOOL], "tool_choice": "required"}, 400, None),
    (CHAT, HI | {"response_format": {"type": "json_object"}}, 400, None),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [REMOTE]}]},
        400,
        "messages[0].content[0].image_url.url",
    ),
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "messages[0].content[0]"),
    ("/v1/completions", {}, 400, "prompt"),
    ("/v1/completions", {"prompt": "x", "echo": True}, 400, "echo"),
    ("/v1/completions", {"prompt": "x", "model": "no"}, 404, "model"),
    ("/v1/embeddings", {"input": [1, 2]}, 400, "input"),
    ("/v1/embeddings", {"input": "x", "model": "no"}, 404, "model"),
    ("/v1/rerank", {"query": "q", "documents": []}, 400, "documents"),
    ("/v1/responses", {"input": ""}, 400, "input"),
    ("/v1/responses", {"input": "x"}, 400, None),
    ("/v1/responses", {"input": "x", "model": "no"}, 404, "model"),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_input(
    path: str, body: object, status: int, param: str | None, *, stream: bool
) -> None:
    """A status and OpenAI's shape, and no backend ever hears of it."""
    backend = Scripted()
    if isinstance(body, dict):
        body = {**body, "stream": stream}
    said, answer = await ask(backend, path, body)
    assert said == status
    error = answer["error"]
    assert set(answer) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert error["code"] == ("model_not_found" if status == 404 else "invalid_request")
    assert backend.asked == []


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/messages", {}, 400, "invalid_request_error"),
        ("/v1/messages", HI, 400, "invalid_request_error"),
        ("/v1/messages", HI | {"model": "no"}, 404, "not_found_error"),
        ("/v1/messages/count_tokens", HI, 400, "invalid_request_error"),
        ("/v1/messages/count_tokens", {"messages": []}, 400, "invalid_request_error"),
    ],
)
async def test_messages_fail_in_anthropics_shape(
    path: str, body: object, status: int, kind: str
) -> None:
    """A route that does not serve it is told so as well."""
    said, answer = await ask(Scripted(), path, body)
    assert said == status
    assert answer["type"] == "error"
    assert answer["error"]["type"] == kind
    assert set(answer["error"]) == {"type", "message"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BackendFault("upstream answered 500"), 503),
        (RequestError(ErrorCode.TOOL_CALL_MALFORMED, "no JSON"), 502),
        (RequestError(ErrorCode.ATTACHMENT_UNSUPPORTED, "no images"), 400),
        (RequestError(ErrorCode.TIMEOUT, "too late"), 504),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_batch_is_a_status(
    error: RequestError, status: int, *, stream: bool
) -> None:
    """Whether or not a stream was asked for."""
    said, answer = await ask(Scripted(error), CHAT, HI | {"stream": stream})
    assert said == status
    assert answer["error"]["message"] == error.message


async def test_a_failure_after_it_is_the_last_event() -> None:
    """In the middle of a stream; no [DONE] follows, which would say that all is well."""
    script: tuple[Batch | RequestError, ...] = ([TextDeltas(["a"])], BackendFault("gone"))
    status, events = await ask(Scripted(*script), CHAT, HI | {"stream": True})
    assert status == 200
    assert events[-1]["error"]["message"] == "gone"
    assert events[-2]["choices"][0]["delta"] == {"content": "a"}
    status, answer = await ask(Scripted(*script), CHAT, HI)
    assert (status, answer["error"]["message"]) == (503, "gone")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_an_end_is_a_failure(*, stream: bool) -> None:
    """Never a short answer that looks whole."""
    backend = Scripted([TextDeltas(["a"])])
    _, answer = await ask(backend, CHAT, HI | {"stream": stream})
    error = answer[-1]["error"] if stream else answer["error"]
    assert "without saying why" in error["message"]


async def test_get_is_no_way_to_ask() -> None:
    """Nor is any other path."""
    async with asking(view_of({"scripted": Scripted()})) as client:
        assert (await client.get(CHAT)).status_code == 405
        assert (await client.post("/v1/images/generations")).status_code == 404
