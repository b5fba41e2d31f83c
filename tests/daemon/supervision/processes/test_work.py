"""A process that computes works, one that sleeps or is stopped does not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_daemon.supervision.processes.work import Work
from tests.support.daemon import wait_until

BUSY = "while True: pass"
QUIET = "import time; print(flush=True); time.sleep(1000)"


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-Sc", code], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def state(pid: int) -> str:
    """As in /proc: R while it runs or wants to, S while it sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_who_computes_works_until_stopped() -> None:
    with running(BUSY) as process:
        work = Work(process.pid)
        for _ in range(3):
            # A busy machine may give it no turn for a while.
            wait_until(work.went_on, 10, "its work")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        work.went_on()
        time.sleep(0.05)
        assert not work.went_on()


def test_who_sleeps_does_not() -> None:
    with running(QUIET) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: state(process.pid) == "S", 10, "its sleep")
        work = Work(process.pid)
        assert work.went_on()  # nothing is known yet
        time.sleep(0.05)
        assert not work.went_on()


def test_where_nothing_can_be_told_nothing_is_held_against_it() -> None:
    gone = Work(2**22 + 1)
    assert gone.went_on()
    assert gone.went_on()
