"""The daemon as a user whom permissions to write and limits of processes bind.

Root is bound by neither, so where the tests run as root the daemon runs as nobody. It keeps the
right to read everything: the Python that runs the tests may lie in root's own directories.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import (
    RunningDaemon,
    daemon_command,
    environment,
    temporary_directory,
    wait_until,
)
from tests.support.lease_client import as_user, server_environment
from tests.support.wire_client import connected

NOBODY = 65534
READS_ALL = "-all,+dac_read_search"


@contextmanager
def plain_directory() -> Iterator[Path]:
    """A directory of that user."""
    with temporary_directory() as directory:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        yield directory


@contextmanager
def plain_daemon(directory: Path, server: str | Path) -> Iterator[RunningDaemon]:
    """A daemon of that user that listens; the block's end ends it and looks what it left."""
    daemon = RunningDaemon(directory, launch(directory, server))
    try:
        wait_listening(daemon)
        yield daemon
        status = daemon.stop()
        assert status == 0, f"the daemon ended with {status}:\n{daemon.log}"
        wait_until(lambda: not daemon.processes(), 2, "the end of all its processes")
    finally:
        daemon.process.kill()
        daemon.process.wait()


def launch(directory: Path, server: str | Path) -> subprocess.Popen[bytes]:
    """The process, whether it will listen or not. Its output goes to `log`."""
    command = daemon_command(directory, (), "")
    # a cache in root's home is no place that this user may run a program from
    reachable = directory / "llama-server"
    if not reachable.exists():
        shutil.copy2(server, reachable)
        reachable.chmod(0o755)
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [*_as_nobody(), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(directory, server_environment(reachable)),
            cwd=directory,
            start_new_session=True,
        )


def wait_listening(daemon: RunningDaemon) -> None:
    """Until it takes clients."""
    wait_until(lambda: _listens(daemon), 10, f"a listening daemon; it said:\n{daemon.log}")


def _as_nobody() -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("without setpriv (util-linux) root cannot give its privileges up but one")
    sets = [f"--{name}={READS_ALL}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *sets]


def _listens(daemon: RunningDaemon) -> bool:
    try:
        with connected(daemon.socket):
            return True
    except OSError:
        assert daemon.process.poll() is None, daemon.log
        return False


def limit_processes(daemon: RunningDaemon, number: int | None) -> None:
    """So many processes and threads may that user have; None for as many as at first."""

    def set_limit() -> None:
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_NPROC)[1]
        resource.prlimit(
            daemon.pid, resource.RLIMIT_NPROC, (hard if number is None else number, hard)
        )

    if os.geteuid() == 0:
        as_user(NOBODY, NOBODY, set_limit)
    else:
        set_limit()
