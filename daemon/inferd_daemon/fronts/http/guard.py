"""Stands before the application: who may ask at all, how much, and for how long.

Everything that ends a request from outside of its endpoint is answered here, in the shape that its
client knows. Its last door is the HTTP front's: a fault ends one request.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog
import trio
from starlette.responses import Response

from inferd_proto import ErrorCode

from ...errors import BackendFault, CallerFault, RequestError
from ..byte_budget import ByteBudget
from .body import Body
from .caller import SCOPE_KEY, Callers
from .context import HttpContext
from .errors import RETRY_AFTER_S, internal_error, refusal_code
from .exchange import EXTENSION, ASGIApp, Ender, Exchange
from .incoming import Headers
from .keys import ClientKeys
from .openai.failures import ErrorShape, shape_of
from .origin import OriginRules, Refusal, answer_headers, preflight_headers
from .too_many import TOO_MANY

Send = Callable[[Any], Awaitable[None]]
OPEN_PATHS = ("/health",)
LEASES = "/leases/"
"""Each lease has a key of its own, which its routes ask for."""
RUNS = f"{LEASES}run-"
"""What the run of an agent asks for belongs to a request that is under way."""
_log = structlog.get_logger(__name__)


class DoorRules(NamedTuple):
    """What differs from one listening socket to another."""

    any_host: bool = False
    """No browser reaches it."""
    leases_only: bool = False
    spare: bool = False
    """All other connections are taken: this one is for the runs of agents, which hold some of them
    until they are answered here.
    """


class Guard:
    """The ASGI application of one door."""

    def __init__(
        self,
        app: ASGIApp,
        context: HttpContext,
        keys: ClientKeys,
        budget: ByteBudget,
        rules: DoorRules,
    ) -> None:
        self._app = app
        self._context = context
        self._keys = keys
        self._budget = budget
        self._rules = rules
        self._callers = Callers(context.config.clients)
        self._origins = OriginRules(context.config.host_names, context.config.origins)

    async def __call__(self, scope: Any, _receive: object, send: Send) -> None:  # noqa: ANN401
        exchange: Exchange = scope["extensions"][EXTENSION]
        started = trio.current_time()
        try:
            await self._answer(scope, exchange, send)
        finally:
            status = exchange.status
            if status is not None:
                self._context.responses[status] += 1
            took_ms = round((trio.current_time() - started) * 1000, 2)
            _log.debug("HTTP request", path=scope["path"][:80], status=status, ms=took_ms)

    async def _answer(self, scope: Any, exchange: Exchange, send: Send) -> None:  # noqa: ANN401
        shape = shape_of(scope["path"])
        origin = self._origins.judge(scope["headers"], any_host=self._rules.any_host)
        if isinstance(origin, Refusal):
            await _send(_refused(origin, shape), send)
            return
        if origin is not None:
            send = _shown_to(origin, send)
        answer = self._refuse(scope, exchange, shape)
        if answer is not None:
            await _send(answer, send)
            return
        if scope["method"] == "OPTIONS" and origin is not None:
            allowed = _text(preflight_headers(scope["headers"]))
            await _send(Response(status_code=204, headers=allowed), send)
            return
        body = Body(exchange, self._context.config.max_body_bytes, self._budget)
        try:
            await self._serve(scope, exchange, body, send)
        finally:
            body.close()

    async def _serve(self, scope: Any, exchange: Exchange, body: Body, send: Send) -> None:  # noqa: ANN401
        cancel_scope = exchange.cancel_scope
        cancel_scope.deadline = trio.current_time() + self._context.config.total_timeout_s
        failed: RequestError | None = None
        try:
            body.announce()
            with cancel_scope:
                await self._app(scope, body.receive, send)
        except RequestError as error:
            failed = error
        except Exception:
            _log.exception("HTTP request failed unexpectedly", path=scope["path"][:80])
            failed = internal_error()
        if cancel_scope.cancelled_caught:
            failed = _ended(exchange.ended_by or "timeout")
        if failed is not None:
            await _answer_late(exchange, failed, shape_of(scope["path"]), send)

    def _refuse(
        self,
        scope: Any,  # noqa: ANN401
        exchange: Exchange,
        shape: ErrorShape,
    ) -> Response | None:
        path, headers = scope["path"], scope["headers"]
        if self._rules.spare and path not in OPEN_PATHS and not path.startswith(RUNS):
            return _refused(_FULL, shape)
        lease = path.startswith(LEASES)
        if self._rules.leases_only and not lease and path not in OPEN_PATHS:
            return _refused(Refusal(404, "only leases are served here", "not_found"), shape)
        if not lease and path not in OPEN_PATHS and scope["method"] != "OPTIONS":
            metrics = path == "/metrics" and self._context.config.metrics_open
            owner = self._keys.owner(headers) if self._keys and not metrics else None
            if self._keys and owner is None and not metrics:
                return _refused(_NO_KEY, shape)
            scope[SCOPE_KEY] = self._callers.find(owner, exchange.uid)
        under_way = path.startswith(RUNS) or path in (*OPEN_PATHS, "/metrics")
        if self._context.view.draining and not under_way:
            fault = BackendFault("the daemon is stopping and takes no new requests")
            return shape.response(fault)
        if any(
            name == b"content-encoding" and value.lower() != b"identity" for name, value in headers
        ):
            return _refused(_ENCODED, shape)
        return None


def _refused(refused: Refusal, shape: ErrorShape) -> Response:
    answer = shape.refusal(*refused)
    if refused.status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    elif refused.status == 429:
        answer.headers["retry-after"] = str(RETRY_AFTER_S)
    return answer


_FULL = Refusal(429, TOO_MANY, ErrorCode.QUEUE_FULL.value)
_NO_KEY = Refusal(
    401,
    "this needs the key of a configured client, as `Authorization: Bearer …` or `x-api-key`",
    "invalid_api_key",
)


_ENCODED = Refusal(
    415, "bodies are taken without Content-Encoding only", "unsupported_content_encoding"
)


def _ended(by: Ender) -> RequestError | None:
    match by:
        case "client":
            return None
        case "shutdown":
            return BackendFault("the daemon is stopping; the request was not finished")
        case "upload":
            return CallerFault("the body of the request did not come, or not as it should")
        case "timeout":
            message = "the request took longer than `total_timeout_s` of [http] allows"
            return RequestError(ErrorCode.TIMEOUT, message)


async def _answer_late(
    exchange: Exchange, error: RequestError, shape: ErrorShape, send: Send
) -> None:
    """The whole answer where nothing is out; the end of an event stream; else nothing fits."""
    if exchange.unanswered:
        refused = exchange.refused
        if refused is not None:
            answer = shape.refusal(refused.status, refused.message, refusal_code(refused.status))
        else:
            answer = shape.response(error, status=408 if exchange.ended_by == "upload" else None)
        await _send(answer, send)
    elif exchange.streams_events:
        event = b"\n\n" + shape.event(error)  # what was begun may stop within a line
        await send({"type": "http.response.body", "body": event, "more_body": False})


def _shown_to(origin: bytes, send: Send) -> Send:
    extra = answer_headers(origin)

    async def shown(message: Any) -> None:  # noqa: ANN401
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return shown


def _text(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers}


async def _send(answer: Response, send: Send) -> None:
    start = {
        "type": "http.response.start",
        "status": answer.status_code,
        "headers": answer.raw_headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
