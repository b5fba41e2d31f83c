"""What a service manager says in the environment, and what it is told."""

import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.systemd import ServiceManager, inherited_sockets


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_heeded_where_it_means_us(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert ServiceManager(environ).watchdog_s == seconds


@pytest.mark.parametrize("abstract", [True, False])
async def test_signs_of_life_come_three_times_an_interval(
    tmp_path: Path, autojump_clock: MockClock, abstract: bool
) -> None:
    name = f"inferd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name if abstract else name)
        heard.setblocking(False)
        address = "@" + name if abstract else name
        manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
        with trio.move_on_after(2.5):
            await manager.run()
        assert [heard.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        with pytest.raises(BlockingIOError):
            heard.recv(100)


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
async def test_without_a_manager_that_we_know_nobody_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket, "socket", lambda *asked: opened.append(asked))
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.ready("")
    manager.reloading()
    manager.stopping()
    await manager.run()
    assert opened == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "a"},
    ],
)
def test_what_was_not_passed_to_us_is_not_taken(environ: dict[str, str]) -> None:
    assert inherited_sockets(environ) == {}


def test_a_passed_socket_has_its_name() -> None:
    read, write = os.pipe()
    saved = os.dup(3)
    try:
        os.dup2(read, 3)
        given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "inferd.sock"}
        assert inherited_sockets(given) == {"inferd.sock": 3}
        assert not os.get_inheritable(3)
        assert inherited_sockets({**given, "LISTEN_FDNAMES": ""}) == {"unknown": 3}
    finally:
        os.dup2(saved, 3, inheritable=False)
        for descriptor in (read, write, saved):
            os.close(descriptor)
