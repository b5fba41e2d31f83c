"""The life of an attached service: seen ready, then looked at again and again while it is held.

Starts, stops and kills nothing: what someone else runs may vanish and come back as it likes.
"""

import structlog
import trio
from msgspec.structs import replace

from ...engines.attached.service import Attachable, Sight
from ...engines.base import EngineFailure, Health
from ...engines.failures import Cause, Failure, failure
from .backoff import RestartPolicy
from .machine import SERVING, KillProcess, State, StopProcess
from .readiness import look
from .runtime_life import RuntimeLife
from .status import RuntimeStatus

RETRIES = RestartPolicy(first_s=0.5, longest_s=10.0, limit=10_000)
"""While it is held, for ever: nothing is started by another try."""
SLOWEST_LOOK_S = 1.0
"""Between two looks at a service that is not there (yet), however long its health interval."""
UNFORESEEN = "internal error in looking at it; the daemon's log has the details"
SILENT = Sight(Health.NO_ANSWER, "it does not answer in time")

_log = structlog.get_logger(__name__)


class Attachment(RuntimeLife):
    """One service under supervision. Its machine's `stopped` means detached."""

    engine: Attachable
    slowest_look_s = SLOWEST_LOOK_S
    _detached = trio.Event()
    _seen: Sight | None = None

    async def _live(self) -> None:
        self._detached = trio.Event()
        why: Failure | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_detached, nursery.cancel_scope)
                why = await self._attach()
                if why is None:
                    await self._watch()
                nursery.cancel_scope.cancel()
        except* Exception:
            # What nobody foresaw in one service must not end the others.
            _log.exception("service failed unexpectedly", runtime=self.engine.name)
            self._seen = SILENT._replace(words=UNFORESEEN)
            why = failure(Cause.SERVICE_UNAVAILABLE, UNFORESEEN)
        finally:
            if why is None and self.state is not State.DRAINING:  # cancelled from outside
                self._do(self.machine.stop())
            self._ended(why or failure(Cause.EXITED, "detached"))

    def _end(self, action: StopProcess | KillProcess) -> None:
        # A service that hangs is not ours to kill: it stays unavailable until it answers.
        if isinstance(action, StopProcess):
            self._detached.set()

    def status(self) -> RuntimeStatus:
        """A snapshot; `last_error` is what is wrong with it now."""
        shown = super().status()
        if self._seen is None or self.state is State.STOPPED:
            return shown
        return replace(shown, last_error=self._seen.words or None)

    async def _cancel_when_detached(self, scope: trio.CancelScope) -> None:
        if self.state is not State.DRAINING:
            await self._detached.wait()
        scope.cancel()

    async def _attach(self) -> Failure | None:
        """None once it was seen ready; else why it will not be, or was not in time."""
        timing = self.engine.timing
        begun = trio.current_time()
        try:
            await self.engine.open()
        except EngineFailure as error:
            return error.failure
        pause_s = timing.readiness_interval_s
        left_s = timing.ready_timeout_s
        while not (sight := await self._look(left_s)).ready:
            left_s = begun + timing.ready_timeout_s - trio.current_time()
            if sight.settled or left_s <= pause_s:
                return failure(sight.cause, sight.words)
            await trio.sleep(pause_s)
            left_s -= pause_s
            pause_s = min(pause_s * 1.5, self.slowest_look_s)
        self._facts = await self._learn()
        # One step to others: a cold model is ready, and degraded from the start.
        self._do(self.machine.looked(Health.HEALTHY) + self.machine.looked(sight.health))
        self._since = trio.current_time()
        seconds = round(self._since - begun, 3)
        _log.info("service attached", runtime=self.engine.name, seconds=seconds)
        return None

    async def _watch(self) -> None:
        interval_s = self.engine.timing.health_interval_s
        while True:
            serving = self.state in SERVING
            await trio.sleep(interval_s if serving else min(interval_s, self.slowest_look_s))
            sight = await self._look(interval_s / 2)
            if sight.ready:
                self._facts = await self._learn()
            self._looked(sight.health)

    async def _look(self, timeout_s: float) -> Sight:
        before = self.engine.sight
        self.engine.sight = None
        await look(self.engine, timeout_s)
        if self.engine.sight is None:
            self.engine.sight = SILENT
        self._seen = sight = self.engine.sight
        if before is None or before != sight:
            self.log.note(f"{sight.health.value}: {sight.words}" if sight.words else "healthy")
        return sight
