"""What becomes of a lease of the daemon's former run: whether it is back, and until when. Pure.

Time in which the daemon heard nobody counts against no owner that would have renewed; time that
one is given to come back is counted once, not anew at each start.
"""

from collections.abc import Container
from typing import NamedTuple

from msgspec.structs import replace

from .lease import Lease

RENEWAL_GRACE_S = 10.0
"""After an upgrade, at least so much is left: renewals that waited are read, and who lost its
connection makes another one."""


class Absence(NamedTuple):
    """How the daemon was away.

    `grace_s` is the time for owners whose connection is gone to come back; `connections` live on.
    `unread_since` is when the former run read its last request, before an upgrade; None where it
    crashed or was stopped.
    """

    grace_s: float
    connections: Container[int] = ()
    unread_since: float | None = None


def returned(now: float, lease: Lease, absence: Absence, *, owner_ended: bool) -> Lease | None:
    """The lease as it stands now; None where its time was over. `owner_ended`: for certain."""
    unread_since = absence.unread_since if lease.renewable else None
    if lease.implicit or not lease.alive(now if unread_since is None else unread_since):
        return None
    deadline = lease.deadline
    if deadline is not None and unread_since is not None:
        deadline = max(deadline, now + RENEWAL_GRACE_S)
    lives_on = lease.connection is not None and lease.connection in absence.connections
    if lives_on or lease.parent is not None:
        return replace(lease, deadline=deadline)
    back_by = now + absence.grace_s
    if deadline is None:
        deadline = back_by
    elif lease.bind == "connection" and owner_ended:
        deadline = min(deadline, back_by)
    return replace(lease, connection=None, deadline=deadline)
