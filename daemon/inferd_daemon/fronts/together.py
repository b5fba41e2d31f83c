"""Both fronts as one, for whoever stops or replaces the daemon: frames and HTTP end together."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
import trio

from ..config import Config, HttpConfig
from .descriptors import connection_limit
from .http.server import HttpServer
from .listener import Listener

_log = structlog.get_logger(__name__)


class Places(NamedTuple):
    """How many connections each front may have."""

    frames: int
    http: int


class Fronts:
    """The listener of `inferd.sock` and the HTTP server."""

    def __init__(self, listener: Listener, http: HttpServer) -> None:
        self.listener = listener
        self.http = http

    def pause(self) -> None:
        """Accept nobody and read no further requests, but for short ones."""
        self.listener.pause()
        self.http.pause()

    def end_streams(self) -> None:
        """End what never ends by itself."""
        self.listener.end_streams()

    def end_requests(self) -> None:
        """End every running request with an error."""
        self.listener.end_requests()
        self.http.end_requests()

    def abort(self) -> None:
        """Drop every client now, except those that rest."""
        self.listener.abort()
        self.http.abort()

    async def rested(self) -> None:
        """Returns once what was under way when they were paused has ended.

        Owners of leases are heard until then: it may take longer than a lease lasts.
        """
        await _both(self.listener.settled, self.http.rested)
        await self.listener.rested()

    async def drained(self) -> None:
        """Returns once no request runs."""
        await _both(self.listener.drained, self.http.drained)


async def _both(one: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(other)


def share_connections(config: Config) -> Places:
    """As configured; where the limit of open files is lower, less in proportion."""
    frames = config.daemon.max_connections
    http = (HttpConfig() if config.http is None else config.http).max_connections
    allowed = connection_limit(frames + http)
    if allowed == frames + http:
        return Places(frames, http)
    if allowed < frames:
        _log.warning("too few open files for max_connections", wanted=frames, allowed=allowed)
    fewer = max(1, http * allowed // (frames + http))
    return Places(max(1, allowed - fewer), fewer)
