"""The last door between one client and the daemon: a fault that nobody foresaw ends there."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger(__name__)


@contextmanager
def last_door(serving: str, pid: int) -> Iterator[None]:
    """Log whatever fails in the block, which served the process `pid`, and go on after it.

    Cancellation passes, and what ends a process does.
    """
    try:
        yield
    except* Exception:
        _log.exception(f"{serving} failed unexpectedly", pid=pid)
