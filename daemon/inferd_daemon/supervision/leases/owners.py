"""Programs that took a lease before the daemon's restart: one that has ended comes back no more.

Looks now and then at those that have not come back yet; nobody else's end is watched here, because
theirs is told by their connection.
"""

import trio

from ..processes.identity import has_ended
from .keeper import LeaseKeeper
from .lease import Lease

LOOK_S = 5.0
"""A lease whose owner is gone is given minutes less than its time, not seconds."""


def owner_ended(lease: Lease) -> bool:
    """Whether the program that took it in this boot has certainly ended."""
    return lease.pid is not None and has_ended(lease.pid, lease.pid_started)


class AbsentOwners:
    """Keep `run` running. Who is found to have ended has its leases for `grace_s`, no longer."""

    def __init__(self, keeper: LeaseKeeper, grace_s: float, *, look_s: float = LOOK_S) -> None:
        self._keeper = keeper
        self._grace_s = grace_s
        self._look_s = look_s

    async def run(self) -> None:
        """Until each has come back or lost its leases; none is added after the daemon's start."""
        waiting = {lease.lease_ref for lease in self._keeper.table if lease.lost}
        while waiting:
            await trio.sleep(self._look_s)
            waiting = {ref for ref in waiting if self._still_absent(ref)}

    def _still_absent(self, ref: str) -> bool:
        lease = self._keeper.table.find(ref)
        if lease is None or not lease.lost:
            return False
        if not owner_ended(lease):
            return True
        self._keeper.shorten(ref, self._grace_s)
        return False
