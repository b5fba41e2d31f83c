"""The lease routes over real leasing in this process, asked through the ASGI interface."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.config import HttpConfig, MockConfig
from inferd_daemon.fronts.http.app import build_app
from inferd_daemon.fronts.http.context import HttpContext
from inferd_daemon.supervision.leasing import Leasing
from inferd_proto import EndpointDescriptor
from tests.daemon.fronts.conversation import view_of
from tests.support.lone_runtimes import SleepBlueprint, have, leasing

ADDRESS = "http://127.0.0.1:8417"


class StandingFront:
    """A front that listens nowhere: the application is called directly."""

    asked = 0
    stands = True

    async def address(self) -> str:
        """Always the same."""
        self.asked += 1
        return ADDRESS


class Leased(NamedTuple):
    """What a test needs of it."""

    whole: Leasing
    front: StandingFront
    http: httpx.AsyncClient

    async def relayed(self, blueprint: SleepBlueprint, uds: str) -> EndpointDescriptor:
        """The endpoint of a new lease over TCP, on a runtime that answers at `uds`."""
        blueprint.engine.endpoint = Endpoint(uds=Path(uds), key="runtimes-own-key")
        return (await have(self.whole, blueprint, transport="tcp")).endpoint


@asynccontextmanager
async def leased(directory: Path) -> AsyncIterator[Leased]:
    """For the block."""
    async with leasing(directory) as whole:
        front = StandingFront()
        whole.open_to(front)
        view = view_of(MockBackend("mock", MockConfig()))
        view.leasing = whole
        app = build_app(HttpContext(view, HttpConfig()))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as http:
            yield Leased(whole, front, http)
