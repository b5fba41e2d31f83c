"""Who asks, and what share of a route that entitles to. Pure.

The uid is the kernel's word; the client label is only what the client says of itself. So labels
divide what their uid has, and never win anything from another uid. Below `NO_UID` a number stands
for the key of one client: there the label is known, and has a share beside other users.
"""

from collections.abc import Mapping
from typing import NamedTuple

NO_UID = -1
"""Of all together who show neither a user nor a key."""


class PeerKey(NamedTuple):
    """One client in the eyes of a queue: a user, and one of the programs that run as that user."""

    uid: int
    client: str


class Share(NamedTuple):
    """Turns in a row when its turn comes; bounds on what it has at once, None for none."""

    weight: int = 1
    active: int | None = None
    queued: int | None = None


EVEN = Share()


class Shares(NamedTuple):
    """The shares of one route; who is not named has one turn, and labels are bound by `peer`."""

    uids: Mapping[int, Share] = {}
    clients: Mapping[str, Share] = {}
    peer: Share = EVEN

    def of_uid(self, uid: int) -> Share:
        """A user's beside other users."""
        return self.uids.get(uid, EVEN)

    def of_user(self, peer: PeerKey) -> Share:
        """As `of_uid`; that of its label for a peer that is known by its key."""
        return self.of_client(peer.client) if peer.uid < NO_UID else self.of_uid(peer.uid)

    def of_client(self, label: str) -> Share:
        """A client's beside other clients of the same user; the stricter bounds hold."""
        named = self.clients.get(label)
        if named is None:
            return self.peer
        return Share(
            named.weight,
            _least(named.active, self.peer.active),
            _least(named.queued, self.peer.queued),
        )


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
