"""One child process: spawned, waited for and signalled, by its pidfd and its process group.

Children die with the daemon (see exec_stub.py). That signal follows the *thread* that spawned
the child, so only the main thread spawns; `trio.run_process` would use a thread that retires.
Decides nothing: no restart, no health.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import trio

from ...engines.base import EngineFailure, Launch
from ...engines.failures import Cause, failure
from .identity import read_start_ticks

EXEC_STUB = Path(__file__).with_name("exec_stub.py")
CHILD_UMASK = 0o077
"""llama.cpp creates its socket with 0777 less this."""
SECOND_INTERRUPT_S = 1.0
"""llama-server can hang in its clean-up until it is interrupted again. Two that come to a process
which is not run meanwhile are one to it, so there are more."""
UNKNOWN_STATUS = 255
_children: "weakref.WeakSet[Process]" = weakref.WeakSet()
# One set for the whole daemon, as the kernel has one list of its children.
KILL_TIMEOUT_S = 10.0
"""SIGKILL acts at once except on a process in an uninterruptible wait (a dead disk or driver)."""


class Process:
    """A child of this daemon, leader of its own session and process group.

    Use `spawn` to make one. Whoever holds it must call `wait` or `stop` to its end: that reaps
    it. `pid` stays valid until then.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_ticks = read_start_ticks(pid)
        """When it started, in clock ticks since boot: with the pid, its identity."""
        self.returncode: int | None = None
        """As in subprocess, negative for a signal; None while it runs."""
        self._watched = False
        self._watch_over = trio.Event()
        _children.add(self)

    def __repr__(self) -> str:
        return f"process {self.pid} ({'running' if self.returncode is None else self.returncode})"

    async def wait(self) -> int:
        """Wait for its end, end what is left of its group, reap it; its return code.

        Any number of tasks may wait. Cancelling a wait leaves the process alone.
        """
        while self.returncode is None:
            # trio lets one task wait on a descriptor; to stop a process must not need another one.
            if self._watched:
                await self._watch_over.wait()
                continue
            self._watched = True
            try:
                await trio.lowlevel.wait_readable(self.pidfd)
            finally:
                self._watched = False
                self._watch_over.set()
                self._watch_over = trio.Event()
            self._reap()
        return self.returncode

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and every process of its group. Nothing after its end."""
        # Until it is reaped nobody else can get its pid, hence its group's number.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def stop(self, timeout_s: float) -> int:
        """End the group: SIGINT, again each second, SIGKILL `timeout_s` after the first.

        One that somebody stopped (SIGSTOP) is continued, else it would not hear of it. Returns the
        return code. When cancelled it kills at once and still reaps.
        """
        try:
            with trio.move_on_after(timeout_s):
                while True:
                    self.signal_group(signal.SIGINT)
                    self.signal_group(signal.SIGCONT)
                    with trio.move_on_after(SECOND_INTERRUPT_S):
                        return await self.wait()
        finally:
            if self.returncode is None:
                await self.kill()
        assert self.returncode is not None  # kill() raises otherwise
        return self.returncode

    async def kill(self) -> int:
        """SIGKILL the group and reap; the return code. Not cancellable, but it takes no time.

        Raises EngineFailure where the kernel does not let go of the process within
        `KILL_TIMEOUT_S`.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_TIMEOUT_S):
            self.signal_group(signal.SIGKILL)
            return await self.wait()
        raise EngineFailure(
            failure(Cause.HUNG, f"process {self.pid} does not end on SIGKILL (see its wchan)")
        )

    def close(self) -> None:
        """Let go of the pidfd. Only after the end."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _reap(self) -> None:
        if self.returncode is not None:
            return
        # The leader is a zombie now and still holds the group's number: what it left dies here.
        self.signal_group(signal.SIGKILL)
        try:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # A daemon that was started with SIGCHLD ignored has its children reaped by the kernel.
            self.returncode = UNKNOWN_STATUS
            return
        if ended is not None:
            by_exit = ended.si_code == os.CLD_EXITED
            self.returncode = ended.si_status if by_exit else -ended.si_status


def children() -> set[int]:
    """The pids of all that are not reaped yet."""
    return {process.pid for process in list(_children) if process.returncode is None}


def spawn(
    launch: Launch,
    *,
    log_fd: int,
    stdin_fd: int | None = None,
    stdout_fd: int | None = None,
    tie: Sequence[str] | None = None,
) -> Process:
    """Start a child that dies with this process, in a session of its own, stderr to `log_fd`.

    Its stdin is empty and its stdout goes to `log_fd` too, unless they are given. `tie` is put
    before the program instead of the exec stub, and does the same. Takes well under a
    millisecond and must be called in the main thread. Raises EngineFailure where no process can
    be made (no memory, no descriptors, too many processes).
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are spawned from the main thread only")
    stub = tie or [sys.executable, "-IS", str(EXEC_STUB), str(os.getpid())]
    try:
        child = subprocess.Popen(
            [*stub, *launch.argv],
            stdin=subprocess.DEVNULL if stdin_fd is None else stdin_fd,
            stdout=log_fd if stdout_fd is None else stdout_fd,
            stderr=log_fd,
            env=launch.environment,
            cwd=launch.directory,
            pass_fds=launch.pass_fds,
            start_new_session=True,
            umask=CHILD_UMASK,
        )
    except OSError as error:
        raise EngineFailure(
            failure(Cause.NO_PROCESS, f"cannot start a process: {error.strerror}")
        ) from error
    # From here on it is ours alone: Popen must neither reap it nor warn that nobody did.
    child.returncode = 0
    try:
        return Process(child.pid, os.pidfd_open(child.pid))
    except OSError as error:
        # It may be gone already, where the kernel reaps for a daemon that ignores SIGCHLD.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        raise EngineFailure(
            failure(Cause.NO_PROCESS, f"cannot watch a process: {error.strerror}")
        ) from error
