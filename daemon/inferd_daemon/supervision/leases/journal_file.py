"""The journal on disk: nothing is acknowledged before it is there, and one fsync serves many.

Callers that wait while an fsync runs share the next one. A disk that is full or read-only refuses
entries, one typed error each, and leaves what was there; the next try finds out whether it is
over. Decides nothing about what is written.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import trio

from inferd_proto import ErrorCode

from ...backends.thread import in_thread
from ...errors import OperatorError, RequestError
from .journal import (
    MAX_LINE_BYTES,
    Entry,
    Gone,
    Live,
    Replay,
    compact,
    encode,
    encode_again,
    replay_lines,
)

COMPACT_ABOVE_BYTES = 1 << 20
"""Below this a rewrite gains nothing."""
COMPACT_RATIO = 4
"""A file so many times larger than what it says is rewritten."""
LARGE_BYTES = 32 << 20
LARGE_RATIO = 1.5
"""From so many bytes on the disk and the next start are spared a file so much sooner."""
MAX_JOURNAL_BYTES = 256 << 20
"""A file that cannot be rewritten grows no further. Read back is any size, line by line."""


class JournalUnavailable(RequestError):
    """Entries could not be made durable: whoever waited for them must not go on."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            ErrorCode.BACKEND_UNAVAILABLE,
            f"the daemon's journal cannot be written ({error.strerror}): make room or make "
            f"{path.parent} writable, then try again; nothing was changed",
        )


class _Batch:
    """Entries that share one fsync, and how it went."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.lines: list[bytes] = []
        self.done = trio.Event()
        self.error: OSError | None = OSError(None, "the daemon stopped before it was written")


class JournalFile:
    """An append-only file of entries. Make it with `open_journal`, keep `run` running."""

    def __init__(self, path: Path, entries: dict[str, Live], damaged: int, foreign: int) -> None:
        self.path = path
        self.damaged = damaged
        """Lines that could not be read back at the start: torn or flipped."""
        self.foreign = foreign
        """Whole lines of a version that knows more; they are lost with the next rewrite."""
        self.failure: str | None = None
        """Why the last write failed; None once one succeeded."""
        self.syncs = 0
        self._live = entries
        self._lines = {key: encode_again(entry) for key, entry in entries.items()}
        self._live_bytes = sum(map(len, self._lines.values()))
        self._fd = -1
        self._size = 0
        self._batch = _Batch()
        self._wake = trio.Event()
        self._running = False
        # One writer at a time; appends never wait for the daemon's other threads.
        self._limiter = trio.CapacityLimiter(1)

    @property
    def entries(self) -> list[Live]:
        """What would be read back now."""
        return list(self._live.values())

    async def append(self, *entries: Entry) -> None:
        """Write entries, all or none; returns once they are on the disk.

        Raises JournalUnavailable; EntryTooLong for what could not be read back. A caller that is
        cancelled while it waits does not know whether they will be read back: it undoes them with
        `Gone`.
        """
        if not self._running:
            raise RuntimeError("the journal is not running")
        if not entries:
            await trio.lowlevel.checkpoint()
            return
        lines = [encode(entry) for entry in entries]
        batch = self._batch
        batch.entries += entries
        batch.lines += lines
        self._wake.set()
        await batch.done.wait()
        if batch.error is not None:
            raise JournalUnavailable(self.path, batch.error)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is appended, until cancelled; what was appended by then is still written."""
        self._running = True
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                await self._commit()
        finally:
            self._running = False
            await self._commit()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _commit(self) -> None:
        batch, self._batch, self._wake = self._batch, _Batch(), trio.Event()
        if not batch.lines:
            return
        added = b"".join(batch.lines)
        whole = None
        if self._fd < 0 or self._should_compact(len(added)):
            whole = b"".join(self._lines.values()) + added
        try:
            # Others wait for these entries: whoever cancels the writer does not cancel them.
            with trio.CancelScope(shield=True):
                await in_thread(self._write, self._limiter, added, whole)
        except OSError as error:
            batch.error = error
            self.failure = error.strerror or "unknown error"
        else:
            batch.error = self.failure = None
            for entry, line in zip(batch.entries, batch.lines, strict=True):
                self._remember(entry, line)
        finally:
            batch.done.set()

    def _remember(self, entry: Entry, line: bytes) -> None:
        former = self._lines.pop(entry.key, b"")
        self._live.pop(entry.key, None)
        self._live_bytes -= len(former)
        if not isinstance(entry, Gone):
            self._live[entry.key] = entry
            self._lines[entry.key] = line
            self._live_bytes += len(line)

    def _should_compact(self, added: int) -> bool:
        size = self._size + added
        ratio = LARGE_RATIO if size > LARGE_BYTES else COMPACT_RATIO
        return size > COMPACT_ABOVE_BYTES and size > ratio * (self._live_bytes + added)

    # -- in the worker thread ------------------------------------------------------------

    def _write(self, added: bytes, whole: bytes | None) -> None:
        if whole is not None:
            try:
                self._rewrite(whole)
            except OSError:
                # Without room for a second file the first may still have some.
                if self._fd < 0 or self._size + len(added) > MAX_JOURNAL_BYTES:
                    raise
            else:
                return
        self._extend(added)

    def _extend(self, data: bytes) -> None:
        try:
            _write_all(self._fd, data, self._size)
        except OSError:
            # A part may be there: it must not stand before the next entry.
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self.close()
            raise
        try:
            os.fdatasync(self._fd)
        except OSError:
            # What the kernel dropped it does not try to write again: only a new file is sure.
            self.close()
            raise
        self.syncs += 1
        self._size += len(data)

    def _rewrite(self, data: bytes) -> None:
        """Put a new file with `data` in place of the old, or leave the old."""
        beside = self.path.with_name(f"{self.path.name}.new")
        descriptor = os.open(beside, _CREATE, 0o600)
        try:
            _write_all(descriptor, data, 0)
            os.fsync(descriptor)
            os.rename(beside, self.path)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        self.close()
        self.syncs += 1
        try:
            _sync_directory(self.path.parent)
        except OSError:
            os.close(descriptor)
            raise
        self._fd, self._size = descriptor, len(data)


def open_journal(path: Path) -> JournalFile:
    """Read the journal at `path` back and make it ready; an empty one where there is none.

    Blocks for some milliseconds. A disk that takes no write is no error here: appends then fail
    until it does. Raises OperatorError where the file cannot be read, or is another user's.
    """
    journal = look_at_journal(path)
    try:
        # A fresh file: no torn line at its end that the next entry would be joined to.
        journal._rewrite(compact(journal.entries))
    except OSError as error:
        journal.failure = error.strerror or "unknown error"
    return journal


def look_at_journal(path: Path) -> JournalFile:
    """As `open_journal`, but the file stays as it is: another process may write to it."""
    try:
        found = _read(path)
    except OSError as error:
        raise OperatorError(
            f"the journal {path} cannot be read ({error.strerror}): without it, processes of a "
            "former run cannot be told from others; repair its permissions, or remove it"
        ) from error
    return JournalFile(path, found.entries, found.damaged, found.foreign)


def _read(path: Path) -> Replay:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return replay_lines(())
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(None, "it is not a file of the daemon's own user")
        return replay_lines(_lines(file))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; of one that is too long to be an entry the beginning, without."""
    begins = True
    while line := file.readline(MAX_LINE_BYTES):
        if begins:
            yield line
        begins = line[-1:] == b"\n"


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
