"""What the daemon holds open while it runs: its sockets and its state directory.

Made anew, handed over by the daemon's former self, or passed by the service manager.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from inferd_proto import LineOp

from ..config import Config, Places
from ..supervision.succession.handover import HandedDoor, HandedFiles, HandedSocket
from ..supervision.succession.state_directory import StateDirectory
from ..systemd import inherited_sockets
from .http.doors import HttpDoors, wanted_doors
from .socket_file import SocketFile

ACTIVATED_NAME = "inferd.sock"
"""`FileDescriptorName=` of the socket unit."""
ACTIVATED_DOORS = {"listen": "inferd-http", "unix": "inferd-http.sock"}
"""The same for HTTP, by the key of `[http]`."""
ADMIN_MODE = 0o600


class OpenFiles(NamedTuple):
    """All of them, open."""

    socket: SocketFile
    admin: SocketFile
    state: StateDirectory
    http: HttpDoors
    lines: dict[LineOp, SocketFile]

    def describe(self) -> HandedFiles:
        """As the next self would get them."""
        return HandedFiles(
            self.socket.describe(),
            self.admin.describe(),
            self.state.describe(),
            self.http.describe(),
            {op: file.describe() for op, file in self.lines.items()},
        )

    def hand_over(self) -> HandedFiles:
        """Leave them open for the next self."""
        return HandedFiles(
            self.socket.hand_over(),
            self.admin.hand_over(),
            self.state.hand_over(),
            self.http.hand_over(),
            {op: file.hand_over() for op, file in self.lines.items()},
        )


@contextmanager
def open_files(config: Config, places: Places, handed: HandedFiles | None) -> Iterator[OpenFiles]:
    """Hold them for the block. Raises OperatorError."""
    group = config.daemon.socket_group
    inherited = inherited_sockets(os.environ) if handed is None else {}
    given = _activated(places, inherited) if handed is None else handed.socket
    admin = None if handed is None else handed.admin
    doors = _activated_doors(config, inherited) if handed is None else handed.http
    with (
        SocketFile(places.socket, group=group, handed=given, shown=False) as socket_file,
        SocketFile(places.admin_socket, mode=ADMIN_MODE, handed=admin) as admin_file,
        StateDirectory(places.state, None if handed is None else handed.state) as directory,
        HttpDoors(config.http, places.state, doors) as http_doors,
        _line_sockets(config, places, {} if handed is None else handed.lines) as lines,
    ):
        # Last: who sees it finds the others, and a daemon that cannot open them is seen by nobody.
        socket_file.show()
        yield OpenFiles(socket_file, admin_file, directory, http_doors, lines)


@contextmanager
def _line_sockets(
    config: Config, places: Places, handed: Mapping[LineOp, HandedSocket]
) -> Iterator[dict[LineOp, SocketFile]]:
    wanted = dict.fromkeys(config.daemon.compat_sockets)
    for op in handed.keys() - wanted.keys():
        with SocketFile(places.line_socket(op), handed=handed[op]):
            pass  # nobody wants it any more: its file goes
    group = config.daemon.socket_group
    with ExitStack() as stack:
        yield {
            op: stack.enter_context(
                SocketFile(places.line_socket(op), group=group, handed=handed.get(op))
            )
            for op in wanted
        }


def _activated(places: Places, inherited: Mapping[str, int]) -> HandedSocket | None:
    """The socket that the service manager listens on for us; its file is the manager's."""
    descriptor = inherited.get(ACTIVATED_NAME)
    if descriptor is None:
        return None
    return HandedSocket(str(places.socket), descriptor, lock=-1, inode=0)


def _activated_doors(config: Config, inherited: Mapping[str, int]) -> list[HandedDoor]:
    """The same for HTTP: what is configured, where the manager listens already."""
    return [
        HandedDoor(name, HandedSocket(address, inherited[passed], lock=-1, inode=0))
        for name, address in wanted_doors(config.http)
        if (passed := ACTIVATED_DOORS[name]) in inherited
    ]
