"""The directory of saved caches: files made durable, checked, counted and swept away.

Blocking: call it in a thread. Never changes a file in place: one that is being restored stays
whole, whatever happens to its name.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .manifest import (
    Holding,
    KvFile,
    KvManifest,
    allowed_bytes,
    decode,
    encode,
    file_name,
    to_drop,
)

MANIFEST = "manifest.json"
PLACE_CHARS = 16
"""Of the instance key's hash, as in the runtime's own directory."""
MAX_MANIFEST_BYTES = 1 << 20


class KvStore:
    """`directory` holds one private directory for each runtime, `limit_bytes` of files in all.

    What is kept holds what the model was told: all of it is the daemon's user's alone.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory.absolute()
        self.limit_bytes = limit_bytes

    def place(self, instance_key: str) -> Path:
        """A runtime's own directory, which its process may write to."""
        return self.directory / instance_key[-PLACE_CHARS:]

    def sweep(self, instance_keys: Iterable[str]) -> None:
        """Remove what belongs to none of these, and what was left half done.

        What cannot be removed now is in nobody's way: it is never restored.
        """
        wanted = {self.place(key).name for key in instance_keys}
        with contextlib.suppress(OSError):
            if wanted:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for place in list(self.directory.iterdir()):
                with contextlib.suppress(OSError):
                    if place.name in wanted:
                        self._tidy(place, self._read(place))
                    else:
                        _remove(place)

    def load(self, instance_key: str) -> KvManifest | None:
        """What the runtime has kept; None where nothing is known."""
        manifest = self._read(self.place(instance_key))
        return manifest if manifest and manifest.instance_key == instance_key else None

    def is_whole(self, instance_key: str, file: KvFile) -> bool:
        """Whether a file is what it was when it was sealed. Reads all of it."""
        try:
            with (self.place(instance_key) / file.name).open("rb") as stored:
                if os.fstat(stored.fileno()).st_size != file.bytes:
                    return False
                return hashlib.file_digest(stored, "sha256").hexdigest() == file.sha256
        except OSError:
            return False

    def seal(self, instance_key: str, slot: int, temporary: str, tokens: int) -> KvFile:
        """Make a file that the server has written durable, under its lasting name.

        Raises OSError; the file is gone then.
        """
        place = self.place(instance_key)
        path = place / temporary
        try:
            with path.open("rb") as written:
                os.fchmod(written.fileno(), 0o600)
                os.fsync(written.fileno())
                size = os.fstat(written.fileno()).st_size
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            # Until the manifest says so, this is refuse: its hash is not what the old one names.
            path.replace(place / file_name(slot))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return KvFile(slot, file_name(slot), size, digest, tokens)

    def write(self, manifest: KvManifest, *, durable: bool = True) -> None:
        """Put a manifest in place, and remove what it does not name. Raises OSError.

        Not `durable` it outlives the daemon, but perhaps not the machine.
        """
        place = self.place(manifest.instance_key)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        fresh = place / f"{MANIFEST}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(encode(manifest))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(place / MANIFEST)
        if durable:
            _sync_directory(place)
        self._tidy(place, manifest)

    def make_room(self, instance_key: str) -> bool:
        """Drop what was saved longest ago until all fits; False where the runtime's own had to go.

        Raises OSError.
        """
        held = self._holdings()
        total = sum(one.total_bytes for one in held)
        disk = os.statvfs(self.directory)
        allowed = allowed_bytes(self.limit_bytes, total, disk.f_bavail * disk.f_frsize)
        own = self.place(instance_key).name
        dropped = to_drop(held, allowed, own)
        for name in dropped:
            self._empty(self.directory / name)
        return own not in dropped

    def _holdings(self) -> list[Holding]:
        """By what is there, named by a manifest or not yet."""
        held = []
        for place in self.directory.iterdir():
            manifest = self._read(place)
            size = sum(size for _, size in _files(place))
            saved_at = 0.0 if manifest is None else min(manifest.saved_at, time.time())
            held.append(Holding(place.name, size, saved_at))
        return held

    def _read(self, place: Path) -> KvManifest | None:
        try:
            with (place / MANIFEST).open("rb") as file:
                return decode(file.read(MAX_MANIFEST_BYTES))
        except OSError:
            return None

    def _empty(self, place: Path) -> None:
        # The directory stays: a process that runs may be about to write there.
        (place / MANIFEST).unlink(missing_ok=True)
        self._tidy(place, None)

    def _tidy(self, place: Path, manifest: KvManifest | None) -> None:
        named = {file.name for file in manifest.files} if manifest is not None else set()
        for path, _ in _files(place):
            if path.name not in named:
                path.unlink(missing_ok=True)


def _files(place: Path) -> Iterator[tuple[Path, int]]:
    """Everything in a place but its manifest, with its size."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(place)):
            if entry.name != MANIFEST and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
