"""`GET /v1/models`: the routes under their names and aliases, as OpenAI's clients list models."""

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd_proto import ErrorCode, JsonObject

from ...errors import RequestError
from ...routing.router import Route, Router
from .errors import openai_error

if TYPE_CHECKING:
    from .context import HttpContext


async def list_models(request: Request) -> Response:
    """All of them; `ready`, and `reason` where one is not, are ours."""
    router = _router(request)
    found = [_describe(name, route) for name, route in router.by_name.items()]
    return _json({"object": "list", "data": found})


async def show_model(request: Request) -> Response:
    """One, or 404."""
    name = request.path_params["name"]
    route = _router(request).by_name.get(name)
    if route is None:
        error = RequestError(ErrorCode.NOT_FOUND, f"there is no model {name[:80]!r}")
        return openai_error(error, param="model", code="model_not_found")
    return _json(_describe(name, route))


def _describe(name: str, route: Route) -> JsonObject:
    ready, reason = route.readiness()
    described: JsonObject = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "inferd",
        "ready": ready,
    }
    if not ready:
        described["reason"] = reason
    if name != route.name:
        described["alias_of"] = route.name
    return described


def _router(request: Request) -> Router:
    context: HttpContext = request.app.state.context
    return context.view.router


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
