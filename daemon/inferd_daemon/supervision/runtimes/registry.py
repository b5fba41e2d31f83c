"""The table of runtimes: what runs, is about to, or ran a while ago, each under its supervisor.

Starts and stops what it is told to. Who holds a runtime, and whether there is room for it, is for
others to say.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack

import trio

from ...errors import RequestError
from ..processes.marked import RUNTIME_VARIABLE
from .blueprint import Blueprint, Former, Hooks
from .machine import SERVING, WITH_PROCESS, State
from .managed import Managed
from .supervisor import Supervisor

KEPT_ENDED = 32
"""Runtimes that ended and nobody configured are kept for their logs and last error, so many."""


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
        runtime.kept_bytes = None
        runtime.stops += 1
        runtime.supervisor.stop()
        self._tell(runtime)

    async def restart(self, runtime: Managed, hold: AbstractContextManager[None]) -> None:
        """End one that occupies its place and have it run anew, held meanwhile, its place kept for
        its next process; waits until it is started again.

        Once asked for it is seen through, whether or not the caller goes on waiting: a runtime
        that others hold does not stay stopped. Whoever stops it in between has the last word.
        Raises RequestError (`timeout`) where it does not end.
        """
        assert self._nursery is not None
        assert runtime.occupies
        held = ExitStack()
        held.enter_context(hold)
        kept = runtime.memory_bytes
        self.stop(runtime)
        runtime.kept_bytes = kept
        done = trio.Event()
        self._nursery.start_soon(self._start_again, runtime, runtime.stops, held, done)
        await done.wait()
        if runtime.leaving:
            raise runtime.not_ended()

    async def _start_again(
        self, runtime: Managed, asked: int, held: ExitStack, done: trio.Event
    ) -> None:
        """Once its process has ended, unless it was asked to stop once more."""
        try:
            with held:
                with trio.move_on_after(runtime.end_allowance_s):
                    while not runtime.wanted and runtime.state in WITH_PROCESS:
                        await self._changed.wait()
                if runtime.stops != asked:
                    return
                kept, runtime.kept_bytes = runtime.kept_bytes, None
                if runtime.state in WITH_PROCESS or self._table.get(runtime.key) is not runtime:
                    self._tell(runtime)  # its place is free once it has ended after all
                    return
                if runtime.estimated_bytes is None:
                    runtime.estimated_bytes = kept  # nobody has looked at the model's file
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
