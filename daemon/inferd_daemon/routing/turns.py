"""Whose turn it is: deficit round robin between users, and between the clients of each. Pure.

All requests cost the same, so a deficit is a count: `weight` turns in a row, then to the end of the
ring. A ring holds only members that could go now; the others are children that wait outside of it.
Who joins comes before the one that has just had its turns: that one would be second in a row else.
Never holds a member that has nothing here: without waiting or active requests it is forgotten.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Any

from .shares import PeerKey, Share, Shares

Ticket = Hashable


class Member:
    """A user, or a client of one; at the root everybody.

    `line` is in the order of the next turns: of a client its tickets, else its children that can
    go. `turns` are left before the next member's. `rested` is the last child of the line, as long
    as it is the one that has had its turns most recently.
    """

    __slots__ = (
        "active",
        "children",
        "key",
        "line",
        "parent",
        "rested",
        "share",
        "turns",
        "waiting",
    )

    def __init__(self, key: Any, parent: "Member | None", share: Share) -> None:  # noqa: ANN401
        self.key = key
        self.parent = parent
        self.share = share
        self.turns = share.weight
        self.active = 0
        self.waiting = 0
        self.children: dict[Hashable, Member] = {}
        self.line: OrderedDict[Hashable, Any] = OrderedDict()
        self.rested: Member | None = None

    @property
    def at_limit(self) -> bool:
        """It has as many active requests as it may."""
        return self.share.active is not None and self.active >= self.share.active

    @property
    def can_start(self) -> bool:
        """Of a client: neither it nor its user is at its limit."""
        return not self.at_limit and (self.parent is None or not self.parent.at_limit)

    @property
    def queue_full(self) -> bool:
        """It has as many waiting requests as it may."""
        return self.share.queued is not None and self.waiting >= self.share.queued

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
        if not self.active and not self.waiting:
            parent.children.pop(self.key, None)

    def _join(self, parent: "Member") -> None:
        self.turns = self.share.weight
        if not parent.line and self.active:
            parent.rested = self  # what it runs was its turn
        parent.line[self.key] = self
        if parent.rested is not None:
            parent.line.move_to_end(parent.rested.key)

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

    def order(self) -> Iterator[Ticket]:
        """Its tickets in the order of their turns, if nobody came or went.

        Who is at a limit is taken to come last in its ring.
        """
        if not self.children:
            yield from self.line
            return
        ring = deque((child.turns, child) for child in self.line.values())
        ring.extend(
            (child.share.weight, child)
            for child in self.children.values()
            if child.waiting and child.key not in self.line
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


class Turns:
    """Everybody's waiting and active requests on one route."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._everybody = Member(None, None, Share())
        self._member_of: dict[Ticket, Member] = {}

    @property
    def waiting(self) -> int:
        """Tickets in all lines."""
        return len(self._member_of)

    def __bool__(self) -> bool:
        """True where somebody who waits could go now."""
        return bool(self._everybody.line)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._member_of

    def member(self, peer: PeerKey) -> Member:
        """The client's; new where it has nothing here yet. Use it at once: `push` or `start`."""
        uid, label = peer
        users = self._everybody.children
        user = users.get(uid)
        if user is None:
            user = users[uid] = Member(uid, self._everybody, self._shares.of_user(peer))
        client = user.children.get(label)
        if client is None:
            client = user.children[label] = Member(label, user, self._shares.of_client(label))
        return client

    def forget(self, client: Member) -> None:
        """`client` came to nothing."""
        user = client.parent
        assert user is not None
        client.settle()
        user.settle()

    def push(self, ticket: Ticket, client: Member) -> None:
        """To the end of the client's line."""
        client.line[ticket] = None
        self._member_of[ticket] = client
        node: Member | None = client
        while node is not None:
            node.waiting += 1
            node = node.parent
        client.settle()

    def pop(self) -> tuple[Ticket, Member]:
        """Whose turn it is, counted as active from now on. Raises StopIteration where nobody is."""
        user: Member = next(iter(self._everybody.line.values()))
        client: Member = next(iter(user.line.values()))
        ticket, _ = client.line.popitem(last=False)
        del self._member_of[ticket]
        for member in (client, user):
            member.waiting -= 1
            member.active += 1
            member.spend()
        self._everybody.waiting -= 1
        client.settle()
        user.settle()
        return ticket, client

    def remove(self, ticket: Ticket) -> None:
        """`ticket` waits no more. Raises KeyError where it did not."""
        client = self._member_of.pop(ticket)
        del client.line[ticket]
        node: Member | None = client
        while node is not None:
            node.waiting -= 1
            node = node.parent
        self.forget(client)

    def start(self, client: Member) -> None:
        """The client runs a request that never waited."""
        client.active += 1
        assert client.parent is not None
        client.parent.active += 1

    def finish(self, client: Member) -> None:
        """A request of the client's has ended."""
        user = client.parent
        assert user is not None
        client.active -= 1
        user.active -= 1
        client.settle()
        user.settle()

    def order(self) -> Iterator[Ticket]:
        """All tickets in the order of their turns, if nobody came or went."""
        return self._everybody.order()

    def peers(self) -> Iterator[tuple[PeerKey, Member]]:
        """Who has something here."""
        for user in self._everybody.children.values():
            for client in user.children.values():
                yield PeerKey(user.key, client.key), client
