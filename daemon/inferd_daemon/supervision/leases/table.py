"""Every live lease: who holds which runtime until when (leases.md section 2).

Pure: `now` is an argument, references and connections are given. Expiry is exact even where
`expire` was not called in time: a lease whose time is over is not found. Nothing here stops a
runtime; callers act on the leases that are returned.
"""

from collections.abc import Container, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec.structs import replace

from inferd_proto import LeaseContext, LeaseEnsure

from .lease import Claimant, Lease, lives_by, not_found, not_renewable, not_yours, too_many
from .restoration import Absence, returned

Index = dict[str, dict[str, Lease]]


class LeaseLimits(NamedTuple):
    """How many leases may live at once; a peer cannot fill the table for the others."""

    total: int = 16_384
    per_uid: int = 4_096


class LeaseTable:
    """Grants, renews and ends leases; each operation takes microseconds, whatever the number."""

    def __init__(self, limits: LeaseLimits | None = None) -> None:
        self._limits = limits or LeaseLimits()
        self._leases: dict[str, Lease] = {}
        self._by_instance: Index = {}
        self._by_connection: dict[int, set[str]] = {}
        self._by_uid: dict[int, int] = {}
        # Of each lease that needs another one, by reference.
        self._children: dict[str, str] = {}
        # Deadlines, with stale entries for renewed and ended leases: skipped when they come up.
        self._heap: list[tuple[float, str]] = []
        self._still = False

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def grant(
        self,
        now: float,
        lease_ref: str,
        instance_key: str,
        asked: LeaseEnsure,
        owner: Claimant,
        *,
        pid_started: int | None = None,
        token_sha256: str | None = None,
        model_identity: str | None = None,
    ) -> Lease:
        """A new lease as `asked`. `lease_ref` must be new, `pid_started` the owner's.

        Raises RequestError (`queue_full`) at a limit.
        """
        self._check_limits(owner)
        bound = asked.bind == "connection"
        lease = Lease(
            lease_ref=lease_ref,
            instance_key=instance_key,
            owner_ref=asked.owner_ref,
            uid=owner.uid,
            pid=owner.pid,
            pid_started=pid_started if bound else None,
            transport=asked.transport,
            bind=asked.bind,
            renewable=asked.renewable,
            ttl_ms=asked.ttl_ms,
            created=now,
            deadline=None if asked.ttl_ms is None else now + asked.ttl_ms / 1000,
            connection=owner.connection if bound else None,
            context=asked.context,
            token_sha256=token_sha256,
            model_identity=model_identity,
        )
        self._insert(lease)
        return lease

    def grant_child(self, now: float, lease_ref: str, instance_key: str, parent: Lease) -> Lease:
        """A lease of the same owner on what `parent` needs: no time of its own."""
        lease = Lease(
            lease_ref=lease_ref,
            instance_key=instance_key,
            owner_ref=parent.lease_ref,
            uid=parent.uid,
            pid=parent.pid,
            transport="uds",
            bind="none",
            renewable=False,
            ttl_ms=None,
            created=now,
            deadline=None,
            connection=None,
            context=_NO_CONTEXT,
            parent=parent.lease_ref,
        )
        self._insert(lease)
        return lease

    def child_of(self, lease_ref: str) -> Lease | None:
        """The lease that holds what this one needs."""
        child = self._children.get(lease_ref)
        return None if child is None else self._leases.get(child)

    def orphans(self) -> list[Lease]:
        """Those whose parent is gone."""
        return [
            self._leases[child]
            for parent, child in self._children.items()
            if parent not in self._leases
        ]

    def pin(self, now: float, lease_ref: str, instance_key: str, uid: int) -> Lease:
        """The daemon's own lease for a request in flight: no time limit, ended by `end`."""
        lease = Lease(
            lease_ref=lease_ref,
            instance_key=instance_key,
            owner_ref="",
            uid=uid,
            pid=None,
            transport="uds",
            bind="connection",
            renewable=False,
            ttl_ms=None,
            created=now,
            deadline=None,
            connection=None,
            context=_NO_CONTEXT,
            implicit=True,
        )
        self._insert(lease)
        return lease

    def restore(
        self,
        now: float,
        lease: Lease,
        grace_s: float,
        connections: Container[int] = (),
        *,
        owner_ended: bool = False,
        unread_since: float | None = None,
    ) -> Lease | None:
        """Take in a lease of the daemon's former run; None where its time is over.

        Its connection is gone, unless it is among `connections`. One that lived by it alone gets
        `grace_s` for its owner to come back and renew, and so does any that was bound to one of a
        program that is known to have ended: no more than that. One with a parent lives by that.
        Since `unread_since` no owner was heard: that costs none of them its lease.
        """
        absence = Absence(grace_s, connections, unread_since)
        back = returned(now, lease, absence, owner_ended=owner_ended)
        if back is not None:
            self._insert(back)
        return back

    def shorten(self, lease_ref: str, deadline: float) -> Lease | None:
        """Have a lease end by `deadline` at the latest; None where it does so already."""
        lease = self._leases.get(lease_ref)
        if lease is None or (lease.deadline is not None and lease.deadline <= deadline):
            return None
        shortened = replace(lease, deadline=deadline)
        self._remove(lease)
        self._insert(shortened)
        return shortened

    def stand_still(self) -> None:
        """From now on nothing ends for want of a renewal: owners are not heard any more."""
        self._still = True

    def alive(self, now: float, lease: Lease) -> bool:
        """Whether its time is not over."""
        return lease.alive(now) or (self._still and lease.renewable)

    def renew(
        self,
        now: float,
        lease_ref: str,
        ttl_ms: int,
        by: Claimant,
        *,
        pid_started: int | None = None,
    ) -> Lease:
        """The lease with `ttl_ms` left from now on, bound to the renewer's connection if bound.

        One that had lost its connection is the renewing program's then.

        Raises RequestError: `not_found`, `permission_denied`, `conflict` (not renewable).
        """
        lease = self._owned(now, lease_ref, by)
        if not lease.renewable or lease.implicit:
            raise not_renewable(lease_ref)
        renewed = replace(lease, ttl_ms=ttl_ms, deadline=now + ttl_ms / 1000)
        if lease.lost:
            renewed = replace(
                renewed, connection=by.connection, pid=by.pid, pid_started=pid_started
            )
        self._remove(lease)
        self._insert(renewed)
        return renewed

    def find(self, lease_ref: str) -> Lease | None:
        """The lease as it stands, for the daemon's own eyes; its time may be over."""
        return self._leases.get(lease_ref)

    def put_back(self, lease: Lease, instead: Lease | None = None) -> None:
        """Undo what could not be made durable: `lease` as it was, where `instead` stands now."""
        if self._leases.get(lease.lease_ref) is not instead:
            return
        if instead is not None:
            self._remove(instead)
        self._insert(lease)

    def release(self, now: float, lease_ref: str, by: Claimant) -> Lease | None:
        """End a lease; None where there is none any more, which is no error.

        One whose time is over is left to `expire`, whose caller tells of it. Raises RequestError
        (`permission_denied`, `conflict`).
        """
        lease = self._leases.get(lease_ref)
        if lease is None:
            return None
        if not lease.belongs_to(by):
            raise not_yours(lease_ref)
        if lease.parent is not None:
            raise lives_by(lease_ref, lease.parent)
        if not self.alive(now, lease):
            return None
        self._remove(lease)
        return lease

    def end(self, lease_ref: str) -> Lease | None:
        """End a lease by the daemon's own choice; None where there is none."""
        lease = self._leases.get(lease_ref)
        if lease is not None:
            self._remove(lease)
        return lease

    def connection_closed(self, connection: int) -> list[Lease]:
        """End the leases that were bound to a connection."""
        ended = [self._leases[ref] for ref in sorted(self._by_connection.get(connection, ()))]
        for lease in ended:
            self._remove(lease)
        return ended

    def runtime_gone(self, instance_key: str) -> list[Lease]:
        """End the leases of a runtime that was stopped by force.

        Not the implicit ones: who works with it, or waits for it, sees its end by itself.
        """
        leases = self._by_instance.get(instance_key, {}).values()
        ended = [lease for lease in leases if not lease.implicit]
        for lease in ended:
            self._remove(lease)
        return ended

    def expire(self, now: float) -> list[Lease]:
        """End the leases whose time is over, earliest first."""
        ended: list[Lease] = []
        while self._heap and self._heap[0][0] <= now:
            deadline, ref = heappop(self._heap)
            lease = self._leases.get(ref)
            if lease is not None and lease.deadline == deadline and not self.alive(now, lease):
                self._remove(lease)
                ended.append(lease)
        return ended

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next; None for never."""
        while self._heap:
            deadline, ref = self._heap[0]
            lease = self._leases.get(ref)
            counts = lease is not None and not (self._still and lease.renewable)
            if lease is not None and counts and lease.deadline == deadline:
                return deadline
            heappop(self._heap)
        return None

    def get(self, now: float, lease_ref: str, by: Claimant) -> Lease:
        """Raises RequestError: `not_found`, `permission_denied`."""
        return self._owned(now, lease_ref, by)

    def visible(
        self,
        now: float,
        by: Claimant,
        *,
        owner_ref: str | None = None,
        instance_key: str | None = None,
        uid: int | None = None,
    ) -> list[Lease]:
        """What the claimant may see of the live leases, oldest first."""
        if instance_key is None:
            candidates = self._leases.values()
        else:
            candidates = self._by_instance.get(instance_key, {}).values()
        return sorted(
            (
                lease
                for lease in candidates
                if self.alive(now, lease)
                and not lease.implicit
                and lease.belongs_to(by)
                and owner_ref in (None, lease.owner_ref)
                and uid in (None, lease.uid)
            ),
            key=lambda lease: (lease.created, lease.lease_ref),
        )

    def holders(self, now: float, instance_key: str) -> list[Lease]:
        """The live leases on a runtime, implicit ones too."""
        leases = self._by_instance.get(instance_key, {}).values()
        return [lease for lease in leases if self.alive(now, lease)]

    def held(self, now: float, instance_key: str) -> bool:
        """Whether a runtime has a live lease: then it is not stopped, evicted or replaced."""
        leases = self._by_instance.get(instance_key, {}).values()
        return any(self.alive(now, lease) for lease in leases)

    def _owned(self, now: float, lease_ref: str, by: Claimant) -> Lease:
        lease = self._leases.get(lease_ref)
        if lease is None or not self.alive(now, lease):
            raise not_found(lease_ref)
        if not lease.belongs_to(by):
            raise not_yours(lease_ref)
        return lease

    def _check_limits(self, owner: Claimant) -> None:
        if len(self._leases) >= self._limits.total:
            raise too_many(self._limits.total, "there are already")
        if self._by_uid.get(owner.uid, 0) >= self._limits.per_uid and not owner.admin:
            raise too_many(self._limits.per_uid, f"uid {owner.uid} has already")

    def _insert(self, lease: Lease) -> None:
        if lease.lease_ref in self._leases:
            raise ValueError(f"lease {lease.lease_ref} is there already")
        self._leases[lease.lease_ref] = lease
        self._by_instance.setdefault(lease.instance_key, {})[lease.lease_ref] = lease
        self._by_uid[lease.uid] = self._by_uid.get(lease.uid, 0) + 1
        if lease.connection is not None:
            self._by_connection.setdefault(lease.connection, set()).add(lease.lease_ref)
        if lease.parent is not None:
            self._children[lease.parent] = lease.lease_ref
        if lease.deadline is not None:
            heappush(self._heap, (lease.deadline, lease.lease_ref))
            if len(self._heap) > 2 * len(self._leases) + _HEAP_SLACK:
                self._rebuild_heap()

    def _remove(self, lease: Lease) -> None:
        del self._leases[lease.lease_ref]
        of_instance = self._by_instance[lease.instance_key]
        del of_instance[lease.lease_ref]
        if not of_instance:
            del self._by_instance[lease.instance_key]
        self._by_uid[lease.uid] -= 1
        if not self._by_uid[lease.uid]:
            del self._by_uid[lease.uid]
        if lease.connection is not None:
            bound = self._by_connection[lease.connection]
            bound.discard(lease.lease_ref)
            if not bound:
                del self._by_connection[lease.connection]
        if lease.parent is not None:
            self._children.pop(lease.parent, None)

    def _rebuild_heap(self) -> None:
        self._heap = [
            (lease.deadline, ref)
            for ref, lease in self._leases.items()
            if lease.deadline is not None
        ]
        heapify(self._heap)


_NO_CONTEXT = LeaseContext()
_HEAP_SLACK = 64
