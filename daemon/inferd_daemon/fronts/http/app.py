"""The ASGI application: every route of the HTTP front, and what is answered where there is none."""

from starlette.applications import Starlette

from . import lease_routes
from .context import HttpContext
from .openai import endpoints


def build_app(context: HttpContext) -> Starlette:
    """Everything but the guard, which stands before it."""
    app = Starlette(routes=[*endpoints.routes(), *lease_routes.routes()])
    app.state.context = context
    return app
