"""The verbs that only look: `status`, `capabilities`, and what an unknown one is told."""

import os

import msgspec
import trio
from trio.testing import MockClock

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.capabilities import capabilities
from inferd_daemon.control.status import status
from inferd_daemon.control.verbs import STREAMS, VERBS, unknown_op
from inferd_daemon.control.view import DaemonView
from inferd_proto import ErrorCode
from tests.daemon.fronts.conversation import view_of


def mock(**config: object) -> MockBackend:
    return MockBackend("mock", MockConfig(**config))  # type: ignore[arg-type]


def call(view: DaemonView) -> Call:
    return Call(view, Peer(1, 2, 3), 1, {})


async def test_status_of_a_daemon_that_serves() -> None:
    view = view_of(mock())
    view.connections = 3
    found = await status(call(view))
    assert found["pid"] == os.getpid()
    assert (found["state"], found["ready"], found["connections"]) == ("ready", True, 3)
    assert msgspec.json.decode(msgspec.json.encode(found)) == found  # plain JSON


async def test_status_follows_the_daemon(autojump_clock: MockClock) -> None:
    view = view_of(mock(not_ready="asleep"))
    await trio.sleep(7)
    found = await status(call(view))
    assert (found["state"], found["ready"], found["uptime_s"]) == ("starting", False, 7.0)
    view.draining = True
    assert (await status(call(view)))["state"] == "draining"


async def test_capabilities_leave_out_what_is_not() -> None:
    found = await capabilities(call(view_of(mock())))
    backend = msgspec.convert(found["backends"], list[dict[str, object]])[0]
    assert backend["backend"] == "mock"
    assert (backend["wire_version"], backend["v2"], backend["vision"]) == (1, True, True)
    assert "n_ctx" not in backend
    assert "gpu_layers" not in backend


def test_an_unknown_operation_is_told_what_there_is() -> None:
    error = unknown_op("fly" * 100)
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "fly" * 27 not in error.message
    for op in ("cancel", "generate", *VERBS, *STREAMS):
        assert op in error.message
