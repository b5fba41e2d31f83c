"""What the daemon must know again after a crash: its format, and how it is read back.

Pure: bytes in, entries out, and the other way round. One entry is one line, `crc32 json\\n`; the
last entry of a key counts. A line that is torn or flipped is skipped and counted; it takes no
other with it. The file holds keys of runtimes: it is the daemon's alone (mode 0600).
"""

from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from inferd_proto import JsonObject

from ...errors import CallerFault
from .lease import Lease

MAX_LINE_BYTES = 1 << 20
"""What is longer was never written by us, and is not read."""
MAX_ENTRY_BYTES = MAX_LINE_BYTES // 2
"""A boot spec with its arguments is some kilobytes; more is not taken. A later version, which may
have more to say of the same entry, still reads back what it writes."""


class DaemonEntry(Struct, frozen=True, tag_field="e", tag="daemon"):
    """One run of the daemon. Its children bear `mark` in their environment."""

    mark: str
    pid: int
    start_ticks: int
    boot_id: str

    @property
    def key(self) -> str:
        return f"daemon/{self.mark}"


class RuntimeEntry(Struct, frozen=True, kw_only=True, tag_field="e", tag="runtime"):
    """A runtime that leases may hold: what is needed to start it again at the same address.

    `kind` is `boot`, `attach` or `agent`, `spec` what its normaliser takes. `uds` or `port` is
    the address that was published, `api_key` the key, `group` the group
    that may use the socket, `route` the route that configured it.
    """

    instance_key: str
    kind: str
    spec: JsonObject
    uds: str | None = None
    port: int | None = None
    api_key: str | None = None
    group: int | None = None
    route: str | None = None
    estimated_bytes: int | None = None

    @property
    def key(self) -> str:
        return f"runtime/{self.instance_key}"

    def __repr__(self) -> str:
        return f"RuntimeEntry({self.instance_key})"


class ProcessEntry(Struct, frozen=True, kw_only=True, tag_field="e", tag="process"):
    """A child: first as an intent without a pid, then with its identity.

    `start_ticks` is field 22 of /proc/PID/stat: with `boot_id` and the pid, proof that a process
    is this one. `mark` is what its environment bears.
    """

    instance_key: str
    mark: str
    boot_id: str
    pid: int | None = None
    start_ticks: int | None = None
    uds: str | None = None

    @property
    def key(self) -> str:
        return f"process/{self.mark}/{self.instance_key}"


class LeaseEntry(Struct, frozen=True, tag_field="e", tag="lease"):
    """A lease. Its own times are monotonic and mean nothing after a reboot; these are wall time."""

    lease: Lease
    boot_id: str
    wall_deadline: float | None
    wall_created: float

    @property
    def key(self) -> str:
        return f"lease/{self.lease.lease_ref}"


class Gone(Struct, frozen=True, tag_field="e", tag="gone"):
    """The entry under `key` is over."""

    key: str


Live = DaemonEntry | RuntimeEntry | ProcessEntry | LeaseEntry
Entry = Live | Gone


class Clocks(NamedTuple):
    """One moment on both clocks, in seconds, and the boot that the monotonic one belongs to."""

    monotonic: float
    wall: float
    boot_id: str


def lease_entry(lease: Lease, clocks: Clocks) -> LeaseEntry:
    """A lease to be written now."""
    ahead = clocks.wall - clocks.monotonic
    return LeaseEntry(
        lease,
        clocks.boot_id,
        None if lease.deadline is None else lease.deadline + ahead,
        lease.created + ahead,
    )


def lease_of(entry: LeaseEntry, clocks: Clocks) -> Lease:
    """The lease on the monotonic clock of now.

    Within one boot its times hold as they are, whatever was done to the wall clock.
    """
    if entry.boot_id == clocks.boot_id:
        return entry.lease
    behind = clocks.monotonic - clocks.wall
    deadline = None if entry.wall_deadline is None else entry.wall_deadline + behind
    return replace(entry.lease, deadline=deadline, created=entry.wall_created + behind)


class EntryTooLong(CallerFault):
    """What would have to be remembered is more than is read back."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"what the daemon would have to remember of it takes {size} bytes, more than "
            f"{MAX_ENTRY_BYTES}: shorten the spec"
        )


class Replay(NamedTuple):
    """What was read: the live entries by key, in the order they were last written.

    `damaged` lines were torn or flipped; `foreign` ones are whole, of a version that knows more.
    """

    entries: dict[str, Live]
    damaged: int
    foreign: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """One line of a new entry. Raises EntryTooLong before it becomes what is not read back."""
    line = encode_again(entry)
    if len(line) > MAX_ENTRY_BYTES:
        raise EntryTooLong(len(line))
    return line


def encode_again(entry: Entry) -> bytes:
    """One line of an entry that was read back."""
    body = _encoder.encode(entry)
    return b"%08x %b\n" % (crc32(body), body)


def replay(data: bytes) -> Replay:
    """Read a journal back, whatever happened to it."""
    return replay_lines(BytesIO(data))


def replay_lines(lines: Iterable[bytes]) -> Replay:
    """As `replay`, from lines with their ends: a long journal need not be held as a whole."""
    entries: dict[str, Live] = {}
    damaged = foreign = 0
    for line in lines:
        # What follows the last newline was never finished: nobody was told that it is there.
        body = _body(line[:-1]) if line[-1:] == b"\n" else None
        if body is None:
            damaged += 1
            continue
        try:
            entry = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            foreign += 1
            continue
        _apply(entries, entry)
    return Replay(entries, damaged, foreign)


def compact(entries: Iterable[Live]) -> bytes:
    """The least journal that says the same."""
    return b"".join(encode_again(entry) for entry in entries)


def _apply(entries: dict[str, Live], entry: Entry) -> None:
    entries.pop(entry.key, None)
    if not isinstance(entry, Gone):
        entries[entry.key] = entry


def _body(line: bytes) -> bytes | None:
    if len(line) < 10 or len(line) >= MAX_LINE_BYTES or line[8:9] != b" ":
        return None
    body = line[9:]
    return body if line[:8] == b"%08x" % crc32(body) else None
