"""Whose turn it is of the members of one ring: deficit round robin, with claims. Pure.

All requests cost the same, so a deficit is a count: `weight` turns in a row, then to the end of the
ring. A ring holds only members that could go now; the others are children that wait outside of it.
Who joins comes before the one that has just had its turns: that one would be second in a row else.

Who waits in several lanes has its turns for one after the other. Where that lane has no room, it
gets a claim to the next room there in exchange for the turn: those who pass it by owe it that much
and no more.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

from .shares import Share

Ticket = Hashable


class Lane(Protocol):
    """Where some requests may go, and others may not. Compared by identity."""

    @property
    def has_room(self) -> bool:
        """One more could begin at once."""

    @property
    def slots(self) -> int:
        """How many are worked on at once there."""


class Member:
    """Has its place in its parent's ring as long as something in its `line` could go.

    `turns` are left before the next member's. `lanes` are those where it waits, with how many: the
    first one is that of its next turn.
    """

    __slots__ = ("active", "key", "lanes", "line", "parent", "share", "turns")

    def __init__(self, key: Any, parent: "Group | None", share: Share) -> None:  # noqa: ANN401
        self.key = key
        self.parent = parent
        self.share = share
        self.turns = share.weight
        self.active = 0
        self.lanes: OrderedDict[Lane, int] = OrderedDict()
        self.line: OrderedDict[Hashable, Any] = OrderedDict()

    @property
    def at_limit(self) -> bool:
        """It has as many active requests as it may."""
        return self.share.active is not None and self.active >= self.share.active

    @property
    def waiting(self) -> int:
        """Its tickets in all lanes."""
        return sum(self.lanes.values())

    @property
    def queue_full(self) -> bool:
        """It has as many waiting requests as it may."""
        return self.share.queued is not None and self.waiting >= self.share.queued

    def runs_until(self, turn: int) -> float:
        """How many runs one after the other until its own limit allows so many turns."""
        return turn / self.share.active if self.share.active is not None else 0.0

    def goes(self, lane: Lane) -> bool:
        """Somebody in its line waits for `lane`."""
        raise NotImplementedError

    def order(self) -> Iterator[Ticket]:
        """Its tickets in the order of their turns, if nobody came or went."""
        raise NotImplementedError

    def enter(self, lane: Lane) -> None:
        """One more waits for `lane`."""
        self.lanes[lane] = self.lanes.get(lane, 0) + 1

    def leave(self, lane: Lane) -> None:
        """One less does; who has nobody there has no claim there."""
        self.lanes[lane] -= 1
        if not self.lanes[lane]:
            del self.lanes[lane]
            if self.parent is not None:
                self.parent.claims.pop((self, lane), None)

    def settle(self) -> None:
        """Join or leave the parent's ring, as things stand, all the way up; go where idle."""
        parent = self.parent
        if parent is None:
            return
        can_go = bool(self.line) and not self.at_limit
        if can_go != (self.key in parent.line):
            if can_go:
                self._join(parent)
            else:
                del parent.line[self.key]
                if parent.rested is self:
                    parent.rested = None
            parent.settle()
        if not self.active and not self.lanes:
            parent.children.pop(self.key, None)

    def spend(self) -> None:
        """One turn is taken; after the last one, to the end of the ring."""
        parent = self.parent
        assert parent is not None
        self.turns -= 1
        parent.rested = None
        if self.turns == 0:
            self.turns = self.share.weight
            parent.line.move_to_end(self.key)
            parent.rested = self

    def _join(self, parent: "Group") -> None:
        self.turns = self.share.weight
        if not parent.line and self.active:
            parent.rested = self  # what it runs was its turn
        parent.line[self.key] = self
        if parent.rested is not None:
            parent.line.move_to_end(parent.rested.key)


class Client(Member):
    """One that has tickets: in each lane a line of them, first come first."""

    __slots__ = ()
    line: OrderedDict[Lane, "OrderedDict[Ticket, int]"]  # type: ignore[assignment]

    @property
    def can_start(self) -> bool:
        """Neither it nor its user is at its limit."""
        return not (self.at_limit or (self.parent is not None and self.parent.at_limit))

    @property
    def bounded(self) -> list[Member]:
        """Itself and its user, where they may have only so many active."""
        nodes = (self, self.parent)
        return [node for node in nodes if node is not None and node.share.active is not None]

    def goes(self, lane: Lane) -> bool:
        return lane in self.line

    def push(self, ticket: Ticket, lane: Lane, number: int) -> None:
        """To the end of its line; `number` tells who came first among lanes."""
        tickets = self.line.get(lane)
        if tickets is None:
            tickets = self.line[lane] = OrderedDict()
        tickets[ticket] = number

    def remove(self, ticket: Ticket, lane: Lane) -> None:
        """Out of its line."""
        tickets = self.line[lane]
        del tickets[ticket]
        if not tickets:
            del self.line[lane]

    def first(self, lanes: Collection[Lane]) -> Ticket:
        """Who came first of those that wait for one of `lanes`."""
        heads = (next(iter(self.line[lane].items())) for lane in lanes if lane in self.line)
        return min(heads, key=itemgetter(1))[0]

    def order(self) -> Iterator[Ticket]:
        lines = (tickets.items() for tickets in self.line.values())
        for ticket, _ in merge(*lines, key=itemgetter(1)):
            yield ticket


class Group(Member):
    """A user with its clients; at the root everybody with the users.

    `line` is the ring, in the order of the next turns. `rested` is its last child, as long as it is
    the one that has had its turns most recently. `claims` are of children, the oldest first.
    """

    __slots__ = ("children", "claims", "rested")
    line: OrderedDict[Hashable, Member]

    def __init__(self, key: Any, parent: "Group | None", share: Share) -> None:  # noqa: ANN401
        super().__init__(key, parent, share)
        self.children: dict[Hashable, Member] = {}
        self.rested: Member | None = None
        self.claims: OrderedDict[tuple[Member, Lane], None] = OrderedDict()

    def goes(self, lane: Lane) -> bool:
        return lane in self.lanes and any(child.goes(lane) for child in self.line.values())

    def next(self, roomy: Collection[Lane]) -> tuple[Member, Collection[Lane]]:
        """Whose turn it is where there is room in `roomy`, and for which of these lanes.

        Somebody here must go for one of them.
        """
        for child, lane in self.claims:
            if lane in roomy and child.key in self.line and child.goes(lane):
                del self.claims[child, lane]
                return child, (lane,)
        while True:
            child, lane = self._first(roomy)
            child.spend()
            child.lanes.move_to_end(lane)
            if lane in roomy:
                return child, roomy
            self.claims[child, lane] = None

    def order(self) -> Iterator[Ticket]:
        """As if there were room in all lanes. Who is at a limit is taken to come last."""
        ring = deque((child.turns, child) for child in self.line.values())
        ring.extend(
            (child.share.weight, child)
            for child in self.children.values()
            if child.lanes and child.key not in self.line
        )
        rest = {child.key: child.order() for _, child in ring}
        while ring:
            turns, child = ring.popleft()
            taken = 0
            for ticket in islice(rest[child.key], turns):
                yield ticket
                taken += 1
            if taken == turns:
                ring.append((child.share.weight, child))

    def _first(self, roomy: Collection[Lane]) -> tuple[Member, Lane]:
        """Whose turn it is, and for which lane: for one without room only if it has no claim."""
        for child in self.line.values():
            for lane in child.lanes:
                if (lane in roomy or (child, lane) not in self.claims) and child.goes(lane):
                    return child, lane
        raise AssertionError("nobody goes for a lane that has room")
