"""How the daemon starts where what it starts with is odd, and what it says where it cannot."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.daemon import (
    STOP_S,
    RunningDaemon,
    daemon_command,
    environment,
    temporary_directory,
    wait_until,
)
from tests.support.lease_client import ask
from tests.support.wire_client import connected

WITHOUT = """
import os, sys
for number in map(int, sys.argv[1].split(",")):
    os.close(number)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
PROC_NOT_THERE = """
import os
for name in ("listdir", "scandir"):
    def look(path=".", real=getattr(os, name)):
        if path == "/proc":
            raise OSError(24, "Too many open files")
        return real(path)
    setattr(os, name, look)
"""


def start(directory: Path, command: Sequence[str]) -> RunningDaemon:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(directory, {}),
            cwd=directory,
            start_new_session=True,
        )
    return RunningDaemon(directory, process)


def held(daemon: RunningDaemon, numbers: str) -> set[str]:
    """What stands behind these descriptors of the daemon."""
    return {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in numbers.split(",")}


@pytest.mark.parametrize("closed", ["0", "1", "2", "0,1,2"])
def test_closed_standard_streams_are_nobodys_sockets(closed: str) -> None:
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock"), None)
        daemon = start(directory, [sys.executable, "-c", WITHOUT, closed, *command[1:]])
        try:
            wait_until(daemon.socket.exists, 10, f"a listening daemon; it said:\n{daemon.log}")
            with connected(daemon.socket, 60) as client:
                assert held(daemon, closed) == {"/dev/null"}
                ask(client, "daemon.upgrade")
                wait_until(lambda: ask(client, "status")["upgrades"], 20, "an upgrade")
                assert held(daemon, closed) == {"/dev/null"}
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
            daemon.process.wait(STOP_S)


def test_what_the_operator_can_mend_is_one_line_wherever_it_was_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PROC_NOT_THERE)
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock"), None)
        former = start(directory, command)
        try:
            # its mark: there is something to look for
            wait_until(
                lambda: any(map(Path.read_bytes, directory.rglob("journal"))), 10, "an entry"
            )
        finally:
            former.process.kill()
            former.process.wait(STOP_S)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(directory, {"PYTHONPATH": str(tmp_path)}),
        )
        why = "cannot look for processes of a former run: Too many open files"
        assert (done.returncode, done.stderr) == (1, f"inferd: {why}\n")
