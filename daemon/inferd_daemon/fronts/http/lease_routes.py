"""The routes of the leases: what the owner of one may ask of its runtime, and of nothing else.

A lease's own bearer token opens them, whatever keys the rest of the front asks for.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd_proto import Codec, ErrorCode

from ...backends.chat_completions.upstream import RESPONSES
from ...backends.thread import in_thread
from ...config.http_rules import is_loopback
from ...errors import RequestError
from ...supervision.leases.entrance import Entry
from ...supervision.leases.relay import away
from ...supervision.leasing import Leasing
from ...supervision.runtimes.blueprint import Blueprint
from ...supervision.runtimes.machine import SERVING
from .lease_answer import RelayedAnswer
from .lease_errors import WrongModel, refusal
from .openai.failures import shape_of
from .openai.json_body import decode_body
from .openai.raw_request import with_chat_format

if TYPE_CHECKING:
    from .context import HttpContext

RELAYED = (
    "chat/completions",
    "completions",
    "embeddings",
    "rerank",
    "responses",
    "messages",
    "messages/count_tokens",
)
"""Below `/v1`: what a runtime may serve. It says itself what it does not."""
LONG_BYTES = 1024 * 1024
"""A longer body is read in a thread: the loop serves others meanwhile."""
_DIGITS = 10
"""More of them limit nothing."""
_PASSED_HEADERS = ("content-type", "accept", "anthropic-version", "anthropic-beta")

_LLAMA_CPP = ("boot", "resident")
"""The kinds of runtimes that are llama.cpp's, by whatever program."""
T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class _Asked(Struct):
    model: str | None = None
    max_output_tokens: Raw = Raw(b"")

    @property
    def limit(self) -> int | None:
        """What it says where it is one; else the runtime will say what is wrong with it."""
        digits = bytes(self.max_output_tokens)
        return int(digits) if digits.isdigit() and len(digits) < _DIGITS else None


_ASKED: Codec[_Asked] = Codec(_Asked)


def routes() -> list[Route]:
    """`/leases/{ref}/…`."""
    return [
        Route("/leases/{ref}", _guarded(root), methods=["GET"]),
        Route("/leases/{ref}/health", _guarded(health), methods=["GET"]),
        Route("/leases/{ref}/v1/models", _guarded(models), methods=["GET"]),
        *(Route(f"/leases/{{ref}}/v1/{path}", _guarded(ask), methods=["POST"]) for path in RELAYED),
    ]


async def root(request: Request) -> Response:
    """Some clients look whether there is anything at all before they ask."""
    _leasing(request).entrance.find(request.path_params["ref"])
    return Response(b"{}", media_type="application/json")


async def health(request: Request) -> Response:
    """200 while the runtime serves, as a llama-server tells it: to whoever knows the reference."""
    ref, leasing = request.path_params["ref"], _leasing(request)
    token = _token(request)
    entrance = leasing.entrance
    entry = entrance.find(ref) if token is None else entrance.enter(ref, token)
    runtime = leasing.relay.runtime(entry.instance_key)
    if runtime.state not in SERVING:
        raise away(runtime)
    degraded = runtime.state.value == "degraded"
    return _json({"status": "degraded" if degraded else "ok"})


async def models(request: Request) -> Response:
    """The one that is pinned."""
    leasing, entry = _enter(request)
    runtime = leasing.relay.runtime(entry.instance_key)
    model = {
        "id": leasing.relay.model(entry),
        "object": "model",
        "created": 0,
        "owned_by": runtime.blueprint.manifest.backend,
    }
    return _json({"object": "list", "data": [model]})


async def ask(request: Request) -> Response:
    """Carried to the runtime, and its answer back, as they are but for what a Responses client is
    told by llama.cpp, and the reverse; or answered by an agent.
    """
    leasing, entry = _enter(request)
    body = await request.body()
    blueprint = leasing.relay.runtime(entry.instance_key).blueprint
    pinned = leasing.relay.model(entry)
    asked = await _worked(body, partial(_read_asked, pinned=pinned))
    if blueprint.kind == "agent":
        return _by_agent(request, entry, blueprint, body)
    path = request.url.path.removeprefix(f"/leases/{entry.ref}")
    if path == RESPONSES and blueprint.kind in _LLAMA_CPP:
        body = await _worked(body, with_chat_format)
    query = request.url.query
    headers = {name: request.headers[name] for name in _PASSED_HEADERS if name in request.headers}
    target = f"{path}?{query}" if query else path
    return RelayedAnswer(leasing, entry, target, body, headers, asked.limit)


async def _worked(body: bytes, work: Callable[[bytes], T]) -> T:
    if len(body) > LONG_BYTES:
        return await in_thread(work, None, body)
    return work(body)


def _by_agent(request: Request, entry: Entry, blueprint: Blueprint, body: bytes) -> Response:
    """Raises RequestError."""
    # Nobody else needs all of what an agent does.
    from ...supervision.agents.blueprint import AgentBlueprint
    from .agent_answer import AgentAnswer
    from .agent_request import read_agent_request

    assert isinstance(blueprint, AgentBlueprint)
    if not request.url.path.endswith("/v1/chat/completions"):
        raise RequestError(
            ErrorCode.NOT_FOUND, f"{blueprint.name} is a CLI agent: it has chat/completions only"
        )
    view = request.app.state.context.view
    asked = read_agent_request(body, blueprint.name, blueprint.profile.capabilities)
    return AgentAnswer(view.leases, entry, view.agent_room.runs, blueprint, asked)


def _guarded(endpoint: Endpoint) -> Endpoint:
    """With errors as the clients of its API know them."""

    async def answer(request: Request) -> Response:
        try:
            _require_loopback(request)
            return await endpoint(request)
        except RequestError as error:
            return refusal(error, shape_of(request.url.path))

    return answer


def _require_loopback(request: Request) -> None:
    """Raises RequestError for who comes from another machine, whatever the front listens on."""
    host = "" if request.client is None else request.client.host
    if host and not is_loopback(host):
        raise RequestError(ErrorCode.NOT_FOUND, "leases are for programs of the daemon's machine")


def _leasing(request: Request) -> Leasing:
    context: HttpContext = request.app.state.context
    return context.view.leases


def _enter(request: Request) -> tuple[Leasing, Entry]:
    """Raises RequestError, WrongToken."""
    leasing = _leasing(request)
    return leasing, leasing.entrance.enter(request.path_params["ref"], _token(request))


def _token(request: Request) -> str | None:
    """As OpenAI's clients send it, or Anthropic's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("x-api-key")


def _read_asked(body: bytes, pinned: str) -> _Asked:
    """Raises CallerFault for a body that is no JSON object, or asks for another model."""
    asked = decode_body(_ASKED, body)
    if asked.model and pinned and asked.model != pinned:
        raise WrongModel(asked.model, pinned)
    return asked


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
