"""What was kept of a runtime's caches, when it may be restored, and what goes for want of room.

Pure. A manifest is the only way to a saved file: what it does not name, or names otherwise, is
refuse.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec import Struct

FORMAT = 1


class KvFile(Struct, frozen=True):
    """One slot's cache. `bytes` and `sha256` (hex) are of the whole file."""

    slot: int
    name: str
    bytes: int
    sha256: str
    tokens: int


class KvManifest(Struct, frozen=True, kw_only=True):
    """What one runtime has kept.

    `identity` is of the program and model that made it. `process` is the one that was started
    last: the boot, its pid and start time. `restoring` while that process is being given the files:
    where it still stands at the next start, they were too much for it.
    """

    instance_key: str
    identity: str
    process: str
    restoring: bool = False
    saved_at: float = 0.0
    """Wall time in seconds."""
    files: list[KvFile] = []
    format: int = FORMAT

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


class Holding(NamedTuple):
    """What one runtime keeps on disk."""

    place: str
    total_bytes: int
    saved_at: float


def encode(manifest: KvManifest) -> bytes:
    """As it is written."""
    return msgspec.json.encode(manifest)


def decode(data: bytes) -> KvManifest | None:
    """None where it is torn, foreign, or leads out of its directory."""
    try:
        manifest = msgspec.json.decode(data, type=KvManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = [file.name for file in manifest.files]
    if manifest.format != FORMAT or any(name != file_name(i) for name, i in _numbered(manifest)):
        return None
    return manifest if len(set(names)) == len(names) else None


def file_name(slot: int) -> str:
    """Of a slot's sealed file."""
    return f"slot-{slot}.kv"


def restorable(manifest: KvManifest | None, instance_key: str, identity: str) -> list[KvFile]:
    """The files that the runtime may be given, if they are found to be whole."""
    if manifest is None or manifest.restoring:
        return []
    if (manifest.instance_key, manifest.identity) != (instance_key, identity):
        return []
    return manifest.files


def merged(kept: Iterable[KvFile], fresh: Iterable[KvFile]) -> list[KvFile]:
    """One file for each slot, the fresh ones first."""
    by_slot = {file.slot: file for file in kept} | {file.slot: file for file in fresh}
    return [by_slot[slot] for slot in sorted(by_slot)]


def allowed_bytes(limit_bytes: int, held_bytes: int, free_bytes: int) -> int:
    """What all may keep together: the limit, and never more than half of what is free."""
    return min(limit_bytes, (held_bytes + free_bytes) // 2)


def to_drop(holdings: Iterable[Holding], allowed: int, spared: str) -> list[str]:
    """The places that go so that the rest fits, least recently saved first; `spared` goes last."""
    ordered = sorted(holdings, key=lambda one: (one.place == spared, one.saved_at))
    total = sum(one.total_bytes for one in ordered)
    dropped: list[str] = []
    for one in ordered:
        if total <= allowed:
            break
        if one.total_bytes:
            dropped.append(one.place)
            total -= one.total_bytes
    return dropped


def _numbered(manifest: KvManifest) -> list[tuple[str, int]]:
    return [(file.name, file.slot) for file in manifest.files]
