"""Ends what a former run of the daemon left behind, at the start, before anything new is spawned.

A process is ended only when it is proven ours: its pidfd is held first, then either its start time
and boot are those of the journal, or its environment bears the mark of a former run. A pid alone
proves nothing. Signals go through the pidfd, so they never reach another process.
"""

import contextlib
import os
import signal
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from ..leases.journal import DaemonEntry, Gone, Live, ProcessEntry
from ..processes.identity import read_start_ticks
from ..processes.marked import ROUNDS, find_marked, hold

INSTANCE_VARIABLE = "INFERD_INSTANCE"
"""Every child bears it; its value is the mark of the run that started it."""

_log = structlog.get_logger(__name__)


class Reaping(NamedTuple):
    """What was done.

    `ended` pids are gone; `stubborn` ones did not go in time. `gone` are the entries to write
    to the journal: of processes that are certainly no more.
    """

    ended: list[int]
    stubborn: list[int]
    gone: list[Gone]


class _Leftover(NamedTuple):
    pid: int
    pidfd: int
    proof: str


async def reap(
    entries: Iterable[Live],
    *,
    boot_id: str,
    own_mark: str,
    spare: Collection[int] = (),
    timeout_s: float = 5.0,
) -> Reaping:
    """End the processes of former runs that `entries` know of, and remove their sockets.

    `own_mark` is this run's and `spare` the processes that it took over: both are left alone.
    Raises OSError where it cannot look: no /proc, or no descriptor left.
    """
    former = [entry for entry in entries if _mark_of(entry) not in (None, own_mark)]
    processes = [entry for entry in former if isinstance(entry, ProcessEntry)]
    marks = {mark for entry in former if (mark := _mark_of(entry)) is not None}
    spared = {*spare, os.getpid()}
    ended: list[int] = []
    stubborn: list[int] = []
    for _ in range(ROUNDS):
        leftovers = _by_journal(processes, boot_id, spared)
        leftovers += _by_mark(marks, spared | {leftover.pid for leftover in leftovers})
        if not leftovers:
            break
        for leftover in leftovers:
            if await _end(leftover, timeout_s):
                ended.append(leftover.pid)
            else:
                stubborn.append(leftover.pid)
                spared.add(leftover.pid)
    for entry in processes:
        if entry.pid not in stubborn:
            _remove_socket(entry.uds)
    gone = [] if stubborn else [Gone(entry.key) for entry in former]
    return Reaping(ended, stubborn, gone)


def _mark_of(entry: Live) -> str | None:
    return entry.mark if isinstance(entry, ProcessEntry | DaemonEntry) else None


def _by_journal(
    entries: list[ProcessEntry], boot_id: str, spared: Collection[int]
) -> list[_Leftover]:
    found: list[_Leftover] = []
    for entry in entries:
        if entry.pid is None or not entry.start_ticks or entry.boot_id != boot_id:
            continue
        if entry.pid in spared or (pidfd := hold(entry.pid)) is None:
            continue
        # Held before it is looked at: from here on the pid cannot go to another process.
        if read_start_ticks(entry.pid) == entry.start_ticks and not _is_zombie(entry.pid):
            found.append(_Leftover(entry.pid, pidfd, "journal"))
        else:
            os.close(pidfd)
    return found


def _by_mark(marks: set[str], spared: Collection[int]) -> list[_Leftover]:
    wanted = {f"{INSTANCE_VARIABLE}={mark}".encode() for mark in marks}
    return [_Leftover(pid, pidfd, "mark") for pid, pidfd in find_marked(wanted, spared)]


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only its parent has not noticed yet."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")


async def _end(leftover: _Leftover, timeout_s: float) -> bool:
    """SIGKILL and wait: what it was doing, it did for a daemon that is no more."""
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(leftover.pidfd, signal.SIGKILL)
        with trio.move_on_after(timeout_s) as waited:
            await trio.lowlevel.wait_readable(leftover.pidfd)
    except PermissionError:
        _log.error("leftover not ended", pid=leftover.pid, reason="not permitted")
        return False
    finally:
        trio.lowlevel.notify_closing(leftover.pidfd)
        os.close(leftover.pidfd)
    if waited.cancelled_caught:
        _log.error("leftover not ended", pid=leftover.pid, reason="it does not go")
        return False
    _log.warning("leftover ended", pid=leftover.pid, proof=leftover.proof)
    return True


def _remove_socket(path: str | None) -> None:
    if path is None:
        return
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
