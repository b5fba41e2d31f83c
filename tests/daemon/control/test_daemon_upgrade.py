"""`daemon.upgrade` is for administrators, and for a daemon that can."""

import os

import pytest

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.daemon_upgrade import daemon_upgrade
from inferd_daemon.control.view import DaemonView
from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.supervision.succession.handover import Handover
from inferd_daemon.supervision.succession.upgrade import Upgrade, UpgradeRefused
from inferd_proto import ErrorCode
from tests.daemon.fronts.conversation import view_of


def no_snapshot() -> Handover:
    raise AssertionError("nobody may look")


def view(upgrade: Upgrade | None) -> DaemonView:
    made = view_of(MockBackend("mock", MockConfig()))
    made.upgrade = upgrade
    return made


async def test_another_user_may_not() -> None:
    upgrade = Upgrade(no_snapshot)
    with pytest.raises(RequestError) as refused:
        await daemon_upgrade(Call(view(upgrade), Peer(1, 4711, 4711), 1, {}))
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    assert not upgrade.asked.is_set()


async def test_one_at_a_time() -> None:
    upgrade = Upgrade(no_snapshot)
    upgrade.asked.set()
    with pytest.raises(UpgradeRefused, match="under way already"):
        await daemon_upgrade(Call(view(upgrade), Peer(1, os.geteuid(), 0), 1, {}))


async def test_a_daemon_that_cannot_says_so() -> None:
    with pytest.raises(BackendFault, match="cannot be upgraded in place"):
        await daemon_upgrade(Call(view(None), Peer(1, os.geteuid(), 0), 1, {}))
