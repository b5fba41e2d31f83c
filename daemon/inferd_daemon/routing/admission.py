"""Who may run now and who is next: permits, a bounded queue, turns between peers. Pure.

A route has a number of permits. Who finds none free waits; peers take turns, so that one with
a hundred waiting requests and one with a single one are served alternately; within a peer the
order is kept. Never waits, never looks at a clock: `now` is an argument, in seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import NamedTuple

_SMOOTHING = 0.2
"""Weight of the newest run in the average that estimates are made of."""


class Admitted(NamedTuple):
    """A permit was free: run, and `release` at the end."""


class Queued(NamedTuple):
    """Wait: `position` counts from 1; `estimate_ms` is None before anything has finished."""

    position: int
    estimate_ms: int | None


class Full(NamedTuple):
    """The queue is full: `waiting` requests wait for `permits` permits."""

    waiting: int
    permits: int
    estimate_ms: int | None


Ticket = Hashable
Verdict = Admitted | Queued | Full


class Admission:
    """Permits and queue of one route. Tickets are any hashables, each used once at a time."""

    def __init__(self, permits: int, queue_depth: int) -> None:
        self.permits = permits
        self.queue_depth = queue_depth
        self._started: dict[Ticket, float] = {}
        self._queues: OrderedDict[Hashable, deque[Ticket]] = OrderedDict()
        self._peer_of: dict[Ticket, Hashable] = {}
        self._mean_s: float | None = None

    def __repr__(self) -> str:
        return (
            f"<Admission {self.active} of {self.permits} active, "
            f"{self.waiting} of {self.queue_depth} waiting>"
        )

    @property
    def active(self) -> int:
        """Requests that hold a permit."""
        return len(self._started)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._peer_of)

    def request(self, ticket: Ticket, peer: Hashable, now: float) -> Verdict:
        """Ask for a permit for `ticket` on behalf of `peer`."""
        if self.active < self.permits and not self._peer_of:
            self._started[ticket] = now
            return Admitted()
        if self.waiting >= self.queue_depth:
            return Full(self.waiting, self.permits, self._estimate(self.waiting + 1))
        self._queues.setdefault(peer, deque()).append(ticket)
        self._peer_of[ticket] = peer
        position = self.position(ticket)
        return Queued(position, self._estimate(position))

    def release(self, ticket: Ticket, now: float) -> list[Ticket]:
        """`ticket` ran to its end; the tickets whose turn it is now."""
        took = now - self._started.pop(ticket)
        mean = self._mean_s
        self._mean_s = took if mean is None else mean + _SMOOTHING * (took - mean)
        return self._admit(now)

    def withdraw(self, ticket: Ticket) -> None:
        """A waiting `ticket` gave up; it leaves no trace."""
        peer = self._peer_of.pop(ticket)
        queue = self._queues[peer]
        queue.remove(ticket)
        if not queue:
            del self._queues[peer]

    def queued(self, ticket: Ticket) -> Queued:
        """Where a waiting `ticket` stands now."""
        position = self.position(ticket)
        return Queued(position, self._estimate(position))

    def position(self, ticket: Ticket) -> int:
        """How many turns until `ticket`'s own, counted from 1, if nobody else comes or goes."""
        peer = self._peer_of[ticket]
        index = self._queues[peer].index(ticket)
        turns = 0
        passed = False
        for other, queue in self._queues.items():
            if other == peer:
                passed = True
                turns += index + 1
            else:
                # who stands before us in the ring has one more turn until ours
                turns += min(len(queue), index + (0 if passed else 1))
        return turns

    def _admit(self, now: float) -> list[Ticket]:
        admitted: list[Ticket] = []
        while self._queues and self.active < self.permits:
            peer, queue = self._queues.popitem(last=False)
            ticket = queue.popleft()
            if queue:
                self._queues[peer] = queue  # to the end of the ring
            del self._peer_of[ticket]
            self._started[ticket] = now
            admitted.append(ticket)
        return admitted

    def _estimate(self, position: int) -> int | None:
        if self._mean_s is None:
            return None
        return round(position * self._mean_s / self.permits * 1000)
