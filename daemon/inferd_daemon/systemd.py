"""What the daemon and its service manager tell each other: readiness, liveness, inherited sockets.

Datagrams to `$NOTIFY_SOCKET`, and descriptors from 3 on (socket activation). Without a service
manager everything here does nothing; a manager that does not listen never stops the daemon.
"""

import os
import socket
import time
from collections.abc import Mapping

import structlog
import trio

FIRST_DESCRIPTOR = 3
WATCHDOG_SHARE = 3
"""So many signs of life in each interval: two may be late."""
_log = structlog.get_logger(__name__)


class ServiceManager:
    """Tells the manager that `environ` names, if any."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)
        """How long the manager waits for a sign of life; None where it does not."""

    def ready(self, status: str) -> None:
        """The daemon serves, after a start or an upgrade."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """The daemon is about to go over to its next self."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=upgrading")

    def stopping(self) -> None:
        """The daemon ends in order."""
        self._tell("STOPPING=1\nSTATUS=stopping")

    async def run(self) -> None:
        """Give signs of life, until cancelled: this task runs as long as the daemon's loop does."""
        if self.watchdog_s is None:
            return
        while True:
            self._tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / WATCHDOG_SHARE)

    def _tell(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("service manager not told", reason=error.strerror)


def inherited_sockets(environ: Mapping[str, str]) -> dict[str, int]:
    """Descriptors of listening sockets that the service manager passed to this process, by name.

    Without a name it is `unknown`, as systemd says. They become private to this process.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, int] = {}
    for index in range(int(count) if count.isdecimal() else 0):
        descriptor = FIRST_DESCRIPTOR + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, descriptor)
    return found


def _address(named: str) -> str | None:
    """An abstract one begins with a zero byte, and is written with an @."""
    if named.startswith("@"):
        return "\0" + named[1:]
    return named if named.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
