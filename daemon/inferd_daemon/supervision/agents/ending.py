"""The end of a run: its process, what that left in other sessions, its directories.

Nothing here can be cancelled, and nothing of it fails: what cannot be ended or removed is left.
"""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from ...backends.thread import in_thread
from ...engines.base import EngineFailure
from ..processes.marked import end_marked
from ..processes.orphans import end_orphans
from ..processes.process import Process
from ..processes.stdio import Stdio
from .place import remove_place


async def end_run(
    process: Process | None,
    stdio: Stdio | None,
    *,
    mark: bytes,
    roots: Sequence[Path],
    grace_s: float,
) -> list[int]:
    """The pids of what had to be looked for by `mark`, NAME=VALUE in their environment.

    With `grace_s` the process may go by itself, and after SIGTERM as long again; with 0 it is
    killed at once. Either way its group is gone then, and so are `roots`, its directories.
    """
    left: list[int] = []
    with trio.CancelScope(shield=True):
        if process is not None:
            with contextlib.suppress(EngineFailure):
                await _end_process(process, stdio, grace_s)
        if stdio is not None:
            stdio.close()
        if process is not None and process.returncode is not None:
            process.close()
        with contextlib.suppress(OSError):
            left = await end_orphans(mark)
        try:
            left += await in_thread(_clean, None, mark, roots)
        except OSError:
            # No thread can be had: a moment's halt is better than what stays for ever.
            left += _clean(mark, roots)
    return left


async def _end_process(process: Process, stdio: Stdio | None, grace_s: float) -> None:
    if process.returncode is None and grace_s > 0 and stdio is not None:
        stdio.close_stdin()
        if not await _goes(stdio, grace_s):
            process.signal_group(signal.SIGTERM)
            await _goes(stdio, grace_s)
    await process.kill()


async def _goes(stdio: Stdio, seconds: float) -> bool:
    """Read what it still says, so that it does not stand in a full pipe."""
    with trio.move_on_after(seconds):
        while not stdio.exited:
            await stdio.wait()
            stdio.pump()
    return stdio.exited


def _clean(mark: bytes, roots: Sequence[Path]) -> list[int]:
    ended: list[int] = []
    with contextlib.suppress(OSError):
        ended = end_marked(mark)
    for root in roots:
        remove_place(root)
    return ended
