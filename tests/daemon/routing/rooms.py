"""Rooms with so many places, lanes to some of them, and an admission whose runs are in them."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from inferd_daemon.routing.admission import UNBOUNDED, Admission, Entry, Full
from inferd_daemon.routing.ring import Ticket
from inferd_daemon.routing.shares import PeerKey, Shares


class Rooms:
    """How many run in each room."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self.places = dict(places)
        self.taken: Counter[str] = Counter()

    def free(self, name: str) -> bool:
        return self.taken[name] < self.places[name]


class RoomLane:
    """A lane to the rooms that its name spells."""

    def __init__(self, rooms: Rooms, name: str) -> None:
        self.rooms = rooms
        self.name = name
        self.asked = 0

    def __repr__(self) -> str:
        return self.name

    @property
    def has_room(self) -> bool:
        self.asked += 1
        return any(map(self.rooms.free, self.name))

    @property
    def slots(self) -> int:
        return sum(self.rooms.places[name] for name in self.name)


class Asked(NamedTuple):
    """A ticket."""

    number: int
    peer: PeerKey
    lane: str


class House:
    """What a route does with its admission: who has a turn takes its place at once.

    `choose` picks among the rooms that are free to it; the first one by default.
    """

    def __init__(
        self, *, permits: int = UNBOUNDED, shares: Shares | None = None, **places: int
    ) -> None:
        self.admission = Admission(permits, 1_000_000, shares)
        self.rooms = Rooms(places)
        self.lanes: dict[str, RoomLane] = {}
        self.where: dict[Asked, str] = {}
        self.waiting: list[Asked] = []
        self.choose: Callable[[list[str]], str] = lambda free: free[0]
        self._number = 0

    def lane(self, name: str) -> RoomLane:
        if name not in self.lanes:
            self.lanes[name] = RoomLane(self.rooms, name)
        return self.lanes[name]

    def ask(self, peer: PeerKey, lane: str) -> Asked:
        self._number += 1
        ticket = Asked(self._number, peer, lane)
        verdict = self.admission.request(ticket, peer, 0.0, self.lane(lane))
        assert not isinstance(verdict, Full)
        if verdict is Entry.ADMITTED:
            self._enter(ticket)
        else:
            self.waiting.append(ticket)
        return ticket

    def end(self, ticket: Asked) -> list[Asked]:
        """Its run is over; who is let in for it."""
        self.rooms.taken[self.where.pop(ticket)] -= 1
        self.admission.release(ticket, 0.0, 0)
        return self.let_in()

    def free(self, room: str) -> list[Asked]:
        """One of those in `room` ends."""
        return self.end(next(ticket for ticket, where in self.where.items() if where == room))

    def let_in(self) -> list[Asked]:
        admitted: list[Asked] = []
        while tickets := self.admission.admit(0.0, 1):
            admitted += map(self._turn_of, tickets)
        return admitted

    def give_up(self, ticket: Asked) -> None:
        self.waiting.remove(ticket)
        self.admission.withdraw(ticket)

    def _turn_of(self, ticket: Ticket) -> Asked:
        assert isinstance(ticket, Asked)
        self.waiting.remove(ticket)
        self._enter(ticket)
        return ticket

    def _enter(self, ticket: Asked) -> None:
        free = [name for name in ticket.lane if self.rooms.free(name)]
        assert free, f"{ticket} was let in where there is no room"
        room = self.choose(free)
        self.rooms.taken[room] += 1
        self.where[ticket] = room
