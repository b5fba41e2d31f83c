"""`config.reload` is the upgrade in place, under the name of what is wanted."""

import os

import pytest

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.config_reload import config_reload
from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.succession.handover import Handover
from inferd_daemon.supervision.succession.upgrade import Upgrade, UpgradeRefused
from inferd_proto import ErrorCode
from tests.daemon.fronts.conversation import view_of


def no_snapshot() -> Handover:
    raise AssertionError("nobody may look")


async def test_it_is_for_administrators_and_one_at_a_time() -> None:
    view = view_of(MockBackend("mock", MockConfig()))
    view.upgrade = Upgrade(no_snapshot)
    with pytest.raises(RequestError) as refused:
        await config_reload(Call(view, Peer(1, 4711, 4711), 1, {}))
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    view.upgrade.asked.set()
    with pytest.raises(UpgradeRefused, match="under way already"):
        await config_reload(Call(view, Peer(1, os.geteuid(), 0), 1, {}))
