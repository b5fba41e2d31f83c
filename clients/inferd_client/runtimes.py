"""`runtime.*`, `logs` and `watch`: plain JSON to records, and which runtime a word means; pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from inferd_proto import ErrorCode, JsonObject, Lease, Runtime

from .errors import Conflict, NotFound, ProtocolViolation
from .leases import to_record
from .status import RouteStatus


class LogLine(NamedTuple):
    """A line that a runtime wrote; or, with `missed`, how many went by before it could be read."""

    text: str
    missed: int = 0


class RouteChange(Struct, frozen=True, kw_only=True):
    """A route that takes requests again, or takes none any more: `reason` says why."""

    name: str
    ready: bool
    reason: str = ""


class Change(Struct, frozen=True, kw_only=True):
    """One thing that `watch` tells.

    First `type` is "snapshot", with all `runtimes`, `leases` and `routes`. From then on it is
    "runtime", "lease" or "route", which is the thing as it is now, or "daemon", with its `state`.
    `event` says what became of a lease ("granted", "renewed", "released", "expired", …).
    `fields` is all that the daemon said, also of types to come.
    """

    type: str
    event: str = ""
    state: str = ""
    runtime: Runtime | None = None
    lease: Lease | None = None
    route: RouteChange | None = None
    runtimes: list[Runtime] = []
    leases: list[Lease] = []
    routes: list[RouteStatus] = []
    fields: JsonObject = {}


_KNOWN = ("snapshot", "runtime", "lease", "route", "daemon")


class _RuntimeListed(Struct, frozen=True):
    runtimes: list[Runtime]


def to_runtime(value: object) -> Runtime:
    """Raises ProtocolViolation where `value` is not a runtime."""
    return to_record(value, Runtime)


def to_runtimes(value: object) -> list[Runtime]:
    """Raises ProtocolViolation where `value` is not a list of runtimes."""
    return to_record(value, _RuntimeListed).runtimes


def to_log_line(value: object) -> LogLine:
    """Raises ProtocolViolation where `value` is not a line of a log."""
    match value:
        case {"line": str(text)}:
            return LogLine(text)
        case {"missed": int(missed)}:
            return LogLine("", missed)
        case _:
            raise ProtocolViolation("the daemon's log holds something that is not a line")


def to_change(value: object) -> Change:
    """Raises ProtocolViolation where `value` is not a change. Words of a newer daemon pass."""
    fields = to_record(value, dict[str, object])
    kind = fields.get("type")
    known = fields if kind in _KNOWN else {"type": kind}
    return to_record(known | {"fields": fields}, Change)


def find_runtime(runtimes: Sequence[Runtime], routes: Iterable[RouteStatus], word: str) -> Runtime:
    """The runtime that a person means by `word`: its instance key or the beginning of it, its
    name, its model, or a route that it stands behind.

    Raises NotFound for none, Conflict for several.
    """
    behind = {b.name for route in routes if route.answers_to(word) for b in route.backends}
    ways = (
        [r for r in runtimes if r.instance_key == word],
        [r for r in runtimes if r.name == word],
        [r for r in runtimes if r.name in behind],
        [r for r in runtimes if r.model_identity == word],
        [r for r in runtimes if word and r.instance_key.startswith(word)],
    )
    found = next((matches for matches in ways if matches), [])
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(sorted(runtime.instance_key for runtime in found))
        raise Conflict(ErrorCode.CONFLICT, f"{word!r} may mean any of {keys}: give one of these")
    names = ", ".join(runtime.name for runtime in runtimes) or "none"
    raise NotFound(ErrorCode.NOT_FOUND, f"no runtime {word!r}; the runtimes are: {names}")
