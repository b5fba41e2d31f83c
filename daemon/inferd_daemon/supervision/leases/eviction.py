"""What has to go before a runtime can start: memory and count, idle ones first (issue: `ensure`).

Pure planning: reads figures, returns a verdict, stops nothing. A runtime with a live lease is
pinned and never in an eviction; where only pinned ones are in the way, the verdict is a refusal
that names them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from inferd_proto import EnsurePlan, ErrorCode, JsonObject, Obstacle

from ...errors import RequestError
from .lease import Claimant, Lease


class Limits(NamedTuple):
    """What all managed runtimes together may use; None is no limit."""

    memory_bytes: int | None = None
    runtimes: int | None = None


class Load(NamedTuple):
    """One runtime that has a process, or is about to.

    `memory_bytes` is the larger of the estimate and what was seen; `last_used` orders idle ones.
    `leases` are its live ones. `stopping` runtimes free their memory soon, but still have it.
    """

    instance_key: str
    name: str
    memory_bytes: int
    last_used: float
    leases: Sequence[Lease] = ()
    stopping: bool = False

    @property
    def pinned(self) -> bool:
        """Whether it may not be stopped by the daemon's own choice."""
        return bool(self.leases)


class Admit(NamedTuple):
    """It fits as things are."""


class Evict(NamedTuple):
    """It fits once these, and those that are stopping already, are gone; least recently used
    first, and none that could stay.
    """

    loads: list[Load]


class AwaitStopping(NamedTuple):
    """It fits once these, which are stopping already, are gone."""

    loads: list[Load]


class Refuse(NamedTuple):
    """It does not fit, even with every idle runtime gone.

    `missing_*` is what lacks then; `blocked_by` are the pinned runtimes in the way, least
    recently used first, as many as it takes. Empty: it is larger than the limits themselves.
    """

    missing_bytes: int
    missing_runtimes: int
    evict: list[Load]
    blocked_by: list[Load]


Verdict = Admit | AwaitStopping | Evict | Refuse


def by_age(load: Load) -> tuple[float, str]:
    """To sort by: least recently used first."""
    return load.last_used, load.instance_key


def plan(needed_bytes: int, limits: Limits, loads: Iterable[Load]) -> Verdict:
    """What it takes to start one more runtime of `needed_bytes` beside `loads`."""
    loads = sorted(loads, key=by_age)
    room = _Room(needed_bytes, limits, loads)
    if room.enough:
        return Admit()
    stopping = [load for load in loads if load.stopping]
    for load in stopping:
        room.free(load)
    if room.enough:
        return AwaitStopping(stopping)
    idle = [load for load in loads if not load.stopping and not load.pinned]
    evicted = room.free_until_enough(idle)
    if room.enough:
        return Evict(_needed_only(needed_bytes, limits, loads, evicted))
    missing_bytes, missing_runtimes = room.missing_bytes, room.missing_runtimes
    pinned = [load for load in loads if not load.stopping and load.pinned]
    blocking = room.free_until_enough(pinned)
    return Refuse(missing_bytes, missing_runtimes, idle, blocking if room.enough else [])


def to_wire(
    verdict: Verdict, needed_bytes: int, limits: Limits, loads: Iterable[Load], asks: Claimant
) -> EnsurePlan:
    """The verdict as the caller sees it; the holders as far as it may know them."""
    used = sum(load.memory_bytes for load in loads)
    free = None if limits.memory_bytes is None else max(0, limits.memory_bytes - used)
    match verdict:
        case Admit():
            return EnsurePlan(verdict="fits", needed_bytes=needed_bytes, free_bytes=free)
        case AwaitStopping(going) | Evict(going):
            return EnsurePlan(
                verdict="evicts",
                needed_bytes=needed_bytes,
                free_bytes=free,
                evict=[_obstacle(load, asks) for load in going],
            )
        case Refuse(missing_bytes, missing_runtimes, evict, blocked_by):
            return EnsurePlan(
                verdict="refused",
                needed_bytes=needed_bytes,
                free_bytes=free,
                missing_bytes=missing_bytes,
                missing_runtimes=missing_runtimes,
                evict=[_obstacle(load, asks) for load in evict],
                blocked_by=[_obstacle(load, asks) for load in blocked_by],
            )


def refusal(told: EnsurePlan) -> RequestError:
    """The error that ends an `ensure` which cannot be served; its details hold the plan."""
    lacks: list[str] = []
    if told.missing_bytes:
        lacks.append(f"{_mib(told.missing_bytes)} MiB more memory")
    if told.missing_runtimes:
        lacks.append("one runtime fewer")
    names = ", ".join(obstacle.name for obstacle in told.blocked_by[:5])
    advice = (
        f"release the leases on {names}, or wait with `wait_ms`"
        if names
        else "it is larger than the limits allow: raise them, or ask for a smaller context"
    )
    return RequestError(
        ErrorCode.CONFLICT,
        f"the runtime needs {_mib(told.needed_bytes)} MiB and, beside what is leased, "
        f"{' and '.join(lacks)}; {advice}",
        details=_details(told),
    )


def is_refusal(error: RequestError) -> bool:
    """Whether it is an error of `refusal`'s, and waiting may help."""
    return error.details is not None and "plan" in error.details


class _Room:
    """What is left of the limits as runtimes are taken away one by one."""

    def __init__(self, needed_bytes: int, limits: Limits, loads: Sequence[Load]) -> None:
        used = sum(load.memory_bytes for load in loads)
        self._over_bytes = (
            0 if limits.memory_bytes is None else used + needed_bytes - limits.memory_bytes
        )
        self._over_count = 0 if limits.runtimes is None else len(loads) + 1 - limits.runtimes

    @property
    def enough(self) -> bool:
        return self._over_bytes <= 0 and self._over_count <= 0

    @property
    def missing_bytes(self) -> int:
        return max(0, self._over_bytes)

    @property
    def missing_runtimes(self) -> int:
        return max(0, self._over_count)

    def free(self, load: Load) -> None:
        self._over_bytes -= load.memory_bytes
        self._over_count -= 1

    def free_until_enough(self, candidates: Sequence[Load]) -> list[Load]:
        taken: list[Load] = []
        for load in candidates:
            if self.enough:
                break
            self.free(load)
            taken.append(load)
        return taken


def _needed_only(
    needed_bytes: int, limits: Limits, loads: Sequence[Load], evicted: list[Load]
) -> list[Load]:
    """Spare what the last and largest ones made needless, the most recently used first."""
    kept = list(evicted)
    for load in reversed(evicted):
        trial = [one for one in kept if one is not load]
        gone = {id(one) for one in trial} | {id(one) for one in loads if one.stopping}
        left = [one for one in loads if id(one) not in gone]
        if _Room(needed_bytes, limits, left).enough:
            kept = trial
    return kept


def _obstacle(load: Load, asks: Claimant) -> Obstacle:
    return Obstacle(
        load.instance_key,
        load.name,
        load.memory_bytes,
        [lease.holder(asks) for lease in load.leases],
    )


def _mib(size: int) -> int:
    return -(-size // 2**20)


def _details(told: EnsurePlan) -> JsonObject:
    plain: JsonObject = msgspec.to_builtins(told)
    return {"plan": plain}
