"""The state directory: made private, and locked, so that no two daemons write one journal."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ...errors import OperatorError
from .handover import HandedDirectory


class StateDirectory:
    """Context manager: holds `path` for this daemon alone. Raises OperatorError on enter.

    `handed` is what `hand_over` gave: held already.
    """

    def __init__(self, path: Path, handed: HandedDirectory | None = None) -> None:
        self.path = path
        self._lock = -1 if handed is None else handed.lock

    def __enter__(self) -> Self:
        if self._lock >= 0:
            return self
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(self.path / "lock", flags, 0o600)
        except OSError as error:
            raise OperatorError(
                f"cannot use the state directory {self.path}: {error.strerror}; set state_dir"
            ) from error
        if owner not in (os.geteuid(), 0):
            self._close()
            raise OperatorError(f"the state directory {self.path} belongs to uid {owner}")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            self._close()
            raise OperatorError(
                f"another inferd (pid {holder}) keeps its state in {self.path}; stop it, or set "
                "another state_dir"
            ) from error
        self._note_holder()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def describe(self) -> HandedDirectory:
        """What `hand_over` gives. Changes nothing."""
        return HandedDirectory(str(self.path), self._lock)

    def hand_over(self) -> HandedDirectory:
        """What the daemon's next self needs; on exit the directory stays locked."""
        handed = self.describe()
        self._lock = -1
        return handed

    def _note_holder(self) -> None:
        """For the message to the next one; a full disk must not keep the daemon from starting."""
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            return

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
