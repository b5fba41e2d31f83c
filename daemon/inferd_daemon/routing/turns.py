"""Whose turn it is on one route: users take turns, and within a user's turns its clients do. Pure.

Of those who could go, whoever is first in turn goes: a limit of its own, or a lane without room,
holds back nobody else. The order between peers is one for all lanes. Within a client it is kept in
each lane; across lanes, who finds room passes who does not.

Nobody who waits for a lane starves by those who share its room. Who is passed by keeps its place,
or has a claim for it (`ring`): of the room that a lane gets, each peer that waits there has at
least its share, whatever the others, itself included, get elsewhere in the meantime. Only a lane
that gets no room while a permit is free makes wait without end (permits are kept for nobody, as
that could leave both idle); `max_wait_ms` bounds that.

Never holds a member that has nothing here: without waiting or active requests it is forgotten.
"""

from collections.abc import Iterator

from .ring import Client, Group, Lane, Member, Ticket
from .shares import PeerKey, Share, Shares


class Turns:
    """Everybody's waiting and active requests on one route."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._everybody = Group(None, None, Share())
        self._where: dict[Ticket, tuple[Client, Lane]] = {}
        self._number = 0

    @property
    def waiting(self) -> int:
        """Tickets in all lines."""
        return len(self._where)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._where

    def waiting_for(self, lane: Lane) -> int:
        """Tickets that wait for `lane`."""
        return self._everybody.lanes.get(lane, 0)

    def find(self, ticket: Ticket) -> tuple[Client, Lane]:
        """Whose it is and where it goes. Raises KeyError where it does not wait."""
        return self._where[ticket]

    def member(self, peer: PeerKey) -> Client:
        """The client; new where it has nothing here yet. Use it at once: `push` or `start`."""
        uid, label = peer
        users = self._everybody.children
        user = users.get(uid)
        if user is None:
            user = users[uid] = Group(uid, self._everybody, self._shares.of_user(peer))
        assert isinstance(user, Group)
        client = user.children.get(label)
        if client is None:
            client = user.children[label] = Client(label, user, self._shares.of_client(label))
        assert isinstance(client, Client)
        return client

    def forget(self, client: Client) -> None:
        """`client` came to nothing."""
        user = client.parent
        assert user is not None
        client.settle()
        user.settle()

    def push(self, ticket: Ticket, client: Client, lane: Lane) -> None:
        """To the end of the client's line for `lane`."""
        self._number += 1
        client.push(ticket, lane, self._number)
        self._where[ticket] = client, lane
        for node in _up_from(client):
            node.enter(lane)
        client.settle()

    def roomy(self) -> list[Lane]:
        """The lanes that have room, and somebody waiting who could go now. Each is asked once."""
        everybody = self._everybody
        return [lane for lane in everybody.lanes if lane.has_room and everybody.goes(lane)]

    def pop(self) -> tuple[Ticket, Client] | None:
        """Whose turn it is, counted as active from now on; None where nobody can go."""
        lanes = self.roomy()
        if not lanes:
            return None
        user, of_user = self._everybody.next(lanes)
        assert isinstance(user, Group)
        client, of_client = user.next(of_user)
        assert isinstance(client, Client)
        ticket = client.first(of_client)
        self._take_out(ticket)
        self.start(client)
        self.forget(client)  # also where nothing waits any more
        return ticket, client

    def remove(self, ticket: Ticket) -> None:
        """`ticket` waits no more. Raises KeyError where it did not."""
        self.forget(self._take_out(ticket))

    def start(self, client: Client) -> None:
        """The client runs a request more."""
        user = client.parent
        assert user is not None
        client.active += 1
        user.active += 1
        if user.lanes:  # what it waits for elsewhere may have reached a limit by that
            self.forget(client)

    def finish(self, client: Client) -> None:
        """A request of the client's has ended."""
        user = client.parent
        assert user is not None
        client.active -= 1
        user.active -= 1
        self.forget(client)

    def order(self) -> Iterator[Ticket]:
        """All tickets in the order of their turns, if nobody came or went and all had room."""
        return self._everybody.order()

    def peers(self) -> Iterator[tuple[PeerKey, Client]]:
        """Who has something here."""
        for user in self._everybody.children.values():
            assert isinstance(user, Group)
            for client in user.children.values():
                assert isinstance(client, Client)
                yield PeerKey(user.key, client.key), client

    def _take_out(self, ticket: Ticket) -> Client:
        client, lane = self._where.pop(ticket)
        client.remove(ticket, lane)
        for node in _up_from(client):
            node.leave(lane)
        return client


def _up_from(client: Client) -> tuple[Member, Group, Group]:
    user = client.parent
    assert user is not None
    assert user.parent is not None
    return client, user, user.parent
