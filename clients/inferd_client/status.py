"""What the daemon says of itself (`Client.status`): typed, and open to fields to come."""

from msgspec import Struct, convert

from inferd_proto import ErrorCode, JsonObject

from .errors import InferdError, NotFound, ProtocolViolation


class BreakerStatus(Struct, frozen=True, kw_only=True):
    """Whether a failing backend is left alone: "closed", "open" or "half_open".

    `failures` count at present; an open breaker lets a request try in `retry_in_ms`.
    """

    state: str = "closed"
    failures: int = 0
    retry_in_ms: int = 0


class BackendStatus(Struct, frozen=True, kw_only=True):
    """One backend behind a route; `capabilities` as in wire.md section 8.

    `in_flight` of its `slots` are in use, by all routes; those of one `priority` share the load.
    """

    name: str
    kind: str = ""
    priority: int = 1
    ready: bool = False
    reason: str = ""
    in_flight: int = 0
    slots: int = 0
    breaker: BreakerStatus = BreakerStatus()
    capabilities: JsonObject = {}


class PeerStatus(Struct, frozen=True, kw_only=True):
    """What one client (a uid with the label that the client gives itself) has on a route."""

    uid: int
    client: str = ""
    active: int = 0
    queued: int = 0
    weight: int = 1


class RouteStatus(Struct, frozen=True, kw_only=True):
    """One route: a name to ask for, and how busy it is.

    `active` of `permits` requests run, `queued` of `queue_depth` wait, for at most `max_wait_ms`;
    `reason` says why it is not ready.
    """

    name: str
    ready: bool = False
    reason: str = ""
    default: bool = False
    active: int = 0
    queued: int = 0
    permits: int = 0
    queue_depth: int = 0
    max_wait_ms: int | None = None
    peers: list[PeerStatus] = []
    backends: list[BackendStatus] = []
    aliases: list[str] = []

    def answers_to(self, name: str) -> bool:
        """True where `name` is the route's name or one of its aliases."""
        return name == self.name or name in self.aliases


class Status(Struct, frozen=True, kw_only=True):
    """The daemon; `state` is "starting", "ready", "draining" or "restarting".

    `http` is where it listens for HTTP, if anywhere; `upgrades` how often this process has gone
    over to new code.
    """

    version: str = ""
    pid: int = 0
    uptime_s: float = 0.0
    state: str = ""
    ready: bool = False
    socket: str = ""
    connections: int = 0
    http: list[str] = []
    upgrades: int = 0
    routes: list[RouteStatus] = []


class NotReady(InferdError, TimeoutError):
    """The daemon or a route was not ready in time; `status` is what the daemon said last."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


class RouteList(Struct, frozen=True):
    """The value of `route.list`."""

    routes: list[RouteStatus]


def to_status(value: object) -> Status:
    """Raises ProtocolViolation where `value` is not a status."""
    try:
        return convert(value, Status)
    except ValueError as error:
        raise ProtocolViolation(f"the daemon's status makes no sense: {error}") from None


def to_routes(value: object) -> list[RouteStatus]:
    """Raises ProtocolViolation where `value` is not a list of routes."""
    try:
        return convert(value, RouteList).routes
    except ValueError as error:
        raise ProtocolViolation(f"the daemon's routes make no sense: {error}") from None


def what_is_missing(status: Status, model: str | None) -> str | None:
    """Why the daemon, or the route `model`, cannot be asked yet; None where it can.

    Raises NotFound where a daemon that is up has no such route.
    """
    if model is None:
        return None if status.ready else _why(status)
    for route in status.routes:
        if route.answers_to(model):
            return None if route.ready else f"route {route.name!r}: {route.reason or 'not ready'}"
    if status.ready:
        names = ", ".join(route.name for route in status.routes) or "none"
        raise NotFound(ErrorCode.NOT_FOUND, f"no route {model!r}; the routes are: {names}")
    return _why(status)


def _why(status: Status) -> str:
    reasons = [f"{r.name}: {r.reason or 'not ready'}" for r in status.routes if not r.ready]
    return "; ".join(reasons) or f"the daemon is {status.state or 'not ready'}"
