"""The real daemon as a process in a temporary directory, ended and looked after.

    with running_daemon("--backend", "mock") as daemon:
        with connected(daemon.socket) as client: ...

The block's end sends SIGTERM and checks that the daemon stopped with status 0, that none of its
processes is left, and that its socket is gone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STOP_S = 30.0
"""Longer than any drain that a test configures."""
LOADED = 5
"""How much longer than on an idle machine anything may take on a busy one."""
LEAST_S = 20.0
"""A process that is not run for seconds is late by as much, however short its work."""


class RunningDaemon:
    """One daemon process. `directory` holds all of its files."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process
        self.socket = directory / "run" / "inferd.sock"
        self.log_path = directory / "log"

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        return self.process.pid

    @property
    def rss_kib(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1])

    @property
    def log(self) -> str:
        """Everything it wrote to standard error so far."""
        return self.log_path.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as objects. Raises ValueError for a line that is not JSON."""
        whole = self.log.rpartition("\n")[0]  # a long line is written in several pieces
        return [json.loads(line) for line in whole.splitlines()]

    def events(self) -> list[str]:
        """What the log's lines say."""
        return [line["event"] for line in self.log_lines()]

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = STOP_S) -> int:
        """Send a signal and wait; the exit status. Raises TimeoutExpired."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def wait_for(self, event: str, within_s: float = 5.0) -> None:
        """Wait until the log says `event`."""
        wait_until(lambda: event in self.events(), within_s, f"{event!r} in the log")

    def processes(self) -> list[int]:
        """Living processes of its: in its session, its directory, or with its environment."""
        return [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._owns(pid)
        ]

    def _owns(self, pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            # Runtimes have a session and an environment of their own, and work in its directory.
            inside = Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self.directory)
        except OSError:
            return False
        mark = f"INFERD_TEST_DIRECTORY={self.directory}".encode()
        mine = inside or int(fields[3]) == self.pid or mark in environ.split(b"\0")
        return mine and fields[0] != "Z"


@contextmanager
def running_daemon(
    *arguments: str,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
    ready_timeout_s: float = 10.0,
) -> Iterator[RunningDaemon]:
    """A daemon that listens, with these arguments and, where given, this configuration file."""
    with temporary_directory() as directory:
        command = daemon_command(directory, arguments, config)
        daemon = _start(directory, command, environ or {})
        try:
            wait_until(
                lambda: _listens(daemon),
                ready_timeout_s,
                f"a listening daemon; it said:\n{daemon.log}",
            )
            yield daemon
            if daemon.process.poll() is None:
                status = daemon.stop()
                assert status == 0, f"the daemon ended with {status}:\n{daemon.log}"
            wait_until(lambda: not daemon.processes(), 2.0, "the end of all its processes")
            assert not daemon.socket.exists() or daemon.process.returncode < 0
        finally:
            for pid in daemon.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            daemon.process.wait(STOP_S)


def daemon_command(directory: Path, arguments: tuple[str, ...], config: str | None) -> list[str]:
    """The command line; writes the configuration file that it names."""
    command = [sys.executable, "-m", "inferd_daemon", *arguments]
    command += ["--socket", str(directory / "run" / "inferd.sock")]
    if config is not None:
        path = directory / "config.toml"
        path.write_text(config)
        command += ["--config", str(path)]
    return command


def environment(directory: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would lead the daemon out of `directory`."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("INFERD", "XDG"))
    }
    mine = {"HOME": str(directory), "INFERD_TEST_DIRECTORY": str(directory)}
    return {**kept, **mine, **extra}


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A short path: a socket's must fit 107 bytes, and pytest's own are long."""
    directory = Path(tempfile.mkdtemp(prefix="inferd-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def wait_until(true: Callable[[], object], within_s: float, what: str) -> None:
    """Look every 5 ms. Raises AssertionError after `patience` with `within_s`, what it may take."""
    deadline = time.monotonic() + patience(within_s)
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience(within_s):g} s for {what}")
        time.sleep(0.005)


def patience(within_s: float) -> float:
    """How long to wait for what takes `within_s` on an idle machine at most."""
    return max(LEAST_S, LOADED * within_s)


def _start(directory: Path, command: list[str], environ: Mapping[str, str]) -> RunningDaemon:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(directory, environ),
            cwd=directory,
            start_new_session=True,
        )
    return RunningDaemon(directory, process)


def _listens(daemon: RunningDaemon) -> bool:
    status = daemon.process.poll()
    if status is not None:
        raise AssertionError(f"the daemon ended with {status} at once:\n{daemon.log}")
    return daemon.socket.exists()
