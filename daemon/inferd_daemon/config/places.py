"""Where the daemon keeps its files: sockets for this boot, state for the next. Pure."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from inferd_proto import socket_path

from .schema import Config

ADMIN_SOCKET = "admin.sock"


class Places(Struct, frozen=True):
    """`socket` is `inferd.sock`; `runtimes` holds a private directory for each runtime; `state`
    what outlives the daemon: logs and the journal.
    """

    socket: Path
    runtimes: Path
    state: Path

    @property
    def admin_socket(self) -> Path:
        """The read-only status feed, beside the socket."""
        return self.socket.with_name(ADMIN_SOCKET)


def find_places(config: Config, environ: Mapping[str, str], uid: int) -> Places:
    """The socket by configuration, else by wire.md section 1.

    State: `state_dir`, `$INFERD_STATE_DIR`, systemd's `$STATE_DIRECTORY`; beside a socket that
    was named by hand, so that a second daemon has a second state; else
    `$XDG_STATE_HOME/inferd` or `~/.local/state/inferd`.
    """
    named = config.daemon.socket
    socket = Path(named) if named else socket_path(environ, uid)
    return Places(socket, socket.parent / "runtimes", _state(config, environ, socket))


def _state(config: Config, environ: Mapping[str, str], socket: Path) -> Path:
    given = config.daemon.state_dir or environ.get("INFERD_STATE_DIR")
    given = given or environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if config.daemon.socket or environ.get("INFERD_SOCKET"):
        return socket.parent / "state"
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "inferd"
    home = environ.get("HOME", "")
    return Path(home) / ".local/state/inferd" if home.startswith("/") else socket.parent / "state"
