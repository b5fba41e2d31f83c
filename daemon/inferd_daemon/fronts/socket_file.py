"""The file of a listening Unix socket: one owner, the right mode from its first instant.

A lock file beside the socket says who owns it; a stale socket is taken over under that lock, a
live one refused. The socket is bound under another name and renamed, so nobody can connect
before its mode is set (wire.md section 1).
"""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from inferd_proto import MAX_SOCKET_PATH_BYTES

from ..config import group_id
from ..errors import OperatorError
from ..supervision.succession.handover import HandedSocket
from .peer import peer_of

BACKLOG = 1024
INTERIM = ".new"
"""A socket is bound under its own name with this, and renamed when it is ready."""
DYING_S = 0.2
"""A process that is being torn down closes its sockets well within this."""
DYING_LOOKS = 10


class SocketFile:
    """Context manager: on enter `socket` listens at `path`; on exit both files are gone.

    `mode` is that of the socket; with `group` it belongs to that group. Raises OperatorError:
    another daemon listens there, the directory or file is another user's, there is no such group,
    the path is too long.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int = 0o660,
        group: str | None = None,
        handed: HandedSocket | None = None,
        shown: bool = True,
    ) -> None:
        """`handed` is what `hand_over` gave: it listens already, and nothing is made anew.

        One that is not `shown` is held on enter; clients find it from `show` on.
        """
        self.path = path
        self._shown = shown
        self._interim: Path | None = None
        self._mode = mode
        self._group = group
        self._lock = -1
        self._inode = 0
        self._handed = handed is not None
        if handed is None:
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self._lock, self._inode = handed.lock, handed.inode
            self.socket = socket.socket(fileno=handed.descriptor)

    def __enter__(self) -> Self:
        if self._handed:
            self.socket.setblocking(False)
            return self
        try:
            _check_path(self.path)
            _make_directory(self.path.parent)
            self._lock = _lock(self.path)
            _clear_stale(self.path)
            self._listen()
            if self._shown:
                self.show()
        except BaseException:
            self._close()
            raise
        return self

    def show(self) -> None:
        """Let clients find it; nothing where they do. Raises OperatorError."""
        if self._interim is None:
            return
        interim, self._interim = self._interim, None
        try:
            interim.rename(self.path)
        except OSError as error:
            _unlink_if_there(interim)
            raise OperatorError(f"cannot listen at {self.path}: {error.strerror}") from None

    def describe(self) -> HandedSocket:
        """What `hand_over` gives. Changes nothing."""
        return HandedSocket(str(self.path), self.socket.fileno(), self._lock, self._inode)

    def hand_over(self) -> HandedSocket:
        """What the daemon's next self needs; on exit the socket listens on."""
        handed = self.describe()
        self.socket.detach()
        self._lock, self._inode = -1, 0
        return handed

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._interim is not None:
            _unlink_if_there(self._interim)
        try:
            if self._inode and os.lstat(self.path).st_ino == self._inode:
                self.path.unlink()
        except OSError:
            pass  # the file or its directory is gone already, or no longer ours
        # the lock file stays: unlinking it would let two daemons lock two files of one name
        self._close()

    def _listen(self) -> None:
        group = group_id(self._group, "socket_group")
        # The lock is ours: of this name there can only be what a killed predecessor left.
        interim = self.path.with_name(f".{self.path.name}{INTERIM}")
        try:
            interim.unlink(missing_ok=True)
            os.fchmod(self.socket.fileno(), 0o600)
            self.socket.bind(str(interim))
            if group is not None:
                _give_to_group(interim, group, self._group)
            interim.chmod(self._mode)
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
            self._inode = os.lstat(interim).st_ino
            self._interim = interim
        except OSError as error:
            _unlink_if_there(interim)
            raise OperatorError(f"cannot listen at {self.path}: {error.strerror}") from None
        except OperatorError:
            _unlink_if_there(interim)
            raise

    def _close(self) -> None:
        self.socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _check_path(path: Path) -> None:
    longest = MAX_SOCKET_PATH_BYTES - len(".") - len(INTERIM)
    if len(os.fsencode(path)) > longest:
        raise OperatorError(
            f"the socket path {path} is over {longest} bytes; set INFERD_SOCKET to a shorter one"
        )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # in /tmp someone else's link may stand where the directory should
        owners = (directory.lstat().st_uid, directory.stat().st_uid)
    except OSError as error:
        raise OperatorError(f"cannot make directory {directory}: {error.strerror}") from None
    for owner in owners:
        if owner not in (os.geteuid(), 0):
            raise OperatorError(
                f"directory {directory} belongs to uid {owner}; set INFERD_RUNTIME_DIR to one of"
                " yours"
            )


def _lock(path: Path) -> int:
    """The descriptor of the lock; it is held as long as that is open."""
    lock_path = path.with_name(path.name + ".lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(lock_path, flags, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise OperatorError(f"cannot open lock file {lock_path}: {reason}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OperatorError(f"lock file {lock_path} is not a file of ours; remove it")
        _take(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise OperatorError(f"cannot lock {lock_path}: {error.strerror}") from None
    except OperatorError:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise OperatorError(
            f"another inferd (pid {holder}) holds {path}; stop it, or choose another --socket"
        ) from None


def _clear_stale(path: Path) -> None:
    """Remove a socket nobody listens on."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OperatorError(f"{path} exists and is not a socket; move it away")
    for _ in range(DYING_LOOKS):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                _remove_stale(path)
                return
            except OSError as error:
                raise OperatorError(f"cannot tell who listens at {path}: {error}") from None
            holder = peer_of(probe).pid
            if not _hangs_up(probe):
                break
    raise OperatorError(f"process {holder} listens at {path} already")


def _hangs_up(probe: socket.socket) -> bool:
    """Whether the listener drops us: a killed daemon lets go of its files one after the other,
    and its lock may be ours while its socket still takes connections."""
    probe.settimeout(DYING_S)
    try:
        return not probe.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def _remove_stale(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot remove the stale socket {path}: {error.strerror}") from None


def _unlink_if_there(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _give_to_group(path: Path, group: int, name: str | None) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError:
        raise OperatorError(f"socket_group: {_why_not_to(group, name)}") from None


def _why_not_to(group: int, name: str | None) -> str:
    if group in (os.getegid(), *os.getgroups()):
        return (
            f"the daemon's user is in group {name!r}, but may not give a file to it: a system call"
            " filter denies chown (in a systemd unit: add SystemCallFilter=@chown)"
        )
    return f"the daemon's user is not in group {name!r}"
