"""What nobody foresaw ends one client's session, on either socket, and is in the log."""

import socket
from collections.abc import MutableMapping
from typing import Any

import pytest
import trio

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.fronts.admin_feed import AdminFeed
from inferd_daemon.fronts.last_door import last_door
from tests.daemon.fronts.conversation import view_of

LogLines = list[MutableMapping[str, Any]]


def test_it_logs_and_goes_on(log_lines: LogLines) -> None:
    with last_door("session", 7):
        raise ExceptionGroup("x", [KeyError("y")])
    (line,) = log_lines
    assert (line["event"], line["pid"]) == ("session failed unexpectedly", 7)


async def test_cancellation_passes(log_lines: LogLines) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with last_door("session", 7):
            await trio.lowlevel.checkpoint()
        raise AssertionError("it went on")
    assert scope.cancelled_caught
    assert not log_lines


def test_the_end_of_the_process_passes() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, last_door("session", 7):
        raise BaseExceptionGroup("x", [KeyboardInterrupt(), ValueError()])
    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt]


async def test_a_client_of_the_feed_that_meets_a_fault_is_dropped_alone(
    log_lines: LogLines,
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")  # a name of the kernel's choice
        listening.listen()
        listening.setblocking(False)
        # a daemon without runtimes has no feed: to listen to it is a fault
        feed = AdminFeed(listening, view_of(MockBackend("mock", MockConfig())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            for _ in range(2):
                with trio.socket.socket(socket.AF_UNIX) as client:
                    await client.connect(listening.getsockname())
                    with trio.fail_after(10):
                        assert await client.recv(100) == b""
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in log_lines] == ["admin feed failed unexpectedly"] * 2
