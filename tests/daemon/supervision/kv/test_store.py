"""The store of saved caches on a real disk: sealed, checked, bounded, swept, and full."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from inferd_daemon.supervision.kv.manifest import KvFile, KvManifest, file_name
from inferd_daemon.supervision.kv.store import KvStore

KEY = "model-0123456789abcdef0123456789abcdef"
OTHER = "model-ffffffffffffffffffffffffffffffff"
ROOMY = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> KvStore:
    return KvStore(tmp_path / "kv", ROOMY)


def written(store: KvStore, key: str, content: bytes, slot: int = 0) -> str:
    """A file as a server leaves it: there, and readable by everybody."""
    name = f"slot-{slot}.new"
    store.place(key).mkdir(parents=True, exist_ok=True)
    path = store.place(key) / name
    path.write_bytes(content)
    path.chmod(0o644)
    return name


def saved(store: KvStore, key: str, content: bytes, saved_at: float = 1.0) -> KvFile:
    file = store.seal(key, 0, written(store, key, content), 5)
    store.write(manifest(key, [file], saved_at))
    return file


def manifest(key: str, files: list[KvFile], saved_at: float = 1.0) -> KvManifest:
    return KvManifest(instance_key=key, identity="i", process="p", saved_at=saved_at, files=files)


def names(store: KvStore, key: str) -> set[str]:
    return set(os.listdir(store.place(key)))


def test_what_is_sealed_is_private_whole_and_found_again(store: KvStore) -> None:
    file = saved(store, KEY, b"cache" * 1000)
    path = store.place(KEY) / file.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.place(KEY).stat().st_mode) == 0o700
    assert (file.bytes, file.tokens) == (5000, 5)
    assert store.is_whole(KEY, file)
    assert store.load(KEY) == manifest(KEY, [file])
    assert names(store, KEY) == {"slot-0.kv", "manifest.json"}


@pytest.mark.parametrize("kind", ["truncated", "flipped", "longer", "missing", "directory"])
def test_a_file_that_is_not_what_it_was_is_found_out(store: KvStore, kind: str) -> None:
    file = saved(store, KEY, b"cache" * 1000)
    path = store.place(KEY) / file.name
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "truncated":
            path.write_bytes(content[:-1])
        case "flipped":
            path.write_bytes(content[:100] + b"x" + content[101:])
        case "longer":
            path.write_bytes(content + b"x")
        case "directory":
            path.mkdir()
    assert not store.is_whole(KEY, file)


def test_a_save_that_was_cut_off_leaves_the_former_one_or_nothing(store: KvStore) -> None:
    former = saved(store, KEY, b"former")
    written(store, KEY, b"half of the ne")  # and there it died
    assert store.is_whole(KEY, former)
    # Sealed, but its manifest was never written: the former one names another content.
    store.seal(KEY, 0, written(store, KEY, b"fresh"), 5)
    assert store.load(KEY) == manifest(KEY, [former])
    assert not store.is_whole(KEY, former)


def test_a_manifest_that_is_torn_or_of_another_runtime_is_none(store: KvStore) -> None:
    saved(store, KEY, b"cache")
    path = store.place(KEY) / "manifest.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert store.load(KEY) is None
    path.write_bytes(whole.replace(b"0123456789abcdef0", b"ffffffffffffffff0"))
    assert store.load(KEY) is None
    assert store.load(OTHER) is None


def test_writing_a_manifest_removes_what_it_does_not_name(store: KvStore) -> None:
    file = saved(store, KEY, b"cache")
    written(store, KEY, b"half", slot=3)
    (store.place(KEY) / "whatever a client saved").write_bytes(b"x" * 100)
    store.write(manifest(KEY, [file]))
    assert names(store, KEY) == {"slot-0.kv", "manifest.json"}


def test_the_sweep_leaves_only_what_is_configured_and_whole(store: KvStore) -> None:
    saved(store, KEY, b"cache")
    saved(store, OTHER, b"cache")
    written(store, KEY, b"half", slot=1)
    (store.directory / "stray").write_bytes(b"")
    store.sweep([KEY])
    assert os.listdir(store.directory) == [store.place(KEY).name]
    assert names(store, KEY) == {"slot-0.kv", "manifest.json"}
    store.sweep([])
    assert os.listdir(store.directory) == []
    KvStore(store.directory / "never made", ROOMY).sweep([])  # nothing to do is no error


def test_others_go_for_want_of_room_and_ones_own_where_it_alone_is_too_large(
    store: KvStore,
) -> None:
    saved(store, OTHER, b"o" * 600, saved_at=1.0)
    store.limit_bytes = 1000
    mine = store.seal(KEY, 0, written(store, KEY, b"m" * 700), 5)
    assert store.make_room(KEY)
    assert store.load(OTHER) is None
    # A process of it may be running, and save when it ends.
    assert names(store, OTHER) == set()
    assert store.is_whole(KEY, mine)
    store.limit_bytes = 699
    assert not store.make_room(KEY)
    assert names(store, KEY) == set()


def test_a_seal_that_fails_leaves_no_refuse(
    store: KvStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(store, KEY, b"former")
    name = written(store, KEY, b"fresh")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.seal(KEY, 0, name, 5)
    assert name not in names(store, KEY)
    assert store.is_whole(KEY, file)
    with pytest.raises(OSError, match="No space"):
        store.write(replace(manifest(KEY, [file]), identity="j"))
    assert store.load(KEY) == manifest(KEY, [file])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
def test_on_a_full_disk_the_former_manifest_stays(small_disk: Path) -> None:
    store = KvStore(small_disk / "kv", ROOMY)
    file = saved(store, KEY, b"cache")
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "ballast")
    many = [replace(file, slot=i, name=file_name(i)) for i in range(200)]
    with pytest.raises(OSError, match="No space"):
        store.write(manifest(KEY, many))
    assert store.load(KEY) == manifest(KEY, [file])
    assert store.is_whole(KEY, file)
