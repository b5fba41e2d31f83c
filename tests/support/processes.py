"""Waiting for real processes and files in tests."""

import os
from collections.abc import Callable
from pathlib import Path

import trio


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def bearing(variable: str) -> list[int]:
    """Living processes that were started with this NAME=VALUE, in whatever session."""
    found: list[int] = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if variable.encode() in environment.split(b"\0") and is_alive(int(name)):
            found.append(int(name))
    return found


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what nothing in this process can signal. Raises trio.TooSlowError."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (another process makes it true)
            await trio.sleep(0.002)
