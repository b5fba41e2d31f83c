"""The ASGI application: every route of the HTTP front, and what is answered where there is none."""

from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import RequestError
from . import lease_routes
from .context import HttpContext
from .errors import internal_error
from .health import health
from .metrics import metrics
from .models import list_models, show_model
from .openai import endpoints
from .openai.failures import shape_of


def build_app(context: HttpContext) -> Starlette:
    """Everything but the guard, which stands before it."""
    app = Starlette(
        routes=[
            *endpoints.routes(),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", show_model, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            *lease_routes.routes(),
        ],
        exception_handlers={
            HTTPException: _no_such_thing,
            RequestError: _failed,
            Exception: _internal,
        },
    )
    app.router.redirect_slashes = False
    app.state.context = context
    return app


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """404 and 405, as Starlette's router finds them."""
    known = cast("HTTPException", error)
    status = known.status_code
    message = _MESSAGES.get(status, known.detail)
    answer = shape_of(request.url.path).refusal(status, message, _CODES.get(status))
    answer.headers.update(known.headers or {})
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    return shape_of(request.url.path).response(cast("RequestError", error))


async def _internal(request: Request, _error: Exception) -> Response:
    """Starlette raises the error again once this is sent: the guard has it in the log."""
    return shape_of(request.url.path).response(internal_error())


_MESSAGES = {
    404: "there is nothing at this path",
    405: "this path does not take that method",
}
_CODES = {404: "not_found", 405: "method_not_allowed"}
