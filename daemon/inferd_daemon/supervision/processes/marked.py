"""Processes known by a variable in the environment that they were started with.

Whatever they forked bears it too, in another session or group as well, unless it took care to
lose it. Blocking: meant for a thread.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

RUNTIME_VARIABLE = "INFERD_RUNTIME"
"""Holds the instance key of the runtime that a process belongs to."""
ROUNDS = 5
"""What forks while it is being looked for is found in the next round."""
LOOKS = 7
LOOK_AGAIN_S = 0.001
"""A process shows no environment for a moment while it becomes another program; on a machine that
gives it no turn then, the moment is long. Each look waits twice as long as the one before."""
MAX_ENVIRONMENT_BYTES = 4 << 20
READ_BYTES = 64 * 1024
PF_KTHREAD = 0x00200000


def read_variables(pid: int) -> list[bytes] | None:
    """The environment that the process was started with, each as NAME=VALUE. None where it is
    gone, another user's, or about to be another program.
    """
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_AGAIN_S * 2 ** (look - 1))
        try:
            environment = _read_environment(pid)
        except OSError:
            return None
        if environment:
            return environment.split(b"\0")
        if not _becomes_another(pid):
            return []
    return None


def bears(pid: int, wanted: Collection[bytes]) -> bool:
    """Whether one of `wanted`, as NAME=VALUE, stands in the environment of the process."""
    return not set(wanted).isdisjoint(read_variables(pid) or ())


def hold(pid: int) -> int | None:
    """A pidfd: from here on a signal through it reaches this process or none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def find_marked(
    wanted: Collection[bytes], spared: Collection[int] = ()
) -> Iterator[tuple[int, int]]:
    """Pid and pidfd of each; the caller closes the pidfd. Raises OSError without /proc."""
    for name in os.listdir("/proc") if wanted else ():
        if not name.isdecimal() or (pid := int(name)) in spared:
            continue
        # A look without a pidfd spares opening one for every process of the machine.
        if not bears(pid, wanted) or (pidfd := hold(pid)) is None:
            continue
        if bears(pid, wanted):
            yield pid, pidfd
        else:
            os.close(pidfd)


def end_marked(mark: bytes, *, timeout_s: float = 2.0) -> list[int]:
    """SIGKILL them until there are none; their pids. Raises OSError without /proc.

    What is still there after `timeout_s` forks faster than it can be found.
    """
    deadline = time.monotonic() + timeout_s
    ended: list[int] = []
    while time.monotonic() < deadline and (found := list(find_marked([mark]))):
        for pid, pidfd in found:
            ended.append(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for _, pidfd in found:
            select.select([pidfd], [], [], max(0, deadline - time.monotonic()))
            os.close(pidfd)
    return ended


def _read_environment(pid: int) -> bytes:
    """Without a file object, and with a buffer that fits most: there are as many as processes."""
    environment = b""
    descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(environment) < MAX_ENVIRONMENT_BYTES:
            piece = os.read(descriptor, READ_BYTES)
            environment += piece
            if not piece:
                break
    finally:
        os.close(descriptor)
    return environment


def _becomes_another(pid: int) -> bool:
    """It has no arguments either, and is no thread of the kernel nor what waits to be reaped."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read(1):
                return False
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X") and not int(fields[6]) & PF_KTHREAD
