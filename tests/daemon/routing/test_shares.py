"""Whose share a peer has beside other users."""

import pytest

from inferd_daemon.routing.shares import EVEN, PeerKey, Share, Shares

SHARES = Shares(uids={7: Share(2)}, clients={"editor": Share(4, queued=9)}, peer=Share(1, 5))


@pytest.mark.parametrize(
    ("peer", "share"),
    [
        (PeerKey(7, "editor"), Share(2)),  # what it says of itself wins nothing
        (PeerKey(8, "editor"), EVEN),
        (PeerKey(-1, "editor"), EVEN),
        (PeerKey(-2, "editor"), Share(4, 5, 9)),  # known by its key
        (PeerKey(-3, "other"), Share(1, 5)),
    ],
)
def test_beside_other_users(peer: PeerKey, share: Share) -> None:
    assert SHARES.of_user(peer) == share
