"""Who may run now and who is next: permits, a bounded queue, turns between peers. Pure.

A route has a number of permits. Who finds none free waits; peers take turns as `turns` has it, so
that one with a hundred waiting requests and one with a single one are served alternately; within a
peer the order is kept. Never waits, never looks at a clock: `now` is an argument, in seconds.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Literal, NamedTuple

from .shares import PeerKey, Shares
from .turns import Member, Ticket, Turns

_SMOOTHING = 0.2
"""Weight of the newest run in the average that estimates are made of."""
_GUEST_PLACES = 4
"""One in so many places beyond a full queue is for clients that have nothing in it yet."""

UNBOUNDED = 2**31

Bound = Literal["route", "uid", "client"]


class Entry(Enum):
    """Admitted: run, and `release` at the end. Waiting: until `release`, `resize` or `admit` admits
    the ticket, or `withdraw` it."""

    ADMITTED = "admitted"
    WAITING = "waiting"


class Place(NamedTuple):
    """`position` counts turns from 1; `estimate_ms` is None before anything has finished."""

    position: int
    estimate_ms: int | None


class Full(NamedTuple):
    """No place: `waiting` requests fill the queue of the route, of the uid, or of the client.

    `place` would have been the next one.
    """

    whose: Bound
    waiting: int
    place: Place


class PeerCounts(NamedTuple):
    """What one peer has on a route."""

    peer: PeerKey
    active: int
    waiting: int
    weight: int


Verdict = Entry | Full


class Admission:
    """Permits and queue of one route. Tickets are any hashables, each used once at a time.

    A full queue has a last place for each uid that has nothing in it, and a few for clients that
    have not: one that fills the queue shuts nobody out. `queue_depth` 0 means that nobody waits.

    `room` is how many could start now, whatever the permits: others may have what these run on.
    """

    def __init__(self, permits: int, queue_depth: int, shares: Shares | None = None) -> None:
        self.permits = permits
        self.queue_depth = queue_depth
        self._turns = Turns(shares if shares is not None else Shares())
        self._running: dict[Ticket, tuple[Member, float]] = {}
        self._mean_s: float | None = None

    def __repr__(self) -> str:
        return (
            f"<Admission {self.active} of {self.permits} active, "
            f"{self.waiting} of {self.queue_depth} waiting>"
        )

    @property
    def active(self) -> int:
        """Requests that hold a permit."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._turns.waiting

    def request(self, ticket: Ticket, peer: PeerKey, now: float, room: int = UNBOUNDED) -> Verdict:
        """Ask for a permit for `ticket` on behalf of `peer`."""
        turns = self._turns
        member = turns.member(peer)
        if room > 0 and len(self._running) < self.permits and not turns and member.can_start:
            turns.start(member)
            self._running[ticket] = (member, now)
            return Entry.ADMITTED
        full = self._full_for(member)
        if full is not None:
            turns.forget(member)
            return full
        turns.push(ticket, member)
        return Entry.WAITING

    def release(self, ticket: Ticket, now: float, room: int = UNBOUNDED) -> list[Ticket]:
        """`ticket` ran to its end; the tickets whose turn it is now."""
        member, started = self._running.pop(ticket)
        took = now - started
        mean = self._mean_s
        self._mean_s = took if mean is None else mean + _SMOOTHING * (took - mean)
        self._turns.finish(member)
        return self.admit(now, room)

    def withdraw(self, ticket: Ticket) -> None:
        """A waiting `ticket` gave up; it leaves no trace."""
        self._turns.remove(ticket)

    def resize(self, permits: int, now: float, room: int = UNBOUNDED) -> list[Ticket]:
        """Another number of permits; the tickets whose turn it is now. Takes none back."""
        self.permits = permits
        return self.admit(now, room)

    def admit(self, now: float, room: int = UNBOUNDED) -> list[Ticket]:
        """The tickets whose turn it is now, `room` at most."""
        admitted: list[Ticket] = []
        while len(admitted) < room and self._turns and len(self._running) < self.permits:
            ticket, member = self._turns.pop()
            self._running[ticket] = (member, now)
            admitted.append(ticket)
        return admitted

    def position(self, ticket: Ticket) -> int:
        """How many turns until `ticket`'s own, counted from 1, if nobody else comes or goes.

        Takes time in proportion to the answer. Raises KeyError where it does not wait.
        """
        if ticket in self._turns:
            for position, other in enumerate(self._turns.order(), 1):
                if other == ticket:
                    return position
        raise KeyError(ticket)

    def order(self) -> Iterator[Ticket]:
        """Who waits, in the order of their turns, if nobody else comes or goes."""
        return self._turns.order()

    def place(self, position: int) -> Place:
        """`position` with the time until its turn, by how long requests have taken lately."""
        if self._mean_s is None:
            return Place(position, None)
        return Place(position, round(position * self._mean_s / self.permits * 1000))

    def peers(self) -> list[PeerCounts]:
        """Who runs or waits here."""
        return [
            PeerCounts(peer, member.active, member.waiting, member.share.weight)
            for peer, member in self._turns.peers()
        ]

    def _full_for(self, member: Member) -> Full | None:
        """Why `member` may not wait."""
        user = member.parent
        assert user is not None
        if member.queue_full:
            return self._full("client", member.waiting)
        if user.queue_full:
            return self._full("uid", user.waiting)
        waiting, depth = self.waiting, self.queue_depth
        if waiting < depth or (depth and not user.waiting):
            return None
        if not member.waiting and waiting < depth + depth // _GUEST_PLACES:
            return None
        return self._full("route", waiting)

    def _full(self, whose: Bound, waiting: int) -> Full:
        return Full(whose, waiting, self.place(self.waiting + 1))
