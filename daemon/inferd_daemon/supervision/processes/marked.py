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

ROUNDS = 5
"""What forks while it is being looked for is found in the next round."""
MAX_ENVIRONMENT_BYTES = 4 << 20


def bears(pid: int, wanted: Collection[bytes]) -> bool:
    """Whether one of `wanted`, as NAME=VALUE, stands in the environment of the process."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read(MAX_ENVIRONMENT_BYTES)
    except OSError:
        return False  # another user's, or gone
    return any(mark in environment for mark in wanted) and not set(wanted).isdisjoint(
        environment.split(b"\0")
    )


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
    """SIGKILL them and wait for their ends; their pids. Raises OSError without /proc."""
    deadline = time.monotonic() + timeout_s
    ended: list[int] = []
    for _ in range(ROUNDS):
        found = list(find_marked([mark], ended))
        if not found:
            break
        for pid, pidfd in found:
            ended.append(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for _, pidfd in found:
            select.select([pidfd], [], [], max(0, deadline - time.monotonic()))
            os.close(pidfd)
    return ended
