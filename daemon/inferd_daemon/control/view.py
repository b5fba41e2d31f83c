"""What control verbs may see of the daemon."""

from dataclasses import dataclass, field
from typing import Literal

import trio

from ..routing.router import Router

DaemonState = Literal["starting", "ready", "draining"]


@dataclass
class DaemonView:
    """The daemon's own figures; the app keeps them true."""

    version: str
    socket: str
    router: Router
    started_at: float = field(default_factory=trio.current_time)
    draining: bool = False
    connections: int = 0

    @property
    def state(self) -> DaemonState:
        """`ready` once the default route, or any where there is no default, takes requests."""
        if self.draining:
            return "draining"
        default = self.router.default
        routes = [default] if default is not None else self.router.routes
        return "ready" if any(route.readiness()[0] for route in routes) else "starting"
