"""The OpenAI surface as an application in the test's own event loop, asked by httpx."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from inferd_daemon.backends.base import Backend
from inferd_daemon.config import BackendConfig, Config, HttpConfig, MockConfig, RouteConfig
from inferd_daemon.control.view import DaemonView
from inferd_daemon.fronts.http.app import build_app
from inferd_daemon.fronts.http.context import HttpContext
from inferd_daemon.routing.table import build_router


def view_of(
    backends: Mapping[str, Backend], routes: Mapping[str, RouteConfig] | None = None
) -> DaemonView:
    """A daemon with these backends; without `routes`, one route for each by its name."""
    tables: dict[str, BackendConfig] = {name: MockConfig() for name in backends}
    named = dict(routes or {name: RouteConfig(backends=[name]) for name in backends})
    router = build_router(Config(backends=tables, routes=named), backends)
    return DaemonView("0", "/run/inferd.sock", router)


@asynccontextmanager
async def asking(view: DaemonView) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    app = build_app(HttpContext(view, HttpConfig()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://inferd") as client:
        yield client
