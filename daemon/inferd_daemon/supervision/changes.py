"""Changes of runtimes, leases and routes, told to whoever listens; a listener that sleeps is cut.

Holds nothing for nobody: without listeners a change costs a comparison. Never waits for one.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from inferd_proto import JsonObject

MAX_UNDELIVERED = 256
"""A listener that is so many changes behind is not told of any more (wire.md section 8)."""
BURST_S = 1.0
"""So long the changes may wait that come all at once, more than that: nobody could have taken them
sooner. A client that leaves with a thousand leases is a thousand changes."""
MAX_BURST = 16 * 1024
"""Then they are too many to be kept."""


class FellBehind(Exception):
    """The listener did not take its changes in time; some are lost."""


class Subscription:
    """The changes since `Changes.subscribed`, in order, for one who takes them."""

    def __init__(self, limit: int, concerns: Callable[[JsonObject], bool]) -> None:
        self._limit = limit
        self._concerns = concerns
        self._kept: deque[tuple[float, JsonObject]] = deque()
        self._offered = trio.Event()
        self.behind = trio.Event()
        """Set once it gets no more changes."""

    def offer(self, change: JsonObject) -> None:
        """Keep a change that concerns the listener, or give it up where it is too far behind."""
        if not self._concerns(change):
            return
        now = trio.current_time()
        too_many = len(self._kept) >= self._limit
        if too_many and (now - self._kept[0][0] > BURST_S or len(self._kept) >= MAX_BURST):
            self.behind.set()
        else:
            self._kept.append((now, change))
        self._offered.set()

    async def next(self) -> JsonObject:
        """Wait for the next change. Raises FellBehind at the end of what was kept."""
        await trio.lowlevel.checkpoint()
        while not self._kept:
            if self.behind.is_set():
                raise FellBehind
            self._offered = trio.Event()
            await self._offered.wait()
        return self._kept.popleft()[1]


class Changes:
    """The one place where changes are told, and listened to."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def __bool__(self) -> bool:
        """Whether anyone listens."""
        return bool(self._subscriptions)

    def publish(self, describe: Callable[[], JsonObject]) -> None:
        """Tell every listener; `describe` is only called where there is one."""
        if self._subscriptions:
            self.tell(describe())

    def tell(self, change: JsonObject) -> None:
        """Tell every listener of a change that is described already."""
        for subscription in list(self._subscriptions):
            subscription.offer(change)
            if subscription.behind.is_set():
                self._subscriptions.discard(subscription)

    @contextmanager
    def subscribed(
        self,
        limit: int = MAX_UNDELIVERED,
        concerns: Callable[[JsonObject], bool] = lambda _: True,
    ) -> Iterator[Subscription]:
        """Listen for the block, to what `concerns` the listener alone."""
        subscription = Subscription(limit, concerns)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
