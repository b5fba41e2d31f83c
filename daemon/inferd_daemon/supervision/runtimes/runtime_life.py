"""One runtime's life, again and again: from being asked to start until it is ended for good.

What processes and attached services have in common: the view that others have, and the loop that
carries out what the machine decides. How one life is lived is for the kinds to say.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from ...backends.base import Readiness
from ...backends.runtime import Endpoint, ModelFacts
from ...engines.base import EngineFailure, Health, Service
from ...engines.failures import Failure
from ..processes.logs import RuntimeLog
from .backoff import RestartPolicy
from .machine import (
    SETTLED,
    Action,
    KillProcess,
    RuntimeMachine,
    SpawnProcess,
    State,
    StopProcess,
    WaitBackoff,
)
from .status import RuntimeStatus, describe_readiness

if TYPE_CHECKING:
    from ..processes.process import Process

LASTING_FACTOR = 5
"""So much longer is the rest of one that failed for a cause which hardly passes by itself: yet a
file may come, and memory become free."""
_log = structlog.get_logger(__name__)


class RuntimeLife(ABC):
    """One runtime under supervision; also the `Runtime` that its backend sees.

    `held` tells whether someone holds the runtime, so that it is restarted at once. `on_change` is
    told of each change of its state or process; it must not call back. With `revive_after_s`, a
    runtime that failed is tried again after that many seconds, after longer ones where another
    start will hardly help: for one that nobody will ask to start.
    """

    def __init__(
        self,
        engine: Service,
        log: RuntimeLog,
        *,
        policy: RestartPolicy | None = None,
        held: Callable[[], bool] = lambda: False,
        chance: Callable[[], float] = random.random,
        on_change: Callable[[], None] = lambda: None,
        revive_after_s: float | None = None,
    ) -> None:
        self.engine = engine
        self.log = log
        self.machine = RuntimeMachine(policy)
        self.process: Process | None = None
        """None where none runs, and for ever where someone else runs it."""
        self.last_returncode: int | None = None
        """Of the last process that ended; None where none has yet."""
        self.on_ending: Callable[[], bool] = lambda: False
        """Closes the daemon's own streams to it, before it is asked to end; whether it had any."""
        self._on_change = on_change
        self._held = held
        self._chance = chance
        self._revive_after_s = revive_after_s
        self._facts: ModelFacts | None = None
        self._since = 0.0
        self._ready_since: float | None = None
        """Since when this life has been, or was, ready for the first time; None before."""
        self._next: SpawnProcess | WaitBackoff | None = None
        self._wake = trio.Event()
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"{self.engine.name}: {self.machine!r}"

    # -- what others see -------------------------------------------------------------------

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; the same over restarts."""
        return self.engine.endpoint

    @property
    def facts(self) -> ModelFacts | None:
        """What the model is; None until it was ready once."""
        return self._facts

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self.machine.state

    def readiness(self) -> Readiness:
        """Whether requests may be sent, else why not, in words for a client."""
        return describe_readiness(self.engine.name, self.machine)

    def status(self) -> RuntimeStatus:
        """A snapshot; call it in the trio thread."""
        last = self.machine.last_failure
        return RuntimeStatus(
            name=self.engine.name,
            state=self.state.value,
            pid=self.process.pid if self.process else None,
            restarts=self.machine.restarts,
            in_state_s=trio.current_time() - self._since,
            last_error=last.reason if last else None,
            facts=self._facts,
        )

    async def wait_changed(self) -> None:
        """Wait for the next change of state."""
        await self._changed.wait()

    async def wait_settled(self) -> Readiness:
        """Wait while it starts or restarts; the caller sets the deadline."""
        while self.state not in SETTLED:
            await self._changed.wait()
        return self.readiness()

    # -- what others ask -------------------------------------------------------------------

    def start(self) -> None:
        """Have it run. One that failed gets another chance, one that waits to restart goes at once.

        Asked while it is draining it does nothing: wait for `stopped` first, as `restart` does.
        """
        self._do(self.machine.start())

    def stop(self) -> None:
        """Have it end and stay ended; it is gone when its state is `stopped`."""
        self._do(self.machine.stop())

    async def restart(self) -> None:
        """End it, if it runs, and start it again; returns when it is starting."""
        self.stop()
        while self.state is not State.STOPPED:
            await self._changed.wait()
        self.start()

    # -- what a kind of runtime brings ----------------------------------------------------------

    @abstractmethod
    async def _live(self) -> None:
        """One life, from its start until `_ended` was told why; also when it is cancelled."""

    @abstractmethod
    def _end(self, action: StopProcess | KillProcess) -> None:
        """Have the present life end; returns at once."""

    # -- the loop --------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the runtime until cancelled; it waits for `start`. Cancelled, it ends the runtime."""
        self._since = trio.current_time()
        task_status.started()
        while True:
            self._wake = wake = trio.Event()
            action, self._next = self._next, None
            if isinstance(action, SpawnProcess):
                await self._live()
            elif isinstance(action, WaitBackoff):
                with trio.move_on_after(action.seconds):
                    await wake.wait()
                if not wake.is_set() and self.state is State.RESTARTING:
                    self._do(self.machine.backoff_over())
            else:
                with trio.move_on_after(self._revive_in_s()):
                    await wake.wait()
                if not wake.is_set():
                    self.start()

    def _revive_in_s(self) -> float:
        failed = self.machine.last_failure
        if self.state is not State.FAILED or failed is None or self._revive_after_s is None:
            return math.inf
        return self._revive_after_s * (1 if failed.passing else LASTING_FACTOR)

    def _do(self, actions: list[Action]) -> None:
        """Carry out, here or in the loop, and let everyone see the new state."""
        for action in actions:
            if isinstance(action, SpawnProcess | WaitBackoff):
                self._next = action
            else:
                self._end(action)
        if self._ready_since is None and self.machine.serving:
            self._ready_since = trio.current_time()
        self._wake.set()
        self._changed.set()
        self._changed = trio.Event()
        self._on_change()

    def _ended(self, explained: Failure) -> None:
        now, chance = trio.current_time(), self._chance()
        ready_since, self._ready_since = self._ready_since, None
        served_s = None if ready_since is None else now - ready_since
        held = self._held()
        self._do(self.machine.exited(explained, now, chance, held=held, served_s=served_s))
        self._since = now
        if self.state in (State.RESTARTING, State.FAILED):
            why = self.machine.last_failure or explained
            _log.warning(
                "runtime lost",
                runtime=self.engine.name,
                state=self.state.value,
                cause=why.cause.value,
                reason=why.reason,
                restarts=self.machine.restarts,
            )

    async def _learn(self) -> ModelFacts:
        try:
            return await self.engine.learn()
        except EngineFailure as error:
            _log.warning("runtime not described", runtime=self.engine.name, reason=str(error))
            return self._facts or ModelFacts()

    def _looked(self, health: Health) -> None:
        before = self.state
        self._do(self.machine.looked(health))
        if self.state is not before:
            self._since = trio.current_time()
            if before is not State.STARTING:
                _log.warning("runtime health", runtime=self.engine.name, state=self.state.value)
