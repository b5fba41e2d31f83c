"""How much the specs of leased runtimes may take in the journal: of one user, and of all together.

Pure. Without it a peer could make the journal, and the daemon that reads it back, as large as it
likes; by this a start always finds what it can hold.
"""

from typing import NamedTuple

from inferd_proto import ErrorCode

from ...errors import RequestError
from .lease import Claimant


class SpecLimits(NamedTuple):
    """Bytes of specs that may be remembered at once."""

    total: int = 32 << 20
    per_uid: int = 8 << 20


class SpecRoom:
    """Counts what is remembered, under the entry's key, for the uid that had it written first."""

    def __init__(self, limits: SpecLimits | None = None) -> None:
        self._limits = limits or SpecLimits()
        self._taken: dict[str, tuple[int, int]] = {}
        self._by_uid: dict[int, int] = {}
        self._total = 0

    def require(self, size: int, asks: Claimant) -> None:
        """Raises RequestError (`queue_full`) where so many bytes more are too many."""
        if self._total + size > self._limits.total:
            raise _full("the specs of all leased runtimes", self._limits.total)
        if not asks.admin and self._by_uid.get(asks.uid, 0) + size > self._limits.per_uid:
            raise _full(f"the specs of uid {asks.uid}", self._limits.per_uid)

    def take(self, key: str, size: int, uid: int) -> None:
        """So many bytes are remembered under `key`."""
        self.give_back(key)
        self._taken[key] = (uid, size)
        self._by_uid[uid] = self._by_uid.get(uid, 0) + size
        self._total += size

    def give_back(self, key: str) -> None:
        """What stood under `key` is forgotten; nothing where nothing did."""
        uid, size = self._taken.pop(key, (0, 0))
        if size:
            self._total -= size
            self._by_uid[uid] -= size
            if not self._by_uid[uid]:
                del self._by_uid[uid]


def _full(whose: str, limit: int) -> RequestError:
    return RequestError(
        ErrorCode.QUEUE_FULL,
        f"{whose} would take more than {limit} bytes of the journal: release some leases first",
    )
