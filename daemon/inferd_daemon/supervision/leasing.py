"""Runtimes and leases as one whole: who is told of what, and in which order it starts and ends.

Restores the daemon's former run before it lets anybody in.
"""

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec
import structlog
import trio

from inferd_proto import JsonObject

from ..backends.thread import in_thread
from ..errors import OperatorError, RequestError
from .changes import Changes
from .leases.blueprints import Blueprints, kept_address
from .leases.calls import LeaseCalls
from .leases.ensure import Ensure
from .leases.entrance import Entrance
from .leases.eviction import Limits
from .leases.front_door import FrontDoor
from .leases.idle import Idling
from .leases.journal import (
    Clocks,
    DaemonEntry,
    LeaseEntry,
    Live,
    ProcessEntry,
    RuntimeEntry,
    lease_of,
)
from .leases.journal_file import JournalFile
from .leases.keeper import LeaseKeeper
from .leases.lease import Lease
from .leases.owners import AbsentOwners, owner_ended
from .leases.placing import Placing
from .leases.relay import Relay
from .leases.revival import Revival
from .leases.socket_access import SocketAccess
from .processes.identity import read_boot_id, read_start_ticks
from .runtimes.leftovers import Leftovers
from .runtimes.managed import Managed
from .runtimes.registry import Runtimes
from .succession.handover import Handover
from .succession.reaper import INSTANCE_VARIABLE, reap
from .succession.takeover import end, take_over

RETURN_GRACE_S = 30.0
"""After the daemon's own crash: time for owners of leases without a TTL to come back and renew, and
for others in place of those that ended meanwhile."""
_log = structlog.get_logger(__name__)


class Leasing:
    """Everything of leases that other rooms use. Keep `run` running."""

    def __init__(
        self,
        journal: JournalFile,
        blueprints: Blueprints,
        limits: Limits,
        *,
        socket_group: int | None = None,
        handover: Handover | None = None,
        leftovers: Leftovers | None = None,
    ) -> None:
        # Children bear it in their environment: who takes them over keeps it.
        self.mark = secrets.token_hex(16) if handover is None else handover.mark
        self.boot_id = read_boot_id()
        self.changes = Changes()
        self.blueprints = blueprints
        self.keeper = LeaseKeeper(journal, self.clocks, self.changes)
        self.runtimes = Runtimes(
            held=self.keeper.held, clock=self.keeper.now, marks={INSTANCE_VARIABLE: self.mark}
        )
        self.placing = Placing(self.runtimes, self.keeper, limits)
        self.relay = Relay(self.runtimes)
        access = SocketAccess(socket_group)
        self.ensure = Ensure(self.runtimes, self.keeper, self.placing, access, self.relay)
        self.idling = Idling(self.runtimes, self.keeper)
        self.revival = Revival(self.runtimes, self.keeper, self.placing)
        self.entrance = Entrance(self.keeper)
        self.calls = LeaseCalls()
        self.stopping = False
        """True once the daemon itself drops its clients: their leases wait for the next start."""
        self._journal = journal
        # The former self's are in use: its next self has no time to look for more.
        self._leftovers = leftovers if handover is None else None
        self._handed = [] if handover is None else handover.runtimes
        self._living = frozenset() if handover is None else handover.connections
        self._unread_since = None if handover is None else handover.began
        self.keeper.on_unheld = self._unheld
        self.keeper.on_over = self.calls.end
        self.keeper.on_return = self.revival.hurry
        self.runtimes.before_start = self._before_start
        self.runtimes.on_change = self._on_change
        self._add_configured()

    def _add_configured(self) -> None:
        """With the key and port of the former run: its leases may come back."""
        former = {e.instance_key: e for e in self._journal.entries if isinstance(e, RuntimeEntry)}
        former |= {handed.entry.instance_key: handed.entry for handed in self._handed}
        for blueprint in self.blueprints.configured.values():
            entry = former.get(blueprint.instance_key)
            if self.runtimes.get(blueprint.instance_key) is None:
                self.runtimes.add(blueprint, None if entry is None else kept_address(entry))

    def open_to(self, front: FrontDoor) -> None:
        """From now on leases can be had over HTTP; call it before `run`."""
        self.ensure.front = front

    def clocks(self) -> Clocks:
        """Now, on both clocks."""
        return Clocks(time.monotonic(), time.time(), self.boot_id)

    def connection_closed(self, connection: int) -> None:
        """A client is gone, and what was bound to its connection ends."""
        if not self.stopping:
            self.keeper.connection_closed(connection)

    def describe(self, runtime: Managed) -> JsonObject:
        """A runtime as `runtime.list` shows it."""
        leases = self.keeper.count(runtime.key)
        shown: JsonObject = msgspec.to_builtins(
            runtime.to_wire(leases, self.idling.left_s(runtime))
        )
        return shown

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the journal, the leases and the runtimes until cancelled.

        Started once the former run is cleared away and its leases are back. Cancelled, it ends
        the runtimes; leases with time left stay in the journal.
        """
        async with trio.open_nursery() as outer:
            # Whatever ends still wants to write: the journal goes last.
            journal = trio.CancelScope(shield=True)
            await outer.start(self._keep_journal, journal)
            try:
                async with trio.open_nursery() as nursery:
                    await self._begin(nursery)
                    task_status.started()
            finally:
                journal.cancel()
                with trio.CancelScope(shield=True):
                    await self.relay.aclose()

    async def _keep_journal(
        self,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            with scope:
                await self._journal.run(task_status=task_status)
        finally:
            self._journal.close()

    async def _begin(self, nursery: trio.Nursery) -> None:
        former = self._journal.entries
        taken = take_over(self._handed, self.runtimes, self.blueprints)
        for process in taken.homeless:
            await end(process)
        await self._clear_away(former)
        await nursery.start(self.runtimes.run)
        for runtime in taken.unstarted:
            self.runtimes.start(runtime)
        self._restore(former)
        await self._sweep()
        for runtime in self.runtimes:
            if runtime.blueprint.resident and not runtime.wanted:
                self.runtimes.start(runtime)
        await nursery.start(self.keeper.run)
        await nursery.start(self.placing.run)
        await nursery.start(self.idling.run)
        await nursery.start(self.revival.run)
        nursery.start_soon(AbsentOwners(self.keeper, RETURN_GRACE_S).run)
        nursery.start_soon(self._open_front)

    async def _open_front(self) -> None:
        """Leases of the former run are used over it, whoever asks next."""
        front = self.ensure.front
        if front is None or not any(lease.token_sha256 for lease in self.keeper.table):
            return
        try:
            await front.address()
        except RequestError as error:
            _log.warning("leases cannot be used over HTTP", reason=error.message)

    def hear_nobody(self) -> None:
        """Call it when clients are read no more, for the daemon's next self to read them."""
        self.keeper.stand_still()
        self.placing.end_waiting(
            "the daemon is being upgraded, and nobody waits for room: ask again"
        )

    def end_waiting(self) -> None:
        """Call it when the daemon begins to stop: who waits for room gets none any more."""
        self.placing.end_waiting("the daemon is stopping, and nobody waits for room any more")

    def let_go(self) -> None:
        """The next self of the daemon takes the runtimes over: `run` when cancelled spares them."""
        self.stopping = True
        self.runtimes.let_go()

    # -- the former run --------------------------------------------------------------------

    async def _clear_away(self, former: list[Live]) -> None:
        """End what a former run left. Raises OperatorError where it cannot be looked for."""
        try:
            reaping = await reap(former, boot_id=self.boot_id, own_mark=self.mark)
        except OSError as error:
            raise OperatorError(
                f"cannot look for processes of a former run: {error.strerror}"
            ) from error
        if reaping.ended or reaping.stubborn:
            _log.warning("former run", ended=reaping.ended, stubborn=reaping.stubborn)
        self.keeper.records.forget(*(gone.key for gone in reaping.gone))
        here = os.getpid()
        self.keeper.records.note(DaemonEntry(self.mark, here, read_start_ticks(here), self.boot_id))

    async def _sweep(self) -> None:
        """Remove what runtimes of former runs left that are not to run again."""
        if self._leftovers is None:
            return
        kept = {place for runtime in self.runtimes for place in runtime.blueprint.places()}
        with suppress(OSError):  # no thread to be had: the next start sweeps
            await in_thread(self._leftovers.sweep, None, kept)

    def _restore(self, former: list[Live]) -> None:
        """Leases with time left, and their runtimes, which start again at once.

        Not for those alone whose owners have ended: a runtime starts once one of them is renewed.
        """
        runtimes = {e.instance_key: e for e in former if isinstance(e, RuntimeEntry)}
        clocks = self.clocks()
        wanted: dict[str, int] = {}
        lost: set[str] = set()
        for entry in former:
            if not isinstance(entry, LeaseEntry):
                continue
            lease = lease_of(entry, clocks)
            ended = entry.boot_id != self.boot_id or owner_ended(lease)
            back = self._take_back(lease, runtimes, ended=ended)
            if back is None:
                self.keeper.records.forget(entry.key)
                continue
            wanted.setdefault(back.instance_key, back.uid)
            if ended and back.lost:
                lost.add(back.lease_ref)
        self.keeper.end_orphans()
        for lease in self.keeper.table:
            runtime = self.runtimes.get(lease.instance_key)
            awaited = lost.isdisjoint((lease.lease_ref, lease.parent))
            if runtime is not None and not runtime.wanted and awaited:
                self.runtimes.start(runtime)
        for key, entry in runtimes.items():
            if key in wanted and self.keeper.held(key):
                self.keeper.records.take_over(entry, wanted[key])
            else:
                self.keeper.records.forget(entry.key)
        if wanted:
            _log.info("restored", leases=len(self.keeper.table), runtimes=len(wanted))

    def _take_back(
        self, lease: Lease, entries: Mapping[str, RuntimeEntry], *, ended: bool
    ) -> Lease | None:
        """The lease, and in the table its runtime, not started; None where one is no more."""
        back = self.keeper.restore(
            lease,
            RETURN_GRACE_S,
            self._living,
            owner_ended=ended,
            unread_since=self._unread_since,
        )
        if back is not None and not self._find_again(entries, lease.instance_key):
            self.keeper.table.end(lease.lease_ref)
            return None
        return back

    def _find_again(self, entries: Mapping[str, RuntimeEntry], key: str) -> bool:
        """Have a runtime of the former run in the table; False where it cannot be."""
        runtime, entry = self.runtimes.get(key), entries.get(key)
        if runtime is None:
            if entry is None:
                return False
            try:
                blueprint = self.blueprints.of_entry(entry)
                runtime = self.runtimes.add(blueprint, kept_address(entry))
            except (RequestError, OperatorError) as error:
                _log.warning("runtime not restored", instance_key=key, reason=str(error))
                return False
        if runtime.estimated_bytes is None and entry is not None:
            runtime.estimated_bytes = entry.estimated_bytes
        return True

    # -- what is told ----------------------------------------------------------------------

    async def _before_start(self, runtime: Managed) -> None:
        """That there will be a process is durable before there is one.

        Except for what runs in any case, or is leased already: a full disk must not keep the
        daemon from serving that.
        """
        if runtime.blueprint.resident or self.keeper.count(runtime.key):
            self.keeper.records.note(self._process_entry(runtime))
        else:
            await self.keeper.records.remember(self._process_entry(runtime))

    def _process_entry(self, runtime: Managed) -> ProcessEntry:
        process = runtime.supervisor.process
        uds = runtime.supervisor.endpoint.uds
        return ProcessEntry(
            instance_key=runtime.key,
            mark=self.mark,
            boot_id=self.boot_id,
            pid=None if process is None else process.pid,
            start_ticks=None if process is None else process.start_ticks,
            uds=None if uds is None else str(uds),
        )

    def _on_change(self, runtime: Managed) -> None:
        process = runtime.supervisor.process
        pid = None if process is None else process.pid
        if pid != runtime.noted_pid:
            runtime.noted_pid = pid
            if pid is not None:
                self.keeper.records.note(self._process_entry(runtime))
        self._forget_ended(runtime)
        shown = f"{runtime.shown_state.value} {pid}"
        if runtime.told == shown:
            return
        runtime.told = shown
        self.changes.publish(lambda: {"type": "runtime", "runtime": self.describe(runtime)})

    def _unheld(self, key: str) -> None:
        self.idling.unheld(key)
        runtime = self.runtimes.get(key)
        if runtime is not None:
            self._forget_ended(runtime)

    def _forget_ended(self, runtime: Managed) -> None:
        if not runtime.occupies and not self.keeper.held(runtime.key):
            self.keeper.records.forget(*self._entries_of(runtime))

    def _entries_of(self, runtime: Managed) -> list[str]:
        keys = [f"runtime/{runtime.key}", f"process/{self.mark}/{runtime.key}"]
        return [key for key in keys if self.keeper.records.known(key)]
