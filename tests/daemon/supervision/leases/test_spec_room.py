"""What specs may take in the journal: of one user, of all, and again once it is given back."""

import pytest

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.spec_room import SpecLimits, SpecRoom
from inferd_proto import ErrorCode

ONE, OTHER, ADMIN = Claimant(1), Claimant(2), Claimant(0, admin=True)


def test_one_user_leaves_room_for_the_others() -> None:
    room = SpecRoom(SpecLimits(total=100, per_uid=40))
    room.take("a", 30, ONE.uid)
    room.require(10, ONE)
    with pytest.raises(RequestError, match="uid 1") as refused:
        room.require(11, ONE)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    room.require(40, OTHER)


def test_all_together_have_a_limit_for_administrators_too() -> None:
    room = SpecRoom(SpecLimits(total=100, per_uid=40))
    room.take("a", 90, ADMIN.uid)
    room.require(10, ADMIN)
    with pytest.raises(RequestError, match="all leased"):
        room.require(11, ADMIN)


def test_what_is_forgotten_makes_room_once() -> None:
    room = SpecRoom(SpecLimits(total=100, per_uid=100))
    for _ in range(3):
        room.take("a", 60, ONE.uid)  # the same, written again
    room.require(40, ONE)
    room.give_back("a")
    room.give_back("a")
    room.require(100, ONE)
    with pytest.raises(RequestError):
        room.require(101, ONE)
