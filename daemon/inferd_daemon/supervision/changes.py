"""Changes of runtimes, leases and routes, told to whoever listens; a listener that sleeps is cut.

Holds nothing for nobody: without listeners a change costs a comparison. Never waits for one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from inferd_proto import JsonObject

MAX_UNDELIVERED = 256
"""A listener that is so many changes behind is not told of any more (wire.md section 8)."""


class FellBehind(Exception):
    """The listener did not take its changes in time; some are lost."""


class Subscription:
    """The changes since `Changes.subscribed`, in order."""

    def __init__(self, limit: int) -> None:
        self._send, self._receive = trio.open_memory_channel[JsonObject](limit)
        self.behind = trio.Event()
        """Set once it gets no more changes."""

    def offer(self, change: JsonObject) -> None:
        """Keep a change for the listener, or give it up where it is too far behind."""
        try:
            self._send.send_nowait(change)
        except trio.WouldBlock:
            self.behind.set()
            self._send.close()

    async def next(self) -> JsonObject:
        """Wait for the next change. Raises FellBehind at the end of what was kept."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise FellBehind from None


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
    def subscribed(self, limit: int = MAX_UNDELIVERED) -> Iterator[Subscription]:
        """Listen for the block."""
        subscription = Subscription(limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
