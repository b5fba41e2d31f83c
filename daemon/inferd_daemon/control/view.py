"""What control verbs may see of the daemon."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import trio

from ..errors import BackendFault
from ..routing.router import Router
from ..supervision.agent_room import AgentRoom
from ..supervision.leasing import Leasing
from ..supervision.succession.upgrade import Upgrade


class HttpFront(Protocol):
    """The HTTP front, as verbs see it."""

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""

    @property
    def responses(self) -> Mapping[int, int]:
        """How many answers had which status."""


DaemonState = Literal["starting", "ready", "draining"]


@dataclass
class DaemonView:
    """The daemon's own figures; the app keeps them true."""

    version: str
    socket: str
    router: Router
    leasing: Leasing | None = None
    agents: AgentRoom | None = None
    admin_group: int | None = None
    """Members may do what the daemon's user may."""
    stop_asked: trio.Event = field(default_factory=trio.Event)
    """Set by a verb that has the daemon stop."""
    upgrade: Upgrade | None = None
    upgrades: int = 0
    """How often the daemon has gone over to a next self, in this process."""
    started_at: float = field(default_factory=trio.current_time)
    draining: bool = False
    connections: int = 0
    http: HttpFront | None = None

    @property
    def leases(self) -> Leasing:
        """Runtimes and leases. Raises BackendFault where the daemon serves without them."""
        if self.leasing is None:
            raise BackendFault("this daemon manages no runtimes")
        return self.leasing

    @property
    def agent_room(self) -> AgentRoom:
        """CLI agents. Raises BackendFault where the daemon serves without them."""
        if self.agents is None:
            raise BackendFault("this daemon runs no agents")
        return self.agents

    @property
    def state(self) -> DaemonState:
        """`ready` once the default route, or any where there is no default, takes requests."""
        if self.draining:
            return "draining"
        default = self.router.default
        routes = [default] if default is not None else self.router.routes
        return "ready" if any(route.readiness()[0] for route in routes) else "starting"
