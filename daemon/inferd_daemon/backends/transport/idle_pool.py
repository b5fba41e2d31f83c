"""Connections kept for the next request, by origin, the most recently used first.

Thinks only: the caller tells the time and closes what comes back. It must never hand out a
connection that the peer is about to close.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

C = TypeVar("C")

KEEP_ALIVE_S = 4.0
"""llama-server closes an idle connection after 5 s; a request must never race with that."""
MAX_IDLE = 256
"""Beyond it the oldest goes: idle sockets cost descriptors, a new one costs 0.1 ms."""


class IdlePool(Generic[C]):
    """At most `max_idle` connections, none idle for longer than `keep_alive_s`."""

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S, max_idle: int = MAX_IDLE) -> None:
        self._keep_alive_s = keep_alive_s
        self._max_idle = max_idle
        self._idle: deque[tuple[float, Hashable, C]] = deque()

    def __len__(self) -> int:
        return len(self._idle)

    def put(self, origin: Hashable, connection: C, now: float) -> None:
        """Keep `connection` for the next request to `origin`."""
        self._idle.append((now + self._keep_alive_s, origin, connection))

    def take(self, origin: Hashable) -> C | None:
        """The most recently used connection to `origin`. Call `expire` first."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index][1] == origin:
                connection = self._idle[index][2]
                del self._idle[index]
                return connection
        return None

    def expire(self, now: float) -> list[C]:
        """Give up what was idle for too long or is too much; the caller closes it."""
        gone: list[C] = []
        while self._idle and (self._idle[0][0] <= now or len(self._idle) > self._max_idle):
            gone.append(self._idle.popleft()[2])
        return gone

    def clear(self) -> list[C]:
        """Give up everything; the caller closes it."""
        gone = [connection for _, _, connection in self._idle]
        self._idle.clear()
        return gone
