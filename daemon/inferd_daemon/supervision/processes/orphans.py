"""What a child leaves behind in sessions of its own: as their subreaper the daemon gets them, and
ends them.

A program may start others that leave its process group, and even its environment. When their
parent ends, the kernel makes them children of the daemon. Those that belong to a child which still
lives are never touched.
"""

import contextlib
import os
import select
import signal
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from ...backends.thread import in_thread
from .marked import hold, read_variables
from .process import children

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
OURS = b"INFERD_"
"""What begins so in its environment names the child that it belongs to."""
ROUNDS = 20
"""What they started themselves is found in the next round, when they are gone."""
REAP_TIMEOUT_S = 1.0


def adopt_orphans() -> bool:
    """From here on the daemon gets them; survives exec. False where the kernel has no such thing,
    or they could be anybody's: the first process of a container gets those of all programs in it.
    """
    return os.getpid() != 1 and _prctl(PR_SET_CHILD_SUBREAPER, 1)


def orphans() -> list[int]:
    """Children of this process that it did not start, in sessions of their own. Quick.

    None where it did not adopt any: those are children that somebody else in it has started.
    """
    if not _adopts():
        return []
    session = os.getsid(0)
    known = children()
    return [pid for pid in _all_children() if pid not in known and _session(pid) != session]


async def end_orphans(mark: bytes) -> list[int]:
    """SIGKILL those that bear `mark`, NAME=VALUE in their environment, or that lost all such marks,
    with what they started; their pids. Reaps whatever ended by itself.

    In the main thread, which spawns: what is being spawned is no orphan, though nobody knows of it
    yet. Raises OSError where there is no descriptor, or no thread, to do it with.
    """
    ended: list[int] = []
    for _ in range(ROUNDS):
        with ExitStack() as descriptors:
            held: list[tuple[int, int]] = []
            for pid in orphans():
                if (pidfd := hold(pid)) is not None:
                    descriptors.callback(os.close, pidfd)
                    held.append((pid, pidfd))
            found = await in_thread(_end, None, held, mark) if held else []
        ended += found
        if not found:
            break
    return ended


def _adopts() -> bool:
    answer = array("i", [0])
    return _prctl(PR_GET_CHILD_SUBREAPER, answer.buffer_info()[0]) and bool(answer[0])


def _prctl(option: int, argument: int) -> bool:
    # Only here, and the bare C module: `ctypes` imports as much as the interpreter itself.
    from _ctypes import _SimpleCData, call_cdeclfunction, dlopen, dlsym

    class Address(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "P"

    prctl = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    return bool(call_cdeclfunction(prctl, (option, Address(argument), 0, 0, 0)) == 0)


def _all_children() -> Iterator[int]:
    with contextlib.suppress(OSError):  # no descriptor is to be had
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
                yield from map(int, file.read().split())


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _is_ours_to_end(pid: int, mark: bytes) -> bool:
    variables = read_variables(pid)
    if variables is None:
        return False
    return mark in variables or not any(one.startswith(OURS) for one in variables)


def _end(held: Sequence[tuple[int, int]], mark: bytes) -> list[int]:
    """By pid and pidfd: where the number is another's by now, the signal reaches nobody."""
    ended: list[int] = []
    for pid, pidfd in held:
        if _reap(pidfd) or not _is_ours_to_end(pid, mark):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], REAP_TIMEOUT_S)
            _reap(pidfd)
            ended.append(pid)
    return ended


def _reap(pidfd: int) -> bool:
    """False where it runs."""
    try:
        return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True
