"""The real daemon under a stand-in for systemd: what it says, and the socket that it is given."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support import without_chown
from tests.support.daemon import (
    STOP_S,
    daemon_command,
    environment,
    running_daemon,
    temporary_directory,
    wait_until,
)
from tests.support.lease_client import ask
from tests.support.wire_client import WireClient, connected

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
UNITS = Path(__file__).parents[2] / "systemd"
WITHIN_S = 60.0


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """Hears what a service says, as systemd does."""
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.bind(str(directory / "notify"))
        it.settimeout(WITHIN_S)
        yield it


def hear(manager: socket.socket, *, watchdog: bool = False) -> dict[str, str]:
    """The next message, signs of life passed over."""
    while True:
        lines = manager.recv(4096).decode().splitlines()
        message = dict(line.split("=", 1) for line in lines)
        if watchdog or "WATCHDOG" not in message:
            return message


def test_it_tells_its_life_from_start_over_upgrades_to_stop(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1500000"}
    with running_daemon("--backend", "mock", environ=environ) as daemon:
        assert hear(manager) == {"READY": "1", "MAINPID": str(daemon.pid), "STATUS": "1 routes"}
        for _ in range(2):
            daemon.process.send_signal(signal.SIGUSR2)
            reloading = hear(manager)
            assert (reloading["RELOADING"], reloading["STATUS"]) == ("1", "upgrading")
            assert int(reloading["MONOTONIC_USEC"]) > 0
            assert hear(manager)["MAINPID"] == str(daemon.pid)
        for _ in range(3):
            assert hear(manager, watchdog=True) == {"WATCHDOG": "1"}
        daemon.process.terminate()
        assert hear(manager)["STOPPING"] == "1"
        assert daemon.process.wait(STOP_S) == 0


def test_a_manager_that_is_gone_stops_nothing() -> None:
    with running_daemon("--backend", "mock", environ={"NOTIFY_SOCKET": "/no/such"}) as daemon:
        daemon.wait_for("service manager not told")
        with connected(daemon.socket) as client:
            assert ask(client, "status")["ready"]


def test_a_socket_of_the_service_manager_outlives_the_daemon() -> None:
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = directory / "run" / "inferd.sock"
        path.parent.mkdir(mode=0o700)
        listening.bind(str(path))
        listening.listen(16)
        with closing(socket.socket(socket.AF_UNIX)) as early:
            early.connect(str(path))  # before there is a daemon
        command = daemon_command(directory, ("--backend", "mock"), None)
        activate = [sys.executable, "-c", ACTIVATE, str(listening.fileno())]
        activation = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "inferd.sock"}
        for _ in range(2):
            log = (directory / "log").open("ab")
            process = subprocess.Popen(
                [*activate, *command],
                env=environment(directory, activation),
                pass_fds=(listening.fileno(),),
                stderr=log,
            )
            try:
                with connected(path, WITHIN_S) as client:
                    assert ask(client, "status")["pid"] == process.pid
                    process.send_signal(signal.SIGUSR2)
                    wait_until(partial(_is_upgraded, client), WITHIN_S, "an upgrade")
                with connected(path, WITHIN_S) as client:
                    assert ask(client, "status")["upgrades"] == 1
                process.terminate()
                assert process.wait(STOP_S) == 0
            finally:
                process.kill()
                process.wait()
                log.close()
            assert path.is_socket()
        assert not path.with_name("inferd.sock.lock").exists()


def _is_upgraded(client: WireClient) -> bool:
    return bool(ask(client, "status")["upgrades"] == 1)


systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


@systemd_analyze
def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    for unit in ("inferd.service", "inferd.socket"):
        text = (UNITS / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/bin/inferd", sys.executable))
    paths = [str(tmp_path / unit) for unit in ("inferd.service", "inferd.socket")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not done.stderr + done.stdout  # an unknown key is only warned of
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=25", paths[0]]
    subprocess.run(rated, stdout=subprocess.DEVNULL, timeout=60, check=True, env=os.environ)


@systemd_analyze
def test_the_filter_of_system_calls_leaves_what_the_daemon_does() -> None:
    allowed: set[str] = set()
    for line in (UNITS / "inferd.service").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter":
            calls = {call for name in value.lstrip("~").split() for call in calls_of(name)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    # sockets for groups; runtimes that die with the daemon; its next self; watching their ends
    needed = {"chown", "fchownat", "prctl", "execve", "memfd_create", "pidfd_open", "setpriority"}
    assert needed | {"pidfd_send_signal", "setsid", "kill", "epoll_wait", "flock"} <= allowed
    assert not {"mount", "setuid", "init_module", "ptrace", "reboot"} & allowed


def calls_of(name: str) -> set[str]:
    """Of a set of system calls, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.strip() for line in done.stdout.splitlines()[1:]]
    found = [line for line in lines if line and not line.startswith("#")]
    return {call for each in found for call in calls_of(each)}


@without_chown.possible
def test_an_environment_that_denies_chown_stops_no_daemon() -> None:
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock"), None)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, without_chown.__file__, *command],
                env=environment(directory, {}),
                stderr=log,
            )
        path = directory / "run" / "inferd.sock"
        try:
            wait_until(path.exists, WITHIN_S, "a listening daemon")
            with connected(path, WITHIN_S) as client:
                process.send_signal(signal.SIGUSR2)
                wait_until(partial(_is_upgraded, client), WITHIN_S, "an upgrade")
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
            process.wait()
