"""Blocking work in a worker thread, where a thread that cannot be had is an error like any other.

A machine at its limit of processes starts no thread either; that must end one request, and never
the task that asked.
"""

import errno
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(
    work: Callable[_P, _T],
    limiter: trio.CapacityLimiter | None,
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T:
    """What `work` returns or raises; `limiter` None is trio's own.

    Raises OSError (EAGAIN) where no thread can be started.
    """
    began = False

    def run() -> _T:
        nonlocal began
        began = True
        return work(*args, **kwargs)

    try:
        return await trio.to_thread.run_sync(run, limiter=limiter)
    except RuntimeError as error:
        if began or not is_no_thread(error):
            raise
        raise OSError(errno.EAGAIN, "cannot start a thread: too many processes") from error


def is_no_thread(error: RuntimeError) -> bool:
    """Whether it is Python's word for a thread that cannot be started."""
    return "start new thread" in str(error)
