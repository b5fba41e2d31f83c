"""The owner of one runtime: carries out what its machine decides, and tells it what happened.

A thin loop. One task, `run`, owns the process from spawn to reap; whoever cancels it gets the
process ended first.
"""

import math
import os
import random
from collections.abc import Callable, Mapping

import msgspec
import structlog
import trio

from ..backends.base import Readiness
from ..backends.runtime import Endpoint, ModelFacts
from ..engines.base import Engine, EngineFailure, Health
from ..engines.failures import Cause, Failure, describe_exit, failure
from .backoff import RestartPolicy
from .logs import RuntimeLog
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
from .process import Process, spawn
from .readiness import wait_ready, watch_health
from .status import RuntimeStatus, describe_readiness

LOG_POLL_S = 0.5
"""How late a line of a runtime's log may be seen by who follows it."""

_log = structlog.get_logger(__name__)


class Supervisor:
    """One runtime under supervision; also the `Runtime` that its backend sees.

    `marks` are added to the environment of every process. `held` tells whether someone holds
    the runtime, so that it is restarted at once. `on_change` is told of each change of its state
    or process; it must not call back. With `revive_after_s`, a runtime that failed for a passing
    cause is tried again after that many seconds: for one that nobody will ask to start.
    """

    def __init__(
        self,
        engine: Engine,
        log: RuntimeLog,
        *,
        policy: RestartPolicy | None = None,
        marks: Mapping[str, str] | None = None,
        held: Callable[[], bool] = lambda: False,
        chance: Callable[[], float] = random.random,
        on_change: Callable[[], None] = lambda: None,
        revive_after_s: float | None = None,
    ) -> None:
        self.engine = engine
        self.log = log
        self.machine = RuntimeMachine(policy)
        self.process: Process | None = None
        self.last_returncode: int | None = None
        """Of the last process that ended; None where none has yet."""
        self._on_change = on_change
        self._marks = dict(marks or {})
        self._held = held
        self._chance = chance
        self._revive_after_s = revive_after_s
        self._facts: ModelFacts | None = None
        self._since = 0.0
        self._next: SpawnProcess | WaitBackoff | None = None
        self._life: trio.Nursery | None = None
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

    # -- the loop --------------------------------------------------------------------------

    async def run(
        self,
        *,
        adopted: Process | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Own the runtime until cancelled. Without `adopted`, a process, it waits for `start`.

        When cancelled it ends the process, by force after the engine's stop timeout.
        """
        self._since = trio.current_time()
        task_status.started()
        if adopted is not None:
            self._do(self.machine.adopt())
            await self._live(adopted)
        while True:
            self._wake = wake = trio.Event()
            action, self._next = self._next, None
            if isinstance(action, SpawnProcess):
                await self._spawn_and_live()
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
        if self.state is not State.FAILED or failed is None or not failed.passing:
            return math.inf
        return math.inf if self._revive_after_s is None else self._revive_after_s

    def _do(self, actions: list[Action]) -> None:
        """Carry out, here or in the loop, and let everyone see the new state."""
        for action in actions:
            if isinstance(action, SpawnProcess | WaitBackoff):
                self._next = action
            elif self._life is not None:
                self._life.start_soon(self._end_process, action)
        self._wake.set()
        self._changed.set()
        self._changed = trio.Event()
        self._on_change()

    async def _spawn_and_live(self) -> None:
        if self.state is State.DRAINING:  # stopped before it was spawned
            self._ended(failure(Cause.EXITED, "never started"))
            return
        try:
            process = self._spawn()
        except EngineFailure as error:
            self.engine.discard()
            self._ended(error.failure)
            await trio.lowlevel.checkpoint()
            return
        _log.info("runtime started", runtime=self.engine.name, pid=process.pid)
        await self._live(process)

    def _spawn(self) -> Process:
        launch = self.engine.prepare()
        launch = msgspec.structs.replace(launch, environment=launch.environment | self._marks)
        try:
            log_fd = self.log.open_for_child()
        except OSError as error:
            raise EngineFailure(
                failure(Cause.NO_PROCESS, f"cannot write {self.log.path}: {error.strerror}")
            ) from error
        try:
            process = spawn(launch, log_fd=log_fd)
        finally:
            os.close(log_fd)
        self.engine.spawned()
        return process

    async def _live(self, process: Process) -> None:
        """Look after one process from its spawn until it is reaped and its traces are gone."""
        self.process = process
        self._since = trio.current_time()
        self._on_change()
        try:
            async with trio.open_nursery() as nursery:
                self._life = nursery
                nursery.start_soon(self._look_after)
                nursery.start_soon(self._keep_log)
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._life = None
            if process.returncode is None:
                self._do(self.machine.stop())
                with trio.CancelScope(shield=True):
                    await self._end_process(StopProcess())
            self._ended(self._bury(process))

    def _bury(self, process: Process) -> Failure:
        self.last_returncode = returncode = process.returncode
        lines = self.log.end_run()
        explained = self.engine.explain(0 if returncode is None else returncode, lines)
        self.engine.discard()
        process.close()
        self.process = None
        ended = "nothing" if returncode is None else describe_exit(returncode)
        _log.info("runtime ended", runtime=self.engine.name, pid=process.pid, ended_with=ended)
        return explained

    def _ended(self, explained: Failure) -> None:
        now, chance = trio.current_time(), self._chance()
        self._do(self.machine.exited(explained, now, chance, at_once=self._held()))
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

    async def _look_after(self) -> None:
        begun = trio.current_time()
        allowed = self.engine.timing.ready_timeout_s
        with trio.move_on_after(allowed) as loading:
            await wait_ready(self.engine)
            self._facts = await self._learn()
        if loading.cancelled_caught:
            self._do(self.machine.not_ready_in_time(allowed))
            return
        self._looked(Health.HEALTHY)
        seconds = round(trio.current_time() - begun, 3)
        _log.info("runtime ready", runtime=self.engine.name, seconds=seconds)
        await watch_health(self.engine, self._looked)

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

    async def _keep_log(self) -> None:
        while True:
            await trio.sleep(LOG_POLL_S)
            await self.log.maintain()

    async def _end_process(self, action: StopProcess | KillProcess) -> None:
        process = self.process
        if process is None:
            return
        try:
            if isinstance(action, KillProcess):
                await process.kill()
            else:
                await process.stop(self.engine.timing.stop_timeout_s)
        except EngineFailure as error:
            _log.error("runtime does not end", runtime=self.engine.name, reason=str(error))
