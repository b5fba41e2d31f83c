"""What the daemon tells its next self when it upgrades in place (leases.md section 6): the form.

Pure: structs and bytes. What is journaled (leases, entries of processes) is not repeated here;
what only an open descriptor or a living process gives is. Holds keys of runtimes: it travels in
memory only.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from inferd_proto import LineOp

from ...backends.runtime import ModelFacts
from ...config import Places
from ...engines.base import Belongings
from ...errors import InferdError
from ..leases.journal import RuntimeEntry

HANDOVER_VERSION = 2
"""Raised where an older or newer daemon would misread the rest; both ends check it."""


class HandoverError(InferdError):
    """The state of the former self cannot be taken over; the message says why."""


class HandedSocket(Struct, frozen=True):
    """The listening socket of `path`: its descriptor, that of its lock file, the file's inode.

    `inode` 0: the file is not the daemon's to remove.
    """

    path: str
    descriptor: int
    lock: int
    inode: int


class HandedDirectory(Struct, frozen=True):
    """The state directory and the descriptor of its lock."""

    path: str
    lock: int


DoorName = Literal["listen", "unix", "leases"]


class HandedDoor(Struct, frozen=True):
    """A socket that the HTTP front listens on. `path` of it is its address, as configured."""

    name: DoorName
    socket: HandedSocket


class HandedFiles(Struct, frozen=True):
    """What the daemon holds in the file system, and where it listens."""

    socket: HandedSocket
    admin: HandedSocket
    state: HandedDirectory
    http: list[HandedDoor] = []
    lines: dict[LineOp, HandedSocket] = {}


class HandedClient(Struct, frozen=True):
    """A connection without a request in flight, at rest between two frames."""

    number: int
    descriptor: int
    lines: LineOp | None = None
    """What its lines ask for; None where it speaks frames."""


class HandedHttpClient(Struct, frozen=True):
    """A connection between two HTTP requests, and the name of the door that it came in by."""

    door: DoorName
    descriptor: int


class HandedProcess(Struct, frozen=True):
    """A child that runs on."""

    pid: int
    pidfd: int


class HandedRuntime(Struct, frozen=True, kw_only=True):
    """One runtime that occupies memory, or is about to. Times are on the monotonic clock."""

    entry: RuntimeEntry
    wanted: bool
    serving: bool
    last_used: float
    idle_since: float | None = None
    estimated_bytes: int | None = None
    restarts: int = 0
    process: HandedProcess | None = None
    facts: ModelFacts | None = None
    belongings: Belongings = Belongings()


class Handover(Struct, frozen=True, kw_only=True):
    """Everything. `pid` is the one and only process that may take it over.

    `code` is a descriptor of the next self's code, for its start only. `accepted` counts the
    connections so far, `upgrades` the times the daemon went over to a next self; `began` is when it
    stopped accepting, on the monotonic clock.
    """

    version: int = HANDOVER_VERSION
    pid: int
    mark: str
    files: HandedFiles
    upgrades: int
    accepted: int = 0
    began: float = 0.0
    code: int | None = None
    clients: list[HandedClient] = []
    http_clients: list[HandedHttpClient] = []
    runtimes: list[HandedRuntime] = []

    def __repr__(self) -> str:
        return (
            f"Handover({len(self.runtimes)} runtimes, {len(self.clients)} clients, "
            f"{len(self.http_clients)} over HTTP)"
        )

    @property
    def connections(self) -> frozenset[int]:
        """The numbers of the connections that live on."""
        return frozenset(client.number for client in self.clients)

    def descriptors(self) -> Iterator[int]:
        """All that must stay open from one self to the next, less `code`."""
        doors = [door.socket for door in self.files.http]
        for handed in (self.files.socket, self.files.admin, *self.files.lines.values(), *doors):
            yield handed.descriptor
            if handed.lock >= 0:
                yield handed.lock
        yield self.files.state.lock
        yield from (client.descriptor for client in self.clients)
        yield from (client.descriptor for client in self.http_clients)
        for runtime in self.runtimes:
            if runtime.process is not None:
                yield runtime.process.pidfd
            if runtime.belongings.descriptor is not None:
                yield runtime.belongings.descriptor

    def misfit(self, places: Places) -> str | None:
        """Why a daemon with these places cannot take over; None where it can."""
        for key, here, there in (
            ("socket", self.files.socket.path, places.socket),
            ("admin_socket", self.files.admin.path, places.admin_socket),
            ("state_dir", self.files.state.path, places.state),
        ):
            if here != str(there):
                return f"{key} would move from {here} to {there}: that takes a restart"
        return None


class _Head(Struct):
    version: int


def encode(handover: Handover) -> bytes:
    """As bytes for `decode`."""
    return msgspec.json.encode(handover)


def decode(data: bytes) -> Handover:
    """Raises HandoverError: another version, or damaged."""
    try:
        version = msgspec.json.decode(data, type=_Head).version
        if version != HANDOVER_VERSION:
            raise HandoverError(
                f"the running daemon hands over version {version}, this one takes "
                f"{HANDOVER_VERSION}: that takes a restart"
            )
        return msgspec.json.decode(data, type=Handover)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HandoverError(f"the handed over state does not read: {error}") from None
