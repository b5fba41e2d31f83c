"""One attempt to connect to the daemon's socket, its errors in words, and when to try again.

The links do the waiting between attempts.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from inferd_proto import MAX_SOCKET_PATH_BYTES, socket_path

from .errors import ConnectError, DaemonNotRunning

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1
"""A daemon that comes up is found within this time of being up."""
SERVICE_SOCKET = "/run/inferd/inferd.sock"
"""Where the shipped systemd unit listens: told of, never looked at (wire.md section 1)."""


class BacklogFull(ConnectError):
    """The daemon lives, and does not accept connections fast enough: try again."""


def find_socket(given: str | os.PathLike[str] | None) -> str:
    """`given` (a path, or `unix:///path`), else by the rule of wire.md section 1."""
    if given is None:
        return str(socket_path(os.environ, os.getuid()))
    return os.fspath(given).removeprefix("unix://")


def attempt(path: str) -> socket.socket:
    """A connected socket that does not block.

    Raises DaemonNotRunning, BacklogFull, or ConnectError where trying again is of no use.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConnectError(
            f"the socket path is longer than {MAX_SOCKET_PATH_BYTES} bytes: {path}", path
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _in_words(error, path) from error
        raise
    return sock


def pauses() -> Iterator[float]:
    """Seconds to wait between attempts: short at first, then steady."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def may_retry(error: ConnectError, elapsed_s: float, connect_s: float, wait_s: float) -> bool:
    """Whether another attempt makes sense `elapsed_s` after the first."""
    if isinstance(error, DaemonNotRunning):
        return elapsed_s < wait_s
    return isinstance(error, BacklogFull) and elapsed_s < max(connect_s, wait_s)


def _in_words(error: OSError, path: str) -> ConnectError:
    match error:
        case FileNotFoundError():
            reason = f"no daemon runs here: there is no socket at {path}"
            if os.path.exists(SERVICE_SOCKET):
                reason += f" (that of this machine's service: INFERD_SOCKET={SERVICE_SOCKET})"
            return DaemonNotRunning(reason, path)
        case ConnectionRefusedError():
            kind = "nobody listens on" if Path(path).is_socket() else "this is not a socket:"
            return DaemonNotRunning(f"no daemon runs here: {kind} {path}", path)
        case BlockingIOError():
            return BacklogFull(f"the daemon does not accept connections on {path}", path)
        case PermissionError():
            return ConnectError(
                f"not allowed to open {path}: ask for membership in the socket's group", path
            )
        case _:
            return ConnectError(f"cannot connect to {path}: {error.strerror}", path)
