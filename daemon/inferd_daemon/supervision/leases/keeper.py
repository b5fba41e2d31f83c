"""The acting owner of the leases: what it acknowledges is in the journal first.

A task ends leases whose time is over. Stops no runtime: it tells which ones are held no more.
"""

import secrets
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import trio

from inferd_proto import ErrorCode, JsonObject, LeaseEnsure

from ...errors import RequestError
from ..changes import Changes
from ..processes.identity import read_start_ticks
from .journal import Clocks, Gone, RuntimeEntry, lease_entry
from .journal_file import JournalFile, JournalUnavailable
from .lease import Claimant, Lease
from .records import Records
from .spec_room import SpecLimits
from .table import LeaseLimits, LeaseTable

REF_BYTES = 18
"""144 random bits: a lease's reference cannot be guessed."""


class Need(NamedTuple):
    """Another runtime that has to be held as well, and what a restart needs for it."""

    instance_key: str
    runtime: RuntimeEntry


class LeaseKeeper:
    """Grants, renews, ends and restores leases. Keep `run` running, and the journal's own.

    `clocks` reads both clocks. `on_unheld` is told of each runtime whose last lease ended,
    `on_over` of each lease that ended, `on_return` of each runtime of a restored lease that its
    owner has come back to.
    """

    def __init__(
        self,
        journal: JournalFile,
        clocks: Callable[[], Clocks],
        changes: Changes,
        *,
        limits: LeaseLimits | None = None,
        spec_limits: SpecLimits | None = None,
    ) -> None:
        self.table = LeaseTable(limits)
        self.records = Records(journal, spec_limits)
        self.on_unheld: Callable[[str], None] = lambda _key: None
        self.on_over: Callable[[str], None] = lambda _ref: None
        self.on_return: Callable[[str], None] = lambda _key: None
        self._clocks = clocks
        self._changes = changes
        self._pins = 0
        # Leases out of the table whose release is being written, by reference.
        self._releasing: dict[str, Lease] = {}
        self._expiry_moved = trio.Event()
        self._expires_at = float("inf")

    def now(self) -> float:
        """Seconds on the monotonic clock of the leases."""
        return self._clocks().monotonic

    def held(self, instance_key: str) -> bool:
        """Whether a runtime has a live lease, an implicit one included."""
        return self.table.held(self.now(), instance_key)

    def alive(self, lease: Lease) -> bool:
        """Whether its time is not over."""
        return self.table.alive(self.now(), lease)

    def stand_still(self) -> None:
        """From now on nothing ends for want of a renewal: owners are not heard any more."""
        self.table.stand_still()
        self._expiry_moved.set()

    def count(self, instance_key: str) -> int:
        """How many owners hold a runtime."""
        leases = self.table.holders(self.now(), instance_key)
        return sum(not lease.implicit for lease in leases)

    # -- what owners ask -------------------------------------------------------------------

    async def grant(
        self,
        instance_key: str,
        asked: LeaseEnsure,
        owner: Claimant,
        runtime: RuntimeEntry | None,
        *,
        token_sha256: str | None = None,
        model_identity: str | None = None,
        need: Need | None = None,
    ) -> Lease:
        """A new lease, durable, with the `runtime` that a restart needs for it.

        What it needs besides is held by a lease of its own, which ends with it.

        Raises RequestError: `queue_full` at a limit, `conflict` where the runtime was stopped by
        force meanwhile, `timeout` where its time was over before it was on disk, EntryTooLong,
        JournalUnavailable.
        """
        clocks = self._clocks()
        ref = _new_ref()
        runtimes = [one for one in (runtime, need and need.runtime) if one is not None]
        self.records.require_room(runtimes, owner)
        lease = self.table.grant(
            clocks.monotonic,
            ref,
            instance_key,
            asked,
            owner,
            pid_started=_start_of(owner) if asked.bind == "connection" else None,
            token_sha256=token_sha256,
            model_identity=model_identity,
        )
        leases = [lease]
        if need is not None:
            leases.append(
                self.table.grant_child(clocks.monotonic, _new_ref(), need.instance_key, lease)
            )
        # At once: its time may be over before it is on the disk.
        self._mind_expiry(lease)
        entries = [lease_entry(one, clocks) for one in leases]
        try:
            await self.records.write_leases(entries, runtimes, owner.uid)
        except BaseException:
            # Nobody was told of it; whether it is on the disk only the next write makes sure.
            for one in leases:
                self.table.end(one.lease_ref)
            self._forget(*leases)
            raise
        if self.table.find(ref) is None:
            raise _ended_unseen(lease, self.now())
        for one in leases:
            self._tell("granted", one)
        return lease

    async def renew(self, lease_ref: str, ttl_ms: int, by: Claimant) -> Lease:
        """The lease with new time, durable.

        Raises RequestError as the table does, and JournalUnavailable, which leaves it as it was.
        """
        clocks = self._clocks()
        before = self.table.get(clocks.monotonic, lease_ref, by)
        started = _start_of(by) if before.lost else None
        lease = self.table.renew(clocks.monotonic, lease_ref, ttl_ms, by, pid_started=started)
        # At once: it holds from now on, also where its caller leaves before it is on the disk.
        self._mind_expiry(lease)
        try:
            await self.records.write([lease_entry(lease, clocks)])
        except JournalUnavailable:
            self.table.put_back(before, instead=lease)
            self._mind_expiry(before)
            raise
        self._tell("renewed", lease)
        if before.lost:
            for one in filter(None, (lease, self.table.child_of(lease_ref))):
                self.on_return(one.instance_key)
        return lease

    async def release(self, lease_ref: str, by: Claimant) -> None:
        """End a lease, durably; nothing where there is none. Raises RequestError."""
        lease = self.table.release(self.now(), lease_ref, by)
        if lease is None:
            return
        self._releasing[lease_ref] = lease
        try:
            await self.records.write([Gone(f"lease/{lease_ref}")])
        except JournalUnavailable:
            if lease_ref in self._releasing:
                self.table.put_back(lease)
                self._mind_expiry(lease)
            raise
        except BaseException:
            self._forget(lease)
            raise
        finally:
            self._releasing.pop(lease_ref, None)
            if self.table.find(lease_ref) is None:
                self._over([lease], "released")

    # -- what ends by itself ---------------------------------------------------------------

    def connection_closed(self, connection: int) -> None:
        """End the leases that were bound to a connection."""
        for ref, lease in list(self._releasing.items()):
            if lease.connection == connection:
                del self._releasing[ref]
                self._forget(lease)
        self._end(self.table.connection_closed(connection), "disconnected")

    def runtime_gone(self, instance_key: str) -> None:
        """End the leases of a runtime that was stopped by force, and those that needed it."""
        ended = self.table.runtime_gone(instance_key)
        needing = [self.table.end(lease.parent) for lease in ended if lease.parent is not None]
        self._end([*ended, *(lease for lease in needing if lease is not None)], "runtime stopped")

    @contextmanager
    def pinned(self, instance_key: str, uid: int) -> Iterator[None]:
        """Hold a runtime for the block, on the daemon's own account."""
        self._pins += 1
        ref = f"pin-{self._pins}"
        self.table.pin(self.now(), ref, instance_key, uid)
        try:
            yield
        finally:
            self.table.end(ref)
            if not self.held(instance_key):
                self.on_unheld(instance_key)

    def restore(
        self,
        lease: Lease,
        grace_s: float,
        connections: Container[int] = (),
        *,
        owner_ended: bool = False,
        unread_since: float | None = None,
    ) -> Lease | None:
        """Take in a lease of the daemon's former run; None where its time is over.

        `connections` are those that live on from that run; `owner_ended` where the program that
        took it is known to be gone; since `unread_since` nobody was heard. What is changed by that
        is written soon: the next start does not give the same time once more.
        """
        clocks = self._clocks()
        back = self.table.restore(
            clocks.monotonic,
            lease,
            grace_s,
            connections,
            owner_ended=owner_ended,
            unread_since=unread_since,
        )
        if back is not None and back != lease:
            self.records.note(lease_entry(back, clocks))
        return back

    def shorten(self, lease_ref: str, left_s: float) -> None:
        """Have a lease end in `left_s` at the latest; nobody waits until that is written."""
        clocks = self._clocks()
        lease = self.table.shorten(lease_ref, clocks.monotonic + left_s)
        if lease is not None:
            self.records.note(lease_entry(lease, clocks))
            self._mind_expiry(lease)

    def end_orphans(self) -> None:
        """After all were restored: end the leases whose parent was not."""
        self._end(
            [lease for lease in self.table.orphans() if self.table.end(lease.lease_ref)], "orphaned"
        )

    # -- its tasks -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End leases in time and settle with the journal, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            nursery.start_soon(self.records.run)
            task_status.started()

    async def _expire(self) -> None:
        while True:
            self._end(self.table.expire(self.now()), "expired")
            self._expiry_moved = trio.Event()
            deadline = self.table.next_deadline()
            self._expires_at = float("inf") if deadline is None else deadline
            with trio.move_on_after(max(0.0, self._expires_at - self.now())):
                await self._expiry_moved.wait()

    def _forget(self, *leases: Lease) -> None:
        self.records.forget(*(f"lease/{lease.lease_ref}" for lease in leases))

    def _mind_expiry(self, lease: Lease) -> None:
        if lease.deadline is not None and lease.deadline < self._expires_at:
            self._expiry_moved.set()

    def _end(self, leases: list[Lease], why: str) -> None:
        if leases:
            self._forget(*leases)
            self._over(leases, why)

    def _over(self, leases: list[Lease], why: str) -> None:
        children = [self.table.child_of(lease.lease_ref) for lease in leases]
        for child in filter(None, children):
            self.table.end(child.lease_ref)
            self._forget(child)
            leases = [*leases, child]
        for lease in leases:
            self.on_over(lease.lease_ref)
            self._tell(why, lease)
        for key in {lease.instance_key for lease in leases}:
            if not self.held(key):
                self.on_unheld(key)

    def _tell(self, event: str, lease: Lease) -> None:
        def describe() -> JsonObject:
            shown: JsonObject = msgspec.to_builtins(lease.to_wire(self.now()))
            return {"type": "lease", "event": event, "lease": shown}

        if not lease.implicit:
            self._changes.publish(describe)


def _start_of(owner: Claimant) -> int | None:
    return None if owner.pid is None else read_start_ticks(owner.pid)


def _new_ref() -> str:
    return f"lease-{secrets.token_urlsafe(REF_BYTES)}"


def _ended_unseen(lease: Lease, now: float) -> RequestError:
    """Why a lease is gone that nobody was told of yet."""
    if lease.deadline is not None and now >= lease.deadline:
        return RequestError(
            ErrorCode.TIMEOUT,
            "the lease's time was over before the journal's disk had taken it: ensure again, "
            "with a longer ttl_ms",
        )
    return RequestError(
        ErrorCode.CONFLICT, "the runtime was stopped by force a moment ago: ensure again"
    )
