"""Waiting for real processes and files in tests."""

from collections.abc import Callable
from pathlib import Path

import trio


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], object], seconds: float = 3.0) -> None:
    """Wait for what nothing in this process can signal. Raises trio.TooSlowError."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (another process makes it true)
            await trio.sleep(0.002)
