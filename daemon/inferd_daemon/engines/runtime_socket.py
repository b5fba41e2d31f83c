"""The Unix socket of one runtime, in a directory of its own: who may connect to it.

The daemon's user alone, or the members of one group as well. They still need the runtime's key.
"""

import contextlib
import os
import stat
from pathlib import Path

SOCKET_NAME = "engine.sock"
PASS = 0o011


class RuntimeSocket:
    """`directory` is the runtime's own: 0700, and 0710 where a group may connect.

    The one above it is shared by all runtimes: 0700, and 0711 as soon as one of them is open to a
    group, whatever the umask.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.path = self.directory / SOCKET_NAME
        self.group: int | None = None
        """Whose members may connect."""

    def make_directory(self) -> None:
        """Raises OSError."""
        # `mkdir(parents=True)` makes what is above by the umask alone.
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.directory.chmod(0o700 if self.group is None else 0o710)

    def open_to(self, group: int) -> None:
        """Let members of a group connect, now and after restarts. Raises OSError."""
        self.group = group
        self.set_mode()

    def set_mode(self) -> None:
        """The server made the socket, with a mode of its own; where it did. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if self.group is None:
                self.path.chmod(0o600)
                return
            # To connect takes the right to pass the directories, not to list them.
            _let_pass(self.directory.parent)
            os.chown(self.directory, -1, self.group)
            self.directory.chmod(0o710)
            os.chown(self.path, -1, self.group)
            self.path.chmod(0o660)

    def remove(self) -> None:
        """Unlink it: a stale one would make the next start fail."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _let_pass(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & PASS != PASS:
        directory.chmod(mode | PASS)
