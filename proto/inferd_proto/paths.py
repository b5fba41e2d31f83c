"""Where the daemon's socket is, by the one rule that the daemon and its clients share (wire.md 1).

Pure: reads the environment it is given, and never looks at the file system. Whether a directory
exists, or whose it is, is for the caller to find out.
"""

from collections.abc import Mapping
from pathlib import Path

SOCKET_NAME = "inferd.sock"

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` holds 108 bytes on Linux with its closing zero; the kernel refuses a longer path."""

_UNIX_SCHEME = "unix://"


def runtime_directory(environ: Mapping[str, str], uid: int) -> Path:
    """The directory for sockets and lock files; the first hit wins.

    `$INFERD_RUNTIME_DIR`, `$RUNTIME_DIRECTORY` (systemd's, the first of its colon-separated
    list), `$XDG_RUNTIME_DIR/inferd`, `$HOME/.inferd/run`, `/tmp/inferd-<uid>`. A variable that
    is empty counts as missing, and so does an XDG or HOME path that is not absolute.
    """
    if own := environ.get("INFERD_RUNTIME_DIR"):
        return Path(own)
    if given := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(given)
    if (xdg := environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        return Path(xdg) / "inferd"
    if (home := environ.get("HOME", "")).startswith("/"):
        return Path(home) / ".inferd" / "run"
    return Path(f"/tmp/inferd-{uid}")


def socket_path(environ: Mapping[str, str], uid: int) -> Path:
    """The socket that speaks frames: `$INFERD_SOCKET`, else `inferd.sock` in the directory.

    `$INFERD_SOCKET` is a full path, bare or as `unix:///path`.
    """
    if given := environ.get("INFERD_SOCKET"):
        return Path(given.removeprefix(_UNIX_SCHEME))
    return runtime_directory(environ, uid) / SOCKET_NAME
