"""What a child leaves in other sessions comes to the daemon and is ended; nobody else's is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import is_alive, until

DAEMON = """
import os, sys, subprocess, trio
from inferd_daemon.engines.base import Launch
from inferd_daemon.supervision.processes.orphans import adopt_orphans, end_orphans, orphans
from inferd_daemon.supervision.processes.process import spawn

assert adopt_orphans()
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
path = {"PATH": os.environ["PATH"]}

def start(mark, script):
    return spawn(Launch(["sh", "-c", script], {**path, "INFERD_RUN_T": mark}), log_fd=log)

ours = start("a", sys.argv[2])
other = start("b", "setsid sh -c 'setsid sleep 1000 & echo other $!' & wait; sleep 1000")
mine = subprocess.Popen(["sleep", "1000"])
print("ready", mine.pid, flush=True)
sys.stdin.readline()
os.waitpid(ours.pid, 0)
ours.returncode = 0
print("orphans", len(orphans()), flush=True)
print("ended", len(trio.run(end_orphans, b"INFERD_RUN_T=a")), flush=True)
print("left", len(orphans()), flush=True)
sys.stdin.readline()
mine.kill()
mine.wait()
"""


def daemon_with(log: Path, script: str) -> "subprocess.Popen[str]":
    """One with two children, of which the first runs `script`; what they say is in `log`."""
    command = [sys.executable, "-c", DAEMON, str(log), script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def parent(pid: int) -> int:
    """Of a living process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    "script",
    [
        "setsid sleep 1000 & echo ours $!; sleep 0.2",
        # Away from the environment, the session and the parent at once.
        "env -i PATH=$PATH setsid sh -c 'sleep 1000 & echo ours $!; exec sleep 1000' & sleep 0.2",
        "setsid sh -c 'setsid sleep 1000 & echo ours $!; exec sleep 1000' & sleep 0.2",
    ],
)
async def test_what_a_child_leaves_is_ended(tmp_path: Path, script: str) -> None:
    log = tmp_path / "log"
    with daemon_with(log, script) as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        mine = int(daemon.stdout.readline().split()[1])
        await until(lambda: {"ours", "other"} <= set(log.read_text().split()))
        pids = dict(line.split() for line in log.read_text().splitlines())
        # The other child's orphan is the daemon's once the shell between them has ended.
        await until(lambda: parent(int(pids["other"])) == daemon.pid)
        daemon.stdin.write("\n")
        daemon.stdin.flush()
        told = dict(daemon.stdout.readline().split() for _ in range(3))
        assert int(told["ended"]) == script.count("sleep 1000")
        # The other child's orphan is left alone, and so is what the daemon runs in its session.
        assert told["left"] == "1"
        await until(lambda: not is_alive(int(pids["ours"])))
        assert is_alive(int(pids["other"]))
        assert is_alive(mine)
        daemon.communicate("\n", timeout=60)
        assert daemon.returncode == 0
    os.kill(int(pids["other"]), 9)
