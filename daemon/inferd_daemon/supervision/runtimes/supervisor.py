"""The owner of one process: carries out what its machine decides, and tells it what happened.

A thin loop. One task, `run`, owns the process from spawn to reap; whoever cancels it gets the
process ended first.
"""

import contextlib
import os
import random
from collections.abc import Callable, Mapping

import msgspec
import structlog
import trio

from ...backends.runtime import ModelFacts
from ...engines.base import Engine, EngineFailure, Health
from ...engines.failures import Cause, Failure, describe_exit, failure
from ..kv.keeper import KvKeeper
from ..processes.logs import RuntimeLog
from ..processes.marked import RUNTIME_VARIABLE
from ..processes.orphans import end_orphans
from ..processes.process import Process, spawn
from ..processes.tie import known_tie, learn_tie
from ..processes.work import Work
from .backoff import RestartPolicy
from .machine import KillProcess, State, StopProcess
from .readiness import Stalled, wait_ready, watch_health
from .runtime_life import RuntimeLife

LET_GO_S = 0.25
"""So long a process is given to let go of streams that were closed; it takes milliseconds."""
LOG_POLL_S = 0.5
"""How late a line of a runtime's log may be seen by who follows it."""

_log = structlog.get_logger(__name__)


class Supervisor(RuntimeLife):
    """One runtime that is a process of ours. `marks` are added to the environment of each.

    `kv` carries what it remembers over its stops.
    """

    engine: Engine

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
        kv: KvKeeper | None = None,
    ) -> None:
        super().__init__(
            engine,
            log,
            policy=policy,
            held=held,
            chance=chance,
            on_change=on_change,
            revive_after_s=revive_after_s,
        )
        self._marks = dict(marks or {})
        self._kv = kv
        self._life: trio.Nursery | None = None
        self._adopted: Process | None = None
        self._lets_go = False

    def adopt(self, process: Process, facts: ModelFacts | None = None) -> None:
        """Have `run` begin with a process of the daemon's former self.

        With `facts` it was serving a moment ago, and counts as such; else it has yet to be ready.
        """
        self._adopted = self.process = process
        self.log.resume()
        actions = self.machine.adopt()
        if facts is not None:
            self._facts = facts
            actions += self.machine.looked(Health.HEALTHY)
        self._do(actions)

    def let_go(self) -> None:
        """From here on, `run` when cancelled leaves its process to the daemon's next self."""
        self._lets_go = True

    async def run(
        self,
        *,
        adopted: Process | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Own the runtime until cancelled. Without `adopted`, a process, it waits for `start`.

        When cancelled it ends the process, by force after the engine's stop timeout.
        """
        if adopted is not None:
            self.adopt(adopted)
        if self._adopted is None:
            await super().run(task_status=task_status)
            return
        task_status.started()
        process, self._adopted = self._adopted, None
        await self._own(process)
        await super().run()

    async def _live(self) -> None:
        if self.state is State.DRAINING:  # stopped before it was spawned
            self._ended(failure(Cause.EXITED, "never started"))
            return
        self.last_returncode = None
        self.log.begin_run()
        try:
            process = self._spawn()
        except EngineFailure as error:
            self.engine.discard()
            self._ended(error.failure)
            await trio.lowlevel.checkpoint()
            return
        _log.info("runtime started", runtime=self.engine.name, pid=process.pid)
        await self._own(process)

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
            process = spawn(launch, log_fd=log_fd, tie=known_tie(launch.argv[0]))
        finally:
            os.close(log_fd)
        self.engine.spawned()
        return process

    async def _own(self, process: Process) -> None:
        """Look after one process from its spawn until it is reaped and its traces are gone."""
        self.process = process
        self._since = trio.current_time()
        self._on_change()
        try:
            async with trio.open_nursery() as nursery:
                self._life = nursery
                if self.state is State.DRAINING:  # asked to stop before it was taken over
                    nursery.start_soon(self._end_process, StopProcess())
                nursery.start_soon(self._look_after, process)
                nursery.start_soon(self._keep_log)
                nursery.start_soon(learn_tie)  # for the next one
                await process.wait()
                nursery.cancel_scope.cancel()
        except* Exception:
            # What nobody foresaw in one runtime must not end the others: it counts as a crash.
            _log.exception("runtime failed unexpectedly", runtime=self.engine.name)
            with trio.CancelScope(shield=True):
                await process.kill()
        finally:
            self._life = None
            if process.returncode is not None or not self._lets_go:
                await self._finish(process)

    async def _finish(self, process: Process) -> None:
        if process.returncode is None:
            self._do(self.machine.stop())
            with trio.CancelScope(shield=True):
                await self._end_process(StopProcess())
        explained = self._bury(process)
        await self._end_orphans()
        self._ended(explained)

    async def _end_orphans(self) -> None:
        """What it started in other sessions does not outlive it."""
        mark = f"{RUNTIME_VARIABLE}={self._marks.get(RUNTIME_VARIABLE, '')}".encode()
        with trio.CancelScope(shield=True), contextlib.suppress(OSError):
            left = await end_orphans(mark)
            if left:
                _log.warning("runtime left processes", runtime=self.engine.name, ended=left)

    def _bury(self, process: Process) -> Failure:
        self.last_returncode = returncode = process.returncode
        lines = self.log.end_run()
        if self._ready_since is not None:
            # From here on its log holds its callers' words: they must neither decide what ended it
            # nor be told to others.
            lines = ()
        explained = self.engine.explain(0 if returncode is None else returncode, lines)
        self.engine.discard()
        if self._kv is not None:
            self._kv.ended()
        process.close()
        self.process = None
        ended = "nothing" if returncode is None else describe_exit(returncode)
        _log.info("runtime ended", runtime=self.engine.name, pid=process.pid, ended_with=ended)
        return explained

    async def _look_after(self, process: Process) -> None:
        if not self.machine.serving:
            if not await self._become_ready(process):
                return
        elif self._kv is not None:
            await self._kv.adopted(process)
        await watch_health(self.engine, self._looked)

    async def _become_ready(self, process: Process) -> bool:
        begun = trio.current_time()
        allowed = self.engine.timing.ready_timeout_s
        try:
            with trio.move_on_after(allowed) as loading:
                seen = await wait_ready(self.engine, Work(process.pid).went_on)
                self._facts = await self._learn()
        except Stalled:
            self._do(self.machine.stalled())
            return False
        if loading.cancelled_caught:
            self._do(self.machine.not_ready_in_time(allowed))
            return False
        if self._kv is not None:
            # Before anybody's request has taken a slot.
            await self._kv.ready(process)
            # A cache that it did not survive must not be taken for a runtime that serves.
            with trio.move_on_after(allowed):
                await wait_ready(self.engine)
        # One step to others: what is degraded from the start has been ready.
        self._do(self.machine.looked(Health.HEALTHY) + self.machine.looked(seen))
        self._since = trio.current_time()
        seconds = round(trio.current_time() - begun, 3)
        _log.info("runtime ready", runtime=self.engine.name, seconds=seconds)
        return True

    async def _keep_log(self) -> None:
        while True:
            await trio.sleep(LOG_POLL_S)
            await self.log.maintain()

    def _end(self, action: StopProcess | KillProcess) -> None:
        if self._life is not None:
            self._life.start_soon(self._end_process, action)

    async def _end_process(self, action: StopProcess | KillProcess) -> None:
        process = self.process
        if process is None:
            return
        try:
            if isinstance(action, KillProcess):
                await process.kill()
            else:
                if self.on_ending():
                    with trio.move_on_after(LET_GO_S):
                        await self.engine.rest()
                if self._kv is not None:
                    await self._kv.ending(process)
                await process.stop(self.engine.timing.stop_timeout_s)
        except EngineFailure as error:
            _log.error("runtime does not end", runtime=self.engine.name, reason=str(error))
