"""The log of one runtime: a file that its processes append to, and the last lines in memory.

The child writes to the file itself, never to a pipe: a pipe that nobody reads would hang it.
The file is emptied when it is full, after a copy: the child keeps its descriptor.
"""

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import trio

from ...backends.thread import in_thread

MAX_LINE_BYTES = 8192
"""Longer lines are kept in the file, and cut in memory."""
READ_BYTES = 256 * 1024
RESUME_BYTES = 32 * 1024
"""So much of a process's log is read again by the daemon's next self."""


class RuntimeLog:
    """`path` and, after rotation, `path.1` to `path.<kept>`; the last `ring_lines` in memory.

    Methods without `async` do small reads of a local file. Not thread-safe: one task polls.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 4 * 1024 * 1024,
        kept: int = 2,
        ring_lines: int = 1000,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.kept = kept
        self.lines: deque[str] = deque(maxlen=ring_lines)
        self.total_lines = 0
        """Lines seen so far; a follower knows by it what it has missed."""
        self._run_started_at = 0
        self._offset = 0
        self._partial = b""
        self._changed = trio.Event()

    def open_for_child(self) -> int:
        """A descriptor for the next process's stderr; the caller closes it after the spawn.

        Raises OSError.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        if not self.total_lines:
            # What a former daemon's processes wrote is not this runtime's recent past.
            self._offset = os.fstat(descriptor).st_size
        self.begin_run()
        return descriptor

    def begin_run(self) -> None:
        """From here on, `run_lines` are those of another process."""
        self._run_started_at = self.total_lines

    def note(self, line: str) -> None:
        """A line of the daemon's own, in memory alone: for a runtime without a process of ours."""
        self._take(line.encode() + b"\n")
        self.stir()

    def resume(self) -> None:
        """Go on with the file of a process that runs already, from the last of its lines on."""
        with contextlib.suppress(OSError):
            self._offset = max(0, self.path.stat().st_size - RESUME_BYTES)
        self.poll()

    def run_lines(self) -> Sequence[str]:
        """The lines of the present process that memory still holds, oldest first."""
        since = self.total_lines - self._run_started_at
        return list(self.lines)[-since:] if since else []

    def poll(self) -> int:
        """Read what came since the last call; how many lines that was.

        A file that cannot be read counts as empty: a log must not take its runtime down.
        """
        before = self.total_lines
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._offset = 0
            file.seek(self._offset)
            while data := file.read(READ_BYTES):
                self._offset += len(data)
                self._take(data)
        if self.total_lines > before:
            self.stir()
        return self.total_lines - before

    def end_run(self) -> Sequence[str]:
        """The process is gone: read the rest, a last line without its end too; `run_lines`."""
        self.poll()
        if self._partial:
            self._take(b"\n")
        return self.run_lines()

    async def maintain(self) -> None:
        """Poll, and rotate a file that is full. The copy of a big file is made in a thread."""
        self.poll()
        if self._offset >= self.max_bytes:
            # Where no thread can be had, the next time does.
            with contextlib.suppress(OSError):
                await in_thread(self._rotate, None)

    async def wait_changed(self) -> None:
        """Wait for the next lines that a poll brings, or until somebody stirs."""
        await self._changed.wait()

    def stir(self) -> None:
        """Have those who wait look again: something has come, or nothing comes any more."""
        self._changed.set()
        self._changed = trio.Event()

    def _take(self, data: bytes) -> None:
        *whole, rest = (self._partial + data).split(b"\n")
        self._partial = rest[:MAX_LINE_BYTES]
        for line in whole:
            self.lines.append(line[:MAX_LINE_BYTES].decode(errors="replace"))
        self.total_lines += len(whole)

    def _rotate(self) -> None:
        def numbered(number: int) -> Path:
            return self.path.with_name(f"{self.path.name}.{number}")

        with contextlib.suppress(OSError):
            for number in range(self.kept, 1, -1):
                if numbered(number - 1).exists():
                    numbered(number - 1).replace(numbered(number))
            if self.kept:
                shutil.copyfile(self.path, numbered(1))
                numbered(1).chmod(0o600)
            # Lines that come between the copy and this are lost; the writer cannot be told.
            os.truncate(self.path, 0)
            self._offset = 0
