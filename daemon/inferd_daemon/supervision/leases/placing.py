"""Finds a place for a runtime: starts it, has idle ones go first, waits, or refuses with the plan.

The plan is that of `room_queue`; this carries it out. A runtime that is held is never stopped here.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog
import trio

from inferd_proto import EnsurePlan

from ...engines.base import EngineFailure
from ...engines.failures import Cause, failure
from ..runtimes.blueprint import Blueprint
from ..runtimes.machine import State
from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from ..runtimes.start_failure import start_failure
from .eviction import Admit, AwaitStopping, Evict, Limits, Load, Refuse, refusal, to_wire
from .keeper import LeaseKeeper
from .lease import Claimant
from .room_queue import Place, RoomQueue, Wants, plan_in_turn, whose_turn
from .socket_access import former_of
from .waiting_room import WaitingRoom

_log = structlog.get_logger(__name__)


class _Situation(NamedTuple):
    """The limits, less what resident runtimes take of them, and what competes for the rest: what
    is there, and what those who came earlier wait for.
    """

    limits: Limits
    loads: list[Load]
    ahead: Iterable[Load] = ()


class _Ending:
    """One caller's patience with runtimes that were asked to end: each has its time, no more."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._until: dict[Managed, float] = {}

    async def wait(self, ending: Sequence[Managed]) -> None:
        """Wait for the next change. Raises RequestError (`timeout`) once all are overdue."""
        now = trio.current_time()
        self._until = {
            runtime: self._until.get(runtime, now + runtime.end_allowance_s) for runtime in ending
        }
        last = max(self._until, key=self._until.__getitem__)
        with trio.CancelScope(deadline=self._until[last]) as patience:
            await self._runtimes.wait_changed()
        if patience.cancelled_caught:
            raise last.not_ended()


class Placing:
    """Admission of runtimes under `limits`. Keep `run` running: who waits for room sleeps on it."""

    def __init__(self, runtimes: Runtimes, keeper: LeaseKeeper, limits: Limits) -> None:
        self._runtimes = runtimes
        self._keeper = keeper
        self.limits = limits
        self._queue = RoomQueue()
        self._room = WaitingRoom()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake those whose turn has come, once for all that has changed meanwhile."""
        task_status.started()
        while True:
            await self._runtimes.wait_changed()
            if len(self._room):
                limits, loads, _ = self._situation()
                self._room.wake(whose_turn(limits, loads, self._everybody(loads)))

    def end_waiting(self, why: str) -> None:
        """From now on nobody waits for room; starts that are under way go on."""
        self._room.close(why)
        self._runtimes.stir()

    async def place(
        self, blueprint: Blueprint, asks: Claimant, *, wait_until: float = 0.0
    ) -> Managed:
        """The runtime of `blueprint`, running or on its way.

        Where held runtimes are in the way it waits until `wait_until` (trio's clock), behind those
        who came earlier. The caller holds the key already. Raises RequestError: the refusal, a
        model that is not there, `timeout` where what was asked to end does not, `queue_full` where
        too many of one user wait, `backend_unavailable` where nobody may wait any more.
        """
        runtime = self._runtimes.get(blueprint.instance_key)
        if runtime is not None and runtime.wanted:
            return runtime
        needed = await self.estimate(blueprint)
        wants = Wants(blueprint.instance_key, blueprint.name, needed)
        if blueprint.weightless:
            return await self._place(blueprint, Place(0, wants), asks, wait_until)
        try:
            with self._queue.joined(wants) as place:
                return await self._place(blueprint, place, asks, wait_until)
        finally:
            if len(self._queue):
                self._runtimes.stir()  # the next one's turn

    async def _place(
        self, blueprint: Blueprint, place: Place, asks: Claimant, wait_until: float
    ) -> Managed:
        ending = _Ending(self._runtimes)
        while True:
            runtime = self._runtimes.get(blueprint.instance_key)
            if runtime is not None and runtime.wanted:
                return runtime
            if runtime is not None and runtime.restarting:
                await ending.wait([runtime])
            elif runtime is not None and runtime.state is State.DRAINING:
                self._room.require_open()
                await ending.wait([runtime])
            elif await self._make_room(blueprint, place, asks, wait_until, ending):
                # No checkpoint since the plan: nobody else took the room.
                runtime = self._entered(blueprint)
                runtime.estimated_bytes = place.wants.needed_bytes
                self._runtimes.start(runtime)
                return runtime

    def _entered(self, blueprint: Blueprint) -> Managed:
        """In the table, as this caller wants it: what leaves the instance key alone, such as its
        deadlines, may be other than that of an earlier run.
        """
        runtime = self._runtimes.get(blueprint.instance_key)
        if runtime is None:
            return self._runtimes.add(blueprint)
        if runtime.blueprint.route is None and runtime.blueprint.to_json() != blueprint.to_json():
            return self._runtimes.renew(runtime, blueprint, former_of(runtime))
        return runtime

    async def estimate(self, blueprint: Blueprint) -> int:
        """Bytes that a runtime would take. Raises RequestError where it cannot be started."""
        try:
            return await blueprint.estimate()
        except EngineFailure as error:
            raise start_failure(blueprint.name, error.failure) from error
        except OSError as error:
            why = failure(Cause.NO_PROCESS, error.strerror or str(error))
            raise start_failure(blueprint.name, why) from error

    async def tell(self, blueprint: Blueprint, asks: Claimant) -> EnsurePlan:
        """What `place` would do; changes nothing. Raises RequestError as `estimate` does."""
        runtime = self._runtimes.get(blueprint.instance_key)
        if runtime is not None and runtime.wanted:
            return EnsurePlan(
                verdict="running",
                needed_bytes=runtime.memory_bytes,
                free_bytes=self._free_bytes(),
            )
        needed = await self.estimate(blueprint)
        limits, loads, ahead = self._situation(blueprint)
        verdict = plan_in_turn(needed, limits, loads, ahead)
        return to_wire(verdict, needed, limits, loads, asks)

    async def _make_room(
        self,
        blueprint: Blueprint,
        place: Place,
        asks: Claimant,
        wait_until: float,
        ending: "_Ending",
    ) -> bool:
        """True where there is room now; False where things have changed and are to be seen anew."""
        needed = place.wants.needed_bytes
        limits, loads, ahead = self._situation(blueprint, place)
        verdict = plan_in_turn(needed, limits, loads, ahead)
        match verdict:
            case Admit():
                return True
            case AwaitStopping(going):
                self._room.require_open()
                found = [self._runtimes.get(load.instance_key) for load in going]
                await ending.wait([runtime for runtime in found if runtime is not None])
            case Evict(evicted):
                for load in evicted:
                    self._evict(load.instance_key)
            case Refuse(blocked_by=blocking):
                refused = refusal(to_wire(verdict, needed, limits, loads, asks))
                if not blocking:
                    raise refused  # it is larger than the limits: no waiting helps
                if wait_until <= trio.current_time():
                    raise refused
                if not await self._room.wait(place.number, asks, wait_until):
                    raise refused
        return False

    def _evict(self, key: str) -> None:
        runtime = self._runtimes.get(key)
        if runtime is not None and not self._keeper.held(key):
            _log.info("runtime evicted", runtime=runtime.blueprint.name, instance_key=key)
            self._runtimes.stop(runtime)

    def _situation(self, asked: Blueprint | None = None, place: Place | None = None) -> _Situation:
        if asked is not None and asked.weightless:
            return _Situation(Limits(memory_bytes=None, runtimes=None), [])
        now = self._keeper.now()
        memory, count = self.limits
        loads: list[Load] = []
        for runtime in self._runtimes:
            if not runtime.occupies or runtime.blueprint.weightless:
                continue
            if runtime.blueprint.resident:
                memory = None if memory is None else max(0, memory - runtime.memory_bytes)
                continue
            loads.append(
                Load(
                    runtime.key,
                    runtime.blueprint.name,
                    runtime.memory_bytes,
                    runtime.last_used,
                    self._keeper.table.holders(now, runtime.key),
                    stopping=runtime.leaving,
                )
            )
        started = _started(loads)
        if asked is not None:
            started.add(asked.instance_key)  # nobody waits for itself
        return _Situation(Limits(memory, count), loads, self._ahead(place, started))

    def _ahead(self, place: Place | None, started: set[str]) -> Iterator[Load]:
        for one in self._queue.ahead_of(place):
            waiting = None if one.instance_key in started else self._waiting(one)
            # One that nobody holds any more is about to leave the queue.
            if waiting is not None and waiting.pinned:
                yield waiting

    def _everybody(self, loads: Sequence[Load]) -> Iterator[tuple[Place, Load | None]]:
        started = _started(loads)
        for place in self._queue:
            waiting = None if place.wants.instance_key in started else self._waiting(place.wants)
            yield place, waiting if waiting is not None and waiting.pinned else None

    def _waiting(self, wants: Wants) -> Load:
        """What it is going to be, held by whoever waits for it."""
        key, name, needed = wants
        now = self._keeper.now()
        holders = self._keeper.table.holders(now, key)
        return Load(key, f"{name} (waiting)", needed, now, holders)

    def _free_bytes(self) -> int | None:
        limits, loads, _ = self._situation()
        if limits.memory_bytes is None:
            return None
        return max(0, limits.memory_bytes - sum(load.memory_bytes for load in loads))


def _started(loads: Iterable[Load]) -> set[str]:
    return {load.instance_key for load in loads if not load.stopping}
