"""Who may run now and who is next: permits, a bounded queue, turns between peers. Pure.

A route has a number of permits, and behind its door there is room or none, which each lane says for
itself. Who finds no permit or no room waits; peers take turns as `turns` has it, so that one with a
hundred waiting requests and one with a single one are served alternately; within a peer the order
is kept in each lane. Never waits, never looks at a clock: `now` is an argument, in seconds.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Literal, NamedTuple

from .ring import Client, Lane, Member, Ticket
from .shares import PeerKey, Shares
from .turns import Turns

_SMOOTHING = 0.2
"""Weight of the newest run in the average that estimates are made of."""
_GUEST_PLACES = 4
"""One in so many places beyond a full queue is for clients that have nothing in it yet."""

UNBOUNDED = 2**31

Bound = Literal["route", "uid", "client"]


class Anywhere:
    """The lane of a door with nothing but permits behind it."""

    has_room = True
    slots = UNBOUNDED


ANYWHERE = Anywhere()


class Entry(Enum):
    """Admitted: run, and `release` at the end. Waiting: until `admit`, or what leads to it, admits
    the ticket, or `withdraw` it."""

    ADMITTED = "admitted"
    WAITING = "waiting"


class Place(NamedTuple):
    """`position` counts turns from 1; `estimate_ms` is None before anything has finished."""

    position: int
    estimate_ms: int | None


class Most(NamedTuple):
    """`at_once` is the most that can run of the route, or of those of the uid or the client."""

    whose: Bound
    at_once: int


class Full(NamedTuple):
    """No place: `waiting` requests fill the queue of the route, of the uid, or of the client.

    `place` would have been the next one; `most` is what bounds whoever waits for it.
    """

    whose: Bound
    waiting: int
    place: Place
    most: Most


class PeerCounts(NamedTuple):
    """What one peer has on a route."""

    peer: PeerKey
    active: int
    waiting: int
    weight: int


Verdict = Entry | Full


class Admission:
    """Permits and queue of one route. Tickets are any hashables, each used once at a time.

    `permits` run at once, in whatever lanes; it may be changed, and takes none back. A full queue
    has a last place for each uid that has nothing in it, and a few for clients that have not: one
    that fills the queue shuts nobody out. `queue_depth` 0 means that nobody waits.
    """

    def __init__(self, permits: int, queue_depth: int, shares: Shares | None = None) -> None:
        self.permits = permits
        self.queue_depth = queue_depth
        self._turns = Turns(shares if shares is not None else Shares())
        self._running: dict[Ticket, tuple[Client, float]] = {}
        self._mean_s: float | None = None

    def __repr__(self) -> str:
        bound = "" if self.permits == UNBOUNDED else f" of {self.permits}"
        return (
            f"<Admission {self.active}{bound} active, {self.waiting} of {self.queue_depth} waiting>"
        )

    @property
    def active(self) -> int:
        """Requests that hold a permit."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._turns.waiting

    def request(self, ticket: Ticket, peer: PeerKey, now: float, lane: Lane = ANYWHERE) -> Verdict:
        """Ask for a permit for `ticket`, which goes by `lane`, on behalf of `peer`."""
        turns = self._turns
        client = turns.member(peer)
        if (
            len(self._running) < self.permits
            and client.can_start
            and lane.has_room
            and not (turns.waiting and turns.roomy())
        ):
            turns.start(client)
            self._running[ticket] = (client, now)
            return Entry.ADMITTED
        full = self._full_for(client, lane)
        if full is not None:
            turns.forget(client)
            return full
        turns.push(ticket, client, lane)
        return Entry.WAITING

    def release(self, ticket: Ticket, now: float, most: int = UNBOUNDED) -> list[Ticket]:
        """`ticket` ran to its end; the tickets whose turn it is now, `most` at most."""
        took = now - self._running[ticket][1]
        mean = self._mean_s
        self._mean_s = took if mean is None else mean + _SMOOTHING * (took - mean)
        return self.hand_on(ticket, now, most)

    def hand_on(self, ticket: Ticket, now: float, most: int = UNBOUNDED) -> list[Ticket]:
        """`ticket` never ran: like `release`, but says nothing of how long runs take."""
        client, _ = self._running.pop(ticket)
        self._turns.finish(client)
        return self.admit(now, most)

    def withdraw(self, ticket: Ticket) -> None:
        """A waiting `ticket` gave up; it leaves no trace."""
        self._turns.remove(ticket)

    def admit(self, now: float, most: int = UNBOUNDED) -> list[Ticket]:
        """The tickets whose turn it is now, `most` at most: one where it takes up room at once
        what the next one is told of it."""
        admitted: list[Ticket] = []
        while len(admitted) < most and len(self._running) < self.permits:
            found = self._turns.pop()
            if found is None:
                break
            ticket, client = found
            self._running[ticket] = (client, now)
            admitted.append(ticket)
        return admitted

    def order(self) -> Iterator[Ticket]:
        """Who waits, in the order of their turns, if nobody came or went and all had room."""
        return self._turns.order()

    def standings(self) -> Iterator[tuple[Ticket, Place]]:
        """`order` with the places."""
        ahead: dict[Lane | Member, int] = {}
        slots: dict[Lane, int] = {}
        for position, ticket in enumerate(self.order(), 1):
            client, lane = self._turns.find(ticket)
            if lane not in slots:
                slots[lane] = lane.slots
            in_lane = ahead[lane] = ahead.get(lane, 0) + 1
            runs = max(position / self.permits, in_lane / slots[lane])
            for node in client.bounded:
                ahead[node] = ahead.get(node, 0) + 1
                runs = max(runs, node.runs_until(ahead[node]))
            yield ticket, self._place(position, runs)

    def place(self, ticket: Ticket) -> Place:
        """Where `ticket` stands; takes time in proportion to the position.

        Raises KeyError where it does not wait.
        """
        if ticket in self._turns:
            for other, place in self.standings():
                if other == ticket:
                    return place
        raise KeyError(ticket)

    def most(self, ticket: Ticket) -> Most:
        """What bounds a waiting `ticket`. Raises KeyError where it does not wait."""
        return self._most(*self._turns.find(ticket))

    def peers(self) -> list[PeerCounts]:
        """Who runs or waits here."""
        return [
            PeerCounts(peer, member.active, member.waiting, member.share.weight)
            for peer, member in self._turns.peers()
        ]

    def _full_for(self, client: Client, lane: Lane) -> Full | None:
        """Why `client` may not wait."""
        user = client.parent
        assert user is not None
        if client.queue_full:
            return self._full("client", client.waiting, client, lane)
        if user.queue_full:
            return self._full("uid", user.waiting, client, lane)
        waiting, depth = self.waiting, self.queue_depth
        if waiting < depth or (depth and not user.waiting):
            return None
        if not client.waiting and waiting < depth + depth // _GUEST_PLACES:
            return None
        return self._full("route", waiting, client, lane)

    def _full(self, whose: Bound, waiting: int, client: Client, lane: Lane) -> Full:
        position = self.waiting + 1
        runs = max(position / self.permits, (self._turns.waiting_for(lane) + 1) / lane.slots)
        for node in client.bounded:
            runs = max(runs, node.runs_until(node.waiting + 1))
        return Full(whose, waiting, self._place(position, runs), self._most(client, lane))

    def _most(self, client: Client, lane: Lane) -> Most:
        user = client.parent
        assert user is not None
        most = Most("route", min(self.permits, lane.slots))
        if user.at_limit and user.share.active is not None:
            most = Most("uid", user.share.active)
        if client.at_limit and client.share.active is not None:
            most = Most("client", client.share.active)
        return most

    def _place(self, position: int, runs: float) -> Place:
        """By how long requests have taken lately."""
        if self._mean_s is None:
            return Place(position, None)
        return Place(position, round(runs * self._mean_s * 1000))
