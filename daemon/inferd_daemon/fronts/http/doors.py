"""The sockets that the HTTP front listens on: by configuration, handed over, or for leases alone.

Nothing here knows HTTP. What leases need is opened when it is first asked for, on a free loopback
port that is kept in the state directory, so that it is the same after a restart.
"""

import errno
import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ...config import HttpConfig
from ...config.http import DEFAULT_LISTEN
from ...config.http_rules import is_loopback, listen_address
from ...errors import OperatorError
from ...supervision.succession.handover import DoorName, HandedDoor, HandedSocket
from ..socket_file import BACKLOG, SocketFile

LOOPBACK = "127.0.0.1"
PORT_FILE = "http-port"


class HttpDoor:
    """One listening socket. `address` is as it was configured, or where it listens."""

    def __init__(
        self, name: DoorName, address: str, sock: socket.socket, file: SocketFile | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.socket = sock
        self.socket.setblocking(False)
        self._file = file

    @property
    def port(self) -> int:
        """0 for a Unix socket."""
        return 0 if self.name == "unix" else int(self.socket.getsockname()[1])

    def url(self, *, tls: bool) -> str:
        """Where clients find it."""
        if self.name == "unix":
            return f"unix:{self.address}"
        host = self.socket.getsockname()[0]
        return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def describe(self) -> HandedDoor:
        """What `hand_over` gives. Changes nothing."""
        if self._file is not None:
            return HandedDoor(self.name, self._file.describe())
        handed = HandedSocket(self.address, self.socket.fileno(), lock=-1, inode=0)
        return HandedDoor(self.name, handed)

    def hand_over(self) -> HandedDoor:
        """What the daemon's next self needs; it listens on."""
        if self._file is not None:
            return HandedDoor(self.name, self._file.hand_over())
        handed = self.describe()
        self.socket.detach()
        return handed


class HttpDoors:
    """Context manager: on enter those that `config` names listen; on exit all are closed.

    Raises OperatorError where one cannot listen. `handed` are those of the daemon's former self;
    those that have no place in `config` any more are closed.
    """

    def __init__(
        self, config: HttpConfig | None, state: Path, handed: list[HandedDoor] | None = None
    ) -> None:
        self.doors: list[HttpDoor] = []
        self._config = config
        self._port_file = state / PORT_FILE
        self._handed = {(one.name, one.socket.path): one.socket for one in handed or ()}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._files = opened
            for name, address in wanted_doors(self._config):
                self._add(self._open_unix(address) if name == "unix" else self._open(address))
            # it was opened because leases have its address
            kept = next((key for key in self._handed if key[0] == "leases"), None)
            if kept is not None:
                self._add(self._adopt("leases", kept[1]))
            for left in self._handed.values():
                _close(left)
            self._handed.clear()
            self._files = opened.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._files.close()

    def describe(self) -> list[HandedDoor]:
        """What `hand_over` gives. Changes nothing."""
        return [door.describe() for door in self.doors]

    def hand_over(self) -> list[HandedDoor]:
        """Leave all of them open for the daemon's next self."""
        return [door.hand_over() for door in self.doors]

    @property
    def stand(self) -> bool:
        """Whether there is a front: configured, or open for a lease that may have it opened."""
        return self._config is not None or self._for_leases() is not None

    def for_leases(self) -> tuple[HttpDoor, bool]:
        """The door whose address leases may give out, and whether it was opened just now.

        Raises OperatorError.
        """
        standing = self._for_leases()
        if standing is not None:
            return standing, False
        kept = self._kept_port()
        try:
            sock = _bind(LOOPBACK, kept)
        except OSError:
            try:
                sock = _bind(LOOPBACK, 0)
            except OSError as error:
                raise OperatorError(f"cannot listen on loopback: {error.strerror}") from None
        self._keep_port(sock.getsockname()[1])
        door = self._add(HttpDoor("leases", LOOPBACK, sock))
        return door, True

    def _for_leases(self) -> HttpDoor | None:
        tls = self._config is not None and self._config.tls_cert_file is not None
        for door in self.doors:
            if door.name == "leases" or (door.name == "listen" and not tls and _is_local(door)):
                return door
        return None

    def _add(self, door: HttpDoor) -> HttpDoor:
        self.doors.append(door)
        self._files.callback(door.socket.close)
        return door

    def _adopt(self, name: DoorName, address: str) -> HttpDoor:
        handed = self._handed.pop((name, address))
        return HttpDoor(name, address, socket.socket(fileno=handed.descriptor))

    def _open(self, address: str) -> HttpDoor:
        if ("listen", address) in self._handed:
            return self._adopt("listen", address)
        found = listen_address(address)
        assert found is not None  # the configuration was checked
        try:
            return HttpDoor("listen", address, _bind(*found))
        except OSError as error:
            raise OperatorError(_why_not(address, error)) from None

    def _open_unix(self, address: str) -> HttpDoor:
        config = self._config
        assert config is not None
        file = SocketFile(
            Path(address),
            mode=int(config.unix_mode, 8),
            group=config.unix_group,
            handed=self._handed.pop(("unix", address), None),
        )
        try:
            self._files.enter_context(file)
        except OperatorError as error:
            raise OperatorError(f"http.unix: {error}") from None
        return HttpDoor("unix", address, file.socket, file)

    def _kept_port(self) -> int:
        with suppress(OSError, ValueError):
            port = int(self._port_file.read_text()[:6])
            if 0 < port < 65_536:
                return port
        return 0

    def _keep_port(self, port: int) -> None:
        """A full disk costs the same port after a restart, not the port."""
        with suppress(OSError):
            self._port_file.write_text(f"{port}\n")


def wanted_doors(config: HttpConfig | None) -> list[tuple[DoorName, str]]:
    """What is configured, by name and address."""
    if config is None:
        return []
    doors: list[tuple[DoorName, str]] = []
    if config.listen is not None or config.unix is None:
        doors.append(("listen", config.listen or DEFAULT_LISTEN))
    if config.unix is not None:
        doors.append(("unix", config.unix))
    return doors


def check_free(config: HttpConfig | None, handed: list[HandedDoor]) -> None:
    """Whether a daemon that is handed these could listen where `config` wants.

    Raises OperatorError. Listens for an instant where nobody should be.
    """
    there = {(one.name, one.socket.path) for one in handed}
    for name, address in wanted_doors(config):
        found = listen_address(address)
        if name == "unix" or found is None or (name, address) in there:
            continue
        try:
            _bind(*found).close()
        except OSError as error:
            raise OperatorError(_why_not(address, error)) from None


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # of what closed a while ago; two never listen on one port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _why_not(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"http.listen: another program listens on {address}; stop it, or choose another port"
    if error.errno == errno.EACCES:
        return f"http.listen: {address} is not for this user; choose a port of 1024 or more"
    return f"http.listen: cannot listen on {address}: {error.strerror}"


def _is_local(door: HttpDoor) -> bool:
    return is_loopback(door.socket.getsockname()[0])


def _close(handed: HandedSocket) -> None:
    if handed.inode:
        with suppress(OSError):
            os.unlink(handed.path)
    for descriptor in (handed.descriptor, handed.lock):
        if descriptor >= 0:
            os.close(descriptor)
