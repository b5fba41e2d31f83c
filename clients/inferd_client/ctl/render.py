"""Data to text, to tables and to JSON lines; pure.

rich is imported by the functions that need it: most verbs do not.
"""

import json
import re
from typing import TYPE_CHECKING

import msgspec

from ..answers import Done, Event
from ..status import BackendStatus, PeerStatus, RouteStatus, Status

if TYPE_CHECKING:
    from rich.table import Table

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and newline: with them a model could command a terminal."""


def printable(text: str) -> str:
    """`text` without power over a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def json_line(value: object) -> str:
    """Plain data as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event_json(event: Event) -> str:
    """An event as one JSON line, tagged by `type`. `usage` is null where nobody counted."""
    fields = msgspec.to_builtins(event)
    if isinstance(event, Done):
        fields = {"type": "done"} | {k: v for k, v in fields.items() if v is not None}
        if not fields.pop("counted"):
            fields["usage"] = None
    return json_line(fields)


def tool_call(name: str, arguments: object) -> str:
    """A tool call as it would be written in a program."""
    return printable(f"{name}({json.dumps(arguments, ensure_ascii=False)})")


def duration(seconds: float) -> str:
    """A time in the two largest units that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def size(count: int) -> str:
    """Bytes in the unit that people compare models by."""
    if count < 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.1f} GiB"


def status_line(status: Status) -> str:
    """The daemon in one line."""
    plural = "" if status.connections == 1 else "s"
    return (
        f"inferd {status.version} is {status.state}: pid {status.pid}, up"
        f" {duration(status.uptime_s)}, {status.connections} connection{plural},"
        f" {', '.join([status.socket, *status.http])}"
    )


def routes_table(routes: list[RouteStatus]) -> "Table":
    """One row a route, the default one with a star; a line each for backends and who waits.

    Why something is not ready is for `reason_lines`: a sentence in a column cannot be read.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, highlight=False)
    for heading in ("NAME", "STATE", "ACTIVE", "QUEUED", "BACKENDS", "ALIASES"):
        table.add_column(heading, overflow="fold")
    for route in routes:
        table.add_row(*map(printable, _route_row(route)))
    return table


def reason_lines(routes: list[RouteStatus]) -> list[str]:
    """Why backends and routes are not ready, or what is doubtful though they are, a line for each
    reason; empty where there is none.
    """
    whose: dict[str, list[str]] = {}

    def tell(name: str, reason: str) -> None:
        names = whose.setdefault(" ".join(printable(reason).split()), [])
        if name not in names:
            names.append(name)

    for route in routes:
        reasons = {b.name: b.reason for b in route.backends if b.reason}
        for name, reason in reasons.items():
            tell(name, reason)
        # the route's own words are those of its backends, with their names before them
        told = any(reason in route.reason for reason in reasons.values())
        if not route.ready and route.reason and not told:
            tell(route.name, route.reason)
    return [f"{printable(', '.join(names))}: {reason}" for reason, names in whose.items()]


def _route_row(route: RouteStatus) -> tuple[str, ...]:
    ranked = len({backend.priority for backend in route.backends}) > 1
    waiting = [f"{_peer(peer)}: {peer.queued}" for peer in route.peers if peer.queued]
    return (
        route.name + ("*" if route.default else ""),
        "ready" if route.ready else "unready",
        f"{route.active}/{route.permits}",
        "\n".join([f"{route.queued}/{route.queue_depth}", *waiting]),
        "\n".join(_backend_line(backend, ranked=ranked) for backend in route.backends),
        ", ".join(route.aliases),
    )


def _backend_line(backend: BackendStatus, *, ranked: bool) -> str:
    """Backends of one rank share the load; those of the next one wait for their failure."""
    breaker = backend.breaker
    notes: list[str] = []
    if backend.in_flight:
        notes.append(f"{backend.in_flight} of {backend.slots} slots in use")
    if breaker.state != "closed":
        notes.append(f"its breaker is {breaker.state.replace('_', ' ')}")
    elif breaker.failures:
        plural = "" if breaker.failures == 1 else "s"
        notes.append(f"{breaker.failures} failure{plural} lately")
    if not backend.ready and breaker.state != "open":
        notes.append("unready")
    rank = f"{backend.priority}. " if ranked else ""
    return f"{rank}{backend.name} ({backend.kind})" + (f": {'; '.join(notes)}" if notes else "")


def _peer(peer: PeerStatus) -> str:
    return f"uid {peer.uid} {peer.client}".rstrip()
