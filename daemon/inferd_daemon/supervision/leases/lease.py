"""One owner's claim on one runtime, as the daemon keeps it; and who may touch it.

Plain records. Times are seconds on one monotonic clock, whichever the table's caller uses.
"""

from typing import NamedTuple

from msgspec import Struct

from inferd_proto import Bind, ErrorCode, Holder, LeaseContext, Transport
from inferd_proto import Lease as WireLease

from ...errors import RequestError


class Claimant(NamedTuple):
    """Who asks, by the kernel's word, on which of the daemon's connections.

    `admin`: the daemon's own user, root, or a member of the admin group. `connection` is None
    where nothing can end (a lease that the daemon takes itself, with `bind` none).
    """

    uid: int
    pid: int | None = None
    connection: int | None = None
    admin: bool = False


class Lease(Struct, frozen=True, kw_only=True):
    """One live claim. `deadline` None: it lives as long as `connection`.

    `connection` is None for `bind` none, and for a restored lease whose owner did not come back
    yet. `implicit` leases are the daemon's own, for requests in flight; nobody renews them.
    `token_sha256` is there where requests come through the daemon's HTTP front. One with a
    `parent` holds what the other lease needs, and ends with it. `model_identity` is what its owner
    calls the model: others may share the runtime under other names; None where it named none.
    `pid_started` tells the owner's process from a later one of the same number (its start in
    ticks, 0 where it cannot be read); None where the lease does not depend on it.
    """

    lease_ref: str
    instance_key: str
    owner_ref: str
    uid: int
    pid: int | None
    transport: Transport
    bind: Bind
    renewable: bool
    ttl_ms: int | None
    created: float
    deadline: float | None
    connection: int | None
    context: LeaseContext
    implicit: bool = False
    token_sha256: str | None = None
    parent: str | None = None
    model_identity: str | None = None
    pid_started: int | None = None

    @property
    def lost(self) -> bool:
        """Whether it is bound, and its owner has not come back after a restart of the daemon."""
        return self.bind == "connection" and self.connection is None and not self.implicit

    def alive(self, now: float) -> bool:
        """Whether its time is not over."""
        return self.deadline is None or now < self.deadline

    def left_ms(self, now: float) -> int | None:
        """Time left, never negative; None where the connection decides."""
        return None if self.deadline is None else max(0, int((self.deadline - now) * 1000))

    def to_wire(self, now: float) -> WireLease:
        """What `lease.get` shows."""
        return WireLease(
            lease_ref=self.lease_ref,
            instance_key=self.instance_key,
            owner_ref=self.owner_ref,
            uid=self.uid,
            pid=self.pid,
            transport=self.transport,
            bind=self.bind,
            renewable=self.renewable,
            ttl_ms=self.ttl_ms,
            left_ms=self.left_ms(now),
            age_ms=max(0, int((now - self.created) * 1000)),
            context=self.context,
        )

    def belongs_to(self, claimant: Claimant) -> bool:
        """Whether the claimant may see and change it."""
        return claimant.admin or claimant.uid == self.uid

    def holder(self, claimant: Claimant) -> Holder:
        """Who holds it, as far as the claimant may know."""
        if self.belongs_to(claimant):
            return Holder(self.lease_ref, self.owner_ref, self.uid)
        return Holder("", "", self.uid)


def not_found(lease_ref: str) -> RequestError:
    """There is no such lease, or there was one and its time is over."""
    return RequestError(
        ErrorCode.NOT_FOUND,
        f"there is no lease {lease_ref[:64]!r}; it was released or expired: ensure again",
    )


def not_yours(lease_ref: str) -> RequestError:
    """Another uid holds it."""
    return RequestError(
        ErrorCode.PERMISSION_DENIED,
        f"the lease {lease_ref[:64]!r} belongs to another user; only its owner, the daemon's user, "
        "root and the admin group may use it",
    )


def not_renewable(lease_ref: str) -> RequestError:
    """It was asked for with `renewable` false."""
    return RequestError(
        ErrorCode.CONFLICT, f"the lease {lease_ref[:64]!r} is not renewable: ensure a new one"
    )


def lives_by(lease_ref: str, parent: str) -> RequestError:
    """It is not its owner's to end alone."""
    return RequestError(
        ErrorCode.CONFLICT,
        f"the lease {lease_ref[:64]!r} holds what {parent!r} needs, and ends with it: release that",
    )


def too_many(limit: int, whose: str) -> RequestError:
    """A limit on the number of live leases."""
    return RequestError(
        ErrorCode.QUEUE_FULL, f"{whose} {limit} live leases, which is the limit: release some first"
    )
