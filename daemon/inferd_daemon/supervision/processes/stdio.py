"""A child's stdin, stdout and stderr as pipes that one task looks after.

Whoever owns them keeps calling `wait` and `pump`, or the child may stand still in a full pipe. Of
stderr only the end is kept.
"""

import contextlib
import os
import select
from typing import NamedTuple

import trio

READ_BYTES = 64 * 1024
MAX_REST_READS = 32
"""What outlives the child may hold its stdout and write without end."""


class ChildEnds(NamedTuple):
    """Descriptors for the child, to be closed after the spawn by `close_child_ends`."""

    stdin: int
    stdout: int
    stderr: int


class Stdio:
    """Three pipes. Raises OSError where there are no descriptors. Not thread-safe."""

    def __init__(self, *, stderr_tail_bytes: int = 8192) -> None:
        self.ended = False
        """Whether stdout has ended."""
        self.exited = False
        """Whether the process that `watch` was told of is gone."""
        self._tail_bytes = stderr_tail_bytes
        self._tail = bytearray()
        self._pending = bytearray()
        self._closes_stdin = False
        self._open: set[int] = set()
        try:
            child_in, self._stdin = self._pipe()
            self._stdout, child_out = self._pipe()
            self._stderr, child_err = self._pipe()
            self._epoll = select.epoll()
        except OSError:
            for descriptor in self._open:
                os.close(descriptor)
            raise
        self.child = ChildEnds(child_in, child_out, child_err)
        for descriptor in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
        self._epoll.register(self._stdout, select.EPOLLIN)
        self._epoll.register(self._stderr, select.EPOLLIN)

    @property
    def stderr(self) -> str:
        """The end of what was written there so far."""
        return self._tail.decode(errors="replace")

    def close_child_ends(self) -> None:
        """The child runs, or never will."""
        for descriptor in self.child:
            self._close(descriptor)

    def watch(self, pidfd: int) -> None:
        """Have `wait` return when the process ends. The caller closes it, after `close`."""
        self._epoll.register(pidfd, select.EPOLLIN)

    def write(self, data: bytes) -> None:
        """Queue bytes for stdin; `pump` writes them. Nothing after the child closed it."""
        if data and self._stdin in self._open and not self._closes_stdin:
            if not self._pending:
                self._epoll.register(self._stdin, select.EPOLLOUT)
            self._pending += data

    def close_stdin(self) -> None:
        """Close it behind what is queued."""
        self._closes_stdin = True
        if not self._pending:
            self._close(self._stdin)

    async def wait(self) -> None:
        """Wait until there is something to `pump`."""
        await trio.lowlevel.wait_readable(self._epoll.fileno())

    def pump(self) -> bytes:
        """Move what can be moved without waiting; what came from stdout."""
        data = b""
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._stdout:
                data = self._read_stdout()
            elif descriptor == self._stderr:
                self._read_stderr()
            elif descriptor == self._stdin:
                self._write_stdin()
            else:
                self.exited = True
                self._epoll.unregister(descriptor)
        return data

    def rest(self) -> bytes:
        """What is left in the pipes of a child that is gone."""
        data = bytearray()
        for _ in range(MAX_REST_READS):
            got = self._read_stdout()
            if not got:
                break
            data += got
        self._read_stderr()
        return bytes(data)

    def close(self) -> None:
        """Let go of everything. Idempotent; no task may be in `wait`."""
        for descriptor in list(self._open):
            self._close(descriptor)
        if not self._epoll.closed:
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            # A closed descriptor leaves the set only where the child holds no copy of it.
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
            os.close(descriptor)

    def _read(self, descriptor: int) -> bytes | None:
        """None where nothing is there by now; b"" at its end."""
        if descriptor not in self._open:
            return b""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            self._close(descriptor)
        return data

    def _read_stdout(self) -> bytes:
        data = self._read(self._stdout)
        if data == b"":
            self.ended = True
        return data or b""

    def _read_stderr(self) -> None:
        self._tail += self._read(self._stderr) or b""
        del self._tail[: -self._tail_bytes]

    def _write_stdin(self) -> None:
        try:
            written = os.write(self._stdin, self._pending)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending.clear()
            self._close(self._stdin)
            return
        del self._pending[:written]
        if not self._pending:
            self._epoll.unregister(self._stdin)
            if self._closes_stdin:
                self._close(self._stdin)
