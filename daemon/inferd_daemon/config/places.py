"""Where the daemon keeps its files: sockets for this boot, state for the next. Pure."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from inferd_proto import SOCKET_NAME, LineOp, socket_path

from .schema import Config


class Places(Struct, frozen=True):
    """`socket` is `inferd.sock`, `admin_socket` the read-only status feed; `runtimes` holds a
    private directory for each runtime; `state` what outlives the daemon: logs and the journal.
    """

    socket: Path
    admin_socket: Path
    runtimes: Path
    state: Path

    def line_socket(self, op: LineOp) -> Path:
        """Of the JSON lines for `op` (wire.md section 7)."""
        return _beside(self.socket, f"infer.{op}.sock")


def find_places(config: Config, environ: Mapping[str, str], uid: int) -> Places:
    """The socket by configuration, else by wire.md section 1; the rest beside it.

    State: `state_dir`, `$INFERD_STATE_DIR`, systemd's `$STATE_DIRECTORY`; beside a socket that
    was named by hand, so that a second daemon has a second state; else
    `$XDG_STATE_HOME/inferd` or `~/.local/state/inferd`.
    """
    named = config.daemon.socket
    socket = Path(named) if named else socket_path(environ, uid)
    return Places(
        socket,
        _beside(socket, "admin.sock"),
        _beside(socket, "runtimes"),
        _state(config, environ, socket),
    )


def _beside(socket: Path, name: str) -> Path:
    """`/tmp/mine.sock` has `/tmp/mine.admin.sock`: two daemons may share a directory."""
    return socket.with_name(name if socket.name == SOCKET_NAME else f"{socket.stem}.{name}")


def _state(config: Config, environ: Mapping[str, str], socket: Path) -> Path:
    given = config.daemon.state_dir or environ.get("INFERD_STATE_DIR")
    given = given or environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if config.daemon.socket or environ.get("INFERD_SOCKET"):
        return _beside(socket, "state")
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "inferd"
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home) / ".local/state/inferd"
    return _beside(socket, "state")
