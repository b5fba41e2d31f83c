"""The table of runtimes: what runs, is about to, or ran a while ago, each under its supervisor.

Starts and stops what it is told to. Who holds a runtime, and whether there is room for it, is for
others to say.
"""

import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import trio

from inferd_proto import ErrorCode, RuntimeState
from inferd_proto import Runtime as WireRuntime

from ...errors import RequestError
from ..processes.marked import RUNTIME_VARIABLE
from ..processes.memory import resident_bytes
from .blueprint import Blueprint, Former, Hooks
from .machine import SERVING, WITH_PROCESS, State
from .runtime_life import RuntimeLife
from .supervisor import Supervisor

END_SLACK_S = 10.0
"""Above a runtime's own stop timeout: what the kernel takes to let go of it."""
KEPT_ENDED = 32
"""Runtimes that ended and nobody configured are kept for their logs and last error, so many."""


class Managed:
    """One runtime with what the daemon knows of it beside its process.

    `wanted` from its admission until it is asked to stop or is given up. `refusal` is why its
    start was not even tried, or was called off. `idle_since` is None while it is held, or was
    never.
    """

    def __init__(self, blueprint: Blueprint, supervisor: RuntimeLife, now: float) -> None:
        self.blueprint = blueprint
        self.supervisor = supervisor
        self.scope = trio.CancelScope()
        self.estimated_bytes: int | None = None
        self.wanted = False
        self.was_ready = False
        self.refusal: RequestError | None = None
        self.last_used = now
        self.idle_since: float | None = None
        self.restarts_before = 0
        """How often it had been restarted when it was admitted last."""
        self.stops = 0
        """How often it was asked to end."""
        self.noted_pid: int | None = None
        """Of the process that the journal knows of."""
        self.told = ""
        """What the last published change said of it."""

    def __repr__(self) -> str:
        return f"{self.key} ({self.supervisor!r})"

    @property
    def key(self) -> str:
        """Its instance key."""
        return self.blueprint.instance_key

    @property
    def state(self) -> State:
        """Where its machine stands."""
        return self.supervisor.state

    @property
    def occupies(self) -> bool:
        """Whether it has memory and a place, or is about to."""
        return self.wanted or self.state in WITH_PROCESS

    @property
    def end_allowance_s(self) -> float:
        """How long its end may take once it was asked to end."""
        return self.supervisor.engine.timing.stop_timeout_s + END_SLACK_S

    def not_ended(self) -> RequestError:
        """The error (`timeout`) for who waited so long for its end."""
        process = self.supervisor.process
        which = "" if process is None else f" (pid {process.pid})"
        return RequestError(
            ErrorCode.TIMEOUT,
            f"{self.blueprint.name}{which} was asked to end and has not after "
            f"{self.end_allowance_s:g} s: stop it once more, by force, or see what its process "
            "waits for",
        )

    @property
    def memory_bytes(self) -> int:
        """The larger of what was estimated and what is seen."""
        process = self.supervisor.process
        seen = resident_bytes(process.pid) if process is not None else 0
        return max(seen, self.estimated_bytes or 0)

    def kill(self) -> None:
        """SIGKILL to its process; its supervisor has it reaped."""
        process = self.supervisor.process
        if process is not None:
            process.signal_group(signal.SIGKILL)

    def to_wire(self, leases: int, idle_left_s: float | None) -> WireRuntime:
        """What `runtime.list` shows."""
        status = self.supervisor.status()
        process = self.supervisor.process
        return WireRuntime(
            instance_key=self.key,
            name=self.blueprint.name,
            engine=self.blueprint.manifest.backend,
            state=RuntimeState(self.shown_state.value),
            health=describe_health(self.state),
            pid=status.pid,
            memory_bytes=resident_bytes(process.pid) if process is not None else None,
            estimated_bytes=self.estimated_bytes,
            leases=leases,
            idle_left_ms=None if idle_left_s is None else int(idle_left_s * 1000),
            endpoint=repr(self.supervisor.endpoint) or None,
            restarts=status.restarts,
            last_error=status.last_error,
            model_identity=self.blueprint.model_identity,
        )

    @property
    def shown_state(self) -> State:
        """Between its admission and its first process it is starting, to all the world."""
        return State.STARTING if self.wanted and self.state is State.STOPPED else self.state


def describe_health(state: State) -> str:
    """The last verdict of the health checks: healthy, degraded, unavailable or unknown."""
    return {
        State.READY: "healthy",
        State.DEGRADED: "degraded",
        State.UNAVAILABLE: "unavailable",
    }.get(state, "unknown")


class Runtimes:
    """All runtimes of the daemon by instance key.

    `held` tells whether a key is leased, `before_start` is awaited before the first process of a
    start (what it raises becomes the refusal), `on_change` is told of each change. Those of
    `on_ending` close the daemon's own streams to a runtime before it is asked to end, and tell
    whether there were any.
    """

    def __init__(
        self,
        *,
        held: Callable[[str], bool],
        clock: Callable[[], float],
        marks: Mapping[str, str] | None = None,
    ) -> None:
        self.before_start: Callable[[Managed], Awaitable[None]] | None = None
        self.on_change: Callable[[Managed], None] = lambda _runtime: None
        self.on_ending: list[Callable[[str], bool]] = []
        self._held = held
        self._clock = clock
        self._marks = marks or {}
        self._table: dict[str, Managed] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()

    def __iter__(self) -> Iterator[Managed]:
        return iter(list(self._table.values()))

    def __len__(self) -> int:
        return len(self._table)

    def get(self, instance_key: str) -> Managed | None:
        """The runtime, whatever its state; None where there is none."""
        return self._table.get(instance_key)

    def add(self, blueprint: Blueprint, former: Former | None = None) -> Managed:
        """Put a runtime into the table, not started. Raises CallerFault, OperatorError."""
        assert blueprint.instance_key not in self._table
        key = blueprint.instance_key
        hooks = Hooks(
            held=lambda: self._is_missed(key),
            on_change=lambda: self._on_change(key),
            marks={**self._marks, RUNTIME_VARIABLE: key},
        )
        runtime = Managed(blueprint, blueprint.make(hooks, former), self._clock())
        self._table[key] = runtime
        runtime.supervisor.on_ending = lambda: self._ending(key)
        if self._nursery is not None:
            self._nursery.start_soon(self._own, runtime)
        return runtime

    def remove(self, runtime: Managed) -> None:
        """Take it out of the table; a process of it is ended."""
        del self._table[runtime.key]
        self._ended.pop(runtime.key, None)
        runtime.scope.cancel()
        runtime.supervisor.log.stir()

    def renew(self, runtime: Managed, blueprint: Blueprint, former: Former) -> Managed:
        """In place of one that does not run, the same runtime as `blueprint` has it now."""
        assert blueprint.instance_key == runtime.key
        assert not runtime.occupies
        self.remove(runtime)
        return self.add(blueprint, former)

    def start(self, runtime: Managed) -> None:
        """Have an admitted runtime run; returns at once. Its `refusal` says why it did not."""
        runtime.wanted = True
        runtime.was_ready = False
        runtime.refusal = None
        runtime.restarts_before = runtime.supervisor.machine.restarts
        runtime.last_used = self._clock()
        if runtime.state is State.FAILED:
            # What its former start ended with must not be taken for the end of this one.
            runtime.supervisor.stop()
        self._ended.pop(runtime.key, None)
        assert self._nursery is not None
        self._nursery.start_soon(self._begin, runtime)
        self._tell(runtime)

    def stop(self, runtime: Managed, refusal: RequestError | None = None) -> None:
        """Have it end; returns at once. It is gone when it does not `occupy` any more.

        Who waits for its start gets the `refusal`; without one, they have it started again.
        """
        runtime.wanted = False
        runtime.refusal = refusal
        runtime.idle_since = None
        runtime.stops += 1
        runtime.supervisor.stop()
        self._tell(runtime)

    async def restart(self, runtime: Managed, hold: AbstractContextManager[None]) -> None:
        """End it and have it run anew, held meanwhile; waits until it is started again.

        Once asked for it is seen through, whether or not the caller goes on waiting: a runtime
        that others hold does not stay stopped. Whoever stops it in between has the last word.
        Raises RequestError (`timeout`) where it does not end.
        """
        assert self._nursery is not None
        done = trio.Event()
        self._nursery.start_soon(self._restart, runtime, hold, done)
        await done.wait()
        if not runtime.wanted and runtime.occupies:
            raise runtime.not_ended()

    async def _restart(
        self, runtime: Managed, hold: AbstractContextManager[None], done: trio.Event
    ) -> None:
        try:
            with hold:
                if runtime.occupies:
                    self.stop(runtime)
                    asked = runtime.stops
                    with trio.move_on_after(runtime.end_allowance_s):
                        await self.wait_stopped(runtime)
                    if runtime.stops != asked or runtime.occupies:
                        return
                if self._table.get(runtime.key) is runtime and not runtime.wanted:
                    self.start(runtime)
        finally:
            done.set()

    async def wait_stopped(self, runtime: Managed) -> None:
        """Wait until what was asked to end has ended; the caller sets the deadline.

        Several may wait, and the first of them have it started again: that is not theirs to wait
        for.
        """
        while not runtime.wanted and runtime.occupies:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait for the next change of any runtime, or of what holds it."""
        await self._changed.wait()

    def stir(self) -> None:
        """Wake those who wait for a change: what holds a runtime has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own every runtime until cancelled, which ends their processes."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for runtime in self:
                nursery.start_soon(self._own, runtime)
            task_status.started()
            await trio.sleep_forever()

    def let_go(self) -> None:
        """From here on, `run` when cancelled leaves processes to the daemon's next self."""
        for runtime in self:
            if isinstance(runtime.supervisor, Supervisor):
                runtime.supervisor.let_go()

    def kill(self) -> None:
        """SIGKILL to every process; who stops one has it reaped the sooner."""
        for runtime in self:
            runtime.kill()

    async def _own(self, runtime: Managed) -> None:
        with runtime.scope:
            await runtime.supervisor.run()
        if self._table.get(runtime.key) is None:
            runtime.blueprint.clean_up()

    async def _begin(self, runtime: Managed) -> None:
        if self.before_start is not None:
            try:
                await self.before_start(runtime)
            except RequestError as error:
                self.stop(runtime, error)
                return
        if runtime.wanted:
            runtime.supervisor.start()

    def _ending(self, key: str) -> bool:
        had = [close_streams(key) for close_streams in self.on_ending]
        return any(had)

    def _is_missed(self, key: str) -> bool:
        """Whether someone works with it; one that never became ready is not missed yet."""
        runtime = self._table.get(key)
        return runtime is not None and runtime.was_ready and self._held(key)

    def _on_change(self, key: str) -> None:
        runtime = self._table.get(key)
        if runtime is None:
            return
        if runtime.state in SERVING:
            runtime.was_ready = True
        elif runtime.state is State.FAILED and not runtime.blueprint.resident:
            runtime.wanted = False
        self._tell(runtime)
        self.retire(runtime)

    def _tell(self, runtime: Managed) -> None:
        self.stir()
        self.on_change(runtime)

    def retire(self, runtime: Managed) -> None:
        """Keep a runtime that ended for its log and last error, but not for ever.

        Nothing while it runs or is held, or where the configuration names it.
        """
        key = runtime.key
        if runtime.occupies or self._held(key):
            return
        if isinstance(runtime.supervisor, Supervisor):
            runtime.supervisor.engine.forget_address()
        if runtime.blueprint.route is not None:
            return
        self._ended[runtime.key] = None
        self._ended.move_to_end(runtime.key)
        while len(self._ended) > KEPT_ENDED:
            key, _ = self._ended.popitem(last=False)
            oldest = self._table.get(key)
            if oldest is not None and not oldest.occupies and not self._held(key):
                self.remove(oldest)
