"""Runtimes, leases, plans and changes as rows and lines; pure."""

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from inferd_proto import EnsurePlan, Lease, Obstacle, Runtime

from ..runtimes import Change, RouteChange
from .render import duration, printable, size

if TYPE_CHECKING:
    from rich.table import Table

_KEY_CHARS = 8
"""Of an instance key's hash: enough to tell runtimes of one machine apart, and accepted by every
verb."""


def runtimes_table(runtimes: Sequence[Runtime], leases: Sequence[Lease]) -> "Table":
    """One row a runtime; `leases` tell until when it is held."""
    table = new_table("NAME", "STATE", "HEALTH", "PID", "MEM", "LEASES", "UNTIL", "ENDPOINT")
    for runtime in runtimes:
        held = [lease for lease in leases if lease.instance_key == runtime.instance_key]
        new_row(
            table,
            runtime.name,
            runtime.state,
            runtime.health,
            "" if runtime.pid is None else str(runtime.pid),
            _memory(runtime),
            str(runtime.leases),
            until(runtime, held),
            runtime.endpoint or "",
        )
    return table


def until(runtime: Runtime, held: Sequence[Lease]) -> str:
    """When a runtime ends if nobody does anything; `held` are its leases as far as known."""
    if runtime.state in ("stopped", "failed"):
        return ""
    if runtime.leases:
        left = [lease.left_ms for lease in held]
        known = [ms for ms in left if ms is not None]
        if len(known) < runtime.leases:
            return "leased"
        return f"leased, {_left(max(known))}"
    if runtime.idle_left_ms is None:
        return "busy" if runtime.state in ("starting", "restarting", "draining") else "forever"
    return f"in {_left(runtime.idle_left_ms)}"


def leases_table(leases: Sequence[Lease], runtimes: Sequence[Runtime]) -> "Table":
    """One row a lease. A runtime is shown by its name, by its key where others bear that too."""
    names = Counter(runtime.name for runtime in runtimes)
    shown = {one.instance_key: one.name for one in runtimes if names[one.name] == 1}
    table = new_table("REF", "RUNTIME", "OWNER", "UID", "PID", "AGE", "LEFT", "BOUND")
    for lease in leases:
        new_row(
            table,
            lease.lease_ref,
            shown.get(lease.instance_key) or short_key(lease.instance_key),
            lease.owner_ref,
            str(lease.uid),
            "" if lease.pid is None else str(lease.pid),
            duration(lease.age_ms / 1000),
            time_left(lease),
            "to its connection" if lease.bind == "connection" else "",
        )
    return table


def time_left(lease: Lease) -> str:
    """How long a lease lives if nobody renews it."""
    return "" if lease.left_ms is None else _left(lease.left_ms)


def short_key(instance_key: str) -> str:
    """The readable beginning of an instance key, and enough of its hash."""
    stem, dash, digest = instance_key.rpartition("-")
    return f"{stem}{dash}{digest[:_KEY_CHARS]}"


def plan_lines(plan: EnsurePlan) -> list[str]:
    """What an `ensure` takes, in words."""
    if plan.verdict == "running":
        return ["It runs already."]
    free = "no limit is set" if plan.free_bytes is None else f"{size(plan.free_bytes)} are free"
    lines = [f"It needs about {size(plan.needed_bytes)}; {free}."]
    match plan.verdict:
        case "fits":
            lines.append("It fits.")
        case "evicts":
            lines.append("It fits once these, which nobody holds, are stopped:")
            lines += [_obstacle(obstacle) for obstacle in plan.evict]
        case "refused":
            lines += _refusal(plan)
    return lines


def _refusal(plan: EnsurePlan) -> list[str]:
    missing = [size(plan.missing_bytes)] if plan.missing_bytes else []
    missing += ["a place for one more runtime"] if plan.missing_runtimes else []
    lacks = f"It does not fit: {' and '.join(missing)} is missing"
    if not plan.blocked_by:
        return [f"{lacks}, whatever is stopped."]
    return [f"{lacks}, until these are released:", *map(_obstacle, plan.blocked_by)]


def change_lines(change: Change) -> list[str]:
    """A change in words: one line, several for the snapshot."""
    if change.type == "snapshot":
        lines = [line for runtime in change.runtimes for line in _runtime_line(runtime)]
        return lines + [_lease_line(lease, "held") for lease in change.leases]
    if change.runtime is not None:
        return _runtime_line(change.runtime)
    if change.lease is not None:
        return [_lease_line(change.lease, change.event)]
    if change.route is not None:
        return [_route_line(change.route)]
    if change.type == "daemon":
        return [printable(f"the daemon is {change.state}")]
    return [printable(change.type)]


def _route_line(route: RouteChange) -> str:
    state = "ready" if route.ready else "not ready"
    reason = f": {route.reason}" if route.reason else ""
    return printable(f"route {route.name} is {state}{reason}").replace("\n", " ")


def _runtime_line(runtime: Runtime) -> list[str]:
    words = [f"runtime {runtime.name} is {runtime.state}"]
    if runtime.health not in ("unknown", "healthy"):
        words.append(runtime.health)
    if runtime.pid is not None:
        words.append(f"pid {runtime.pid}")
    if runtime.last_error and runtime.state in ("failed", "restarting"):
        words.append(runtime.last_error)
    return [printable(", ".join(words)).replace("\n", " ")]


def _lease_line(lease: Lease, event: str) -> str:
    words = [f"lease {lease.lease_ref} {event}", short_key(lease.instance_key)]
    words += [f"owner {lease.owner_ref}"] if lease.owner_ref else []
    words += [f"{time_left(lease)} left"] if lease.left_ms else []
    return printable(", ".join(words))


def _obstacle(obstacle: Obstacle) -> str:
    holders = [
        f"{holder.lease_ref or 'a lease'} of {holder.owner_ref or f'uid {holder.uid}'}"
        for holder in obstacle.held_by
    ]
    held = f"  held by {', '.join(holders)}" if holders else ""
    return printable(f"  {obstacle.name}  {size(obstacle.memory_bytes)}{held}")


def _left(left_ms: int) -> str:
    """Whole seconds, begun ones too: what was given for an hour is not shown as 59 minutes."""
    return duration(ceil(left_ms / 1000))


def _memory(runtime: Runtime) -> str:
    if runtime.memory_bytes is not None:
        return size(runtime.memory_bytes)
    estimated = runtime.estimated_bytes
    gone = runtime.state in ("stopped", "failed")
    return "" if estimated is None or gone else f"~{size(estimated)}"


def new_table(*headings: str) -> "Table":
    """Empty; the first column names what a row is about."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, highlight=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def new_row(table: "Table", *cells: str) -> None:
    """Cells as they are, but without power over a terminal."""
    table.add_row(*map(printable, cells))
