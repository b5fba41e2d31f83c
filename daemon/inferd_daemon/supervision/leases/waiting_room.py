"""Those who wait for room, each asleep until its turn may have come; nobody waits past its time.

How many one user may have here is bounded: each of them is looked at whenever anything changes.
"""

from collections import Counter
from collections.abc import Iterable

import trio

from inferd_proto import ErrorCode

from ...errors import RequestError
from .lease import Claimant

MAX_WAITING_PER_UID = 64
"""As many as a request queue holds; administrators have no such limit."""


class WaitingRoom:
    """By the number of their place in the queue."""

    def __init__(self, limit: int = MAX_WAITING_PER_UID) -> None:
        self._limit = limit
        self._asleep: dict[int, trio.Event] = {}
        self._of_uid: Counter[int] = Counter()
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._asleep)

    def close(self, why: str) -> None:
        """From now on nobody waits; who does gets `backend_unavailable`."""
        self._closed = why
        self.wake(list(self._asleep))

    def require_open(self) -> None:
        """Raises RequestError (`backend_unavailable`) once it is closed."""
        if self._closed is not None:
            raise RequestError(ErrorCode.BACKEND_UNAVAILABLE, self._closed)

    def wake(self, numbers: Iterable[int]) -> None:
        """Have them look again."""
        for number in numbers:
            if number in self._asleep:
                self._asleep[number].set()

    async def wait(self, number: int, asks: Claimant, until: float) -> bool:
        """Sleep until woken; False once it is `until` (trio's clock).

        Raises RequestError: `queue_full` where the caller's user has too many here already, and as
        `require_open` does.
        """
        self.require_open()
        if self._of_uid[asks.uid] >= self._limit and not asks.admin:
            raise RequestError(
                ErrorCode.QUEUE_FULL,
                f"{self._limit} calls of uid {asks.uid} wait for room already, which is the limit: "
                "let them end, or ask again later without `wait_ms`",
            )
        woken = self._asleep[number] = trio.Event()
        self._of_uid[asks.uid] += 1
        try:
            with trio.CancelScope(deadline=until) as patience:
                await woken.wait()
        finally:
            del self._asleep[number]
            self._of_uid[asks.uid] -= 1
            if not self._of_uid[asks.uid]:
                del self._of_uid[asks.uid]
        self.require_open()
        return not patience.cancelled_caught
