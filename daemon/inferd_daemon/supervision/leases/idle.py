"""Stops runtimes that nobody has held for their idle TTL; at once those whose start nobody awaits.

A runtime that is held is never stopped here.
"""

import structlog
import trio

from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from .keeper import LeaseKeeper

_log = structlog.get_logger(__name__)


class Idling:
    """Keep `run` running, and tell `unheld` of each runtime whose last lease ended."""

    def __init__(self, runtimes: Runtimes, keeper: LeaseKeeper) -> None:
        self._runtimes = runtimes
        self._keeper = keeper
        self._moved = trio.Event()
        self._sleeps_until = float("inf")

    def unheld(self, key: str) -> None:
        """Nobody holds the runtime any more: its time begins to run."""
        runtime = self._runtimes.get(key)
        if runtime is not None:
            now = self._keeper.now()
            runtime.last_used = runtime.idle_since = now
            if _fell_before_ready(runtime):
                self._runtimes.stop(runtime)
            elif runtime.occupies:
                self._watch(runtime, now)
            self._runtimes.retire(runtime)
        # Who waits for room looks again.
        self._runtimes.stir()

    def left_s(self, runtime: Managed) -> float | None:
        """Seconds until it is stopped; None where it is held, or stays for ever."""
        ttl = runtime.blueprint.idle_ttl_s
        since = runtime.idle_since
        if ttl is None or since is None or not runtime.wanted or self._keeper.held(runtime.key):
            return None
        return max(0.0, since + ttl - self._keeper.now())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stop what has been idle for long enough, until cancelled."""
        task_status.started()
        while True:
            self._moved = trio.Event()
            left = self._stop_the_idle()
            self._sleeps_until = self._keeper.now() + left
            with trio.move_on_after(left):
                await self._moved.wait()

    def _stop_the_idle(self) -> float:
        """Seconds until there is something to do again."""
        next_s = float("inf")
        for runtime in self._runtimes:
            left = self.left_s(runtime)
            if left is None:
                continue
            if left > 0:
                next_s = min(next_s, left)
                continue
            _log.info("runtime idle, stopping", runtime=runtime.blueprint.name)
            self._runtimes.stop(runtime)
        return next_s

    def _watch(self, runtime: Managed, now: float) -> None:
        ttl = runtime.blueprint.idle_ttl_s
        if ttl is not None and now + ttl < self._sleeps_until:
            self._moved.set()


def _fell_before_ready(runtime: Managed) -> bool:
    """Its first process ended before it was ready, and who waited for it was told."""
    restarts = runtime.supervisor.machine.restarts
    return runtime.wanted and not runtime.was_ready and restarts > runtime.restarts_before
