"""What a caller may have read on its behalf: what it could open itself, and nothing beyond.

Callers are other uids than the files' owner; nobody has to become them for it.
"""

import os
from pathlib import Path

import pytest

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.file_access import require_readable
from inferd_proto import ErrorCode

STRANGER = 54_321
GROUP = 54_322


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that everybody can reach, whatever the test's own directories allow."""
    base = tmp_path
    while base != Path("/"):
        if not os.stat(base).st_mode & 0o001:
            base.chmod(0o711)
        base = base.parent
        if base.stat().st_uid != os.geteuid() or base == Path("/tmp"):
            break
    made = tmp_path / "open"
    made.mkdir(mode=0o755)
    return made


def may(path: Path | str, *groups: int, uid: int = STRANGER) -> bool:
    try:
        require_readable([str(path)], uid, groups)
    except RequestError as error:
        # Alike, whatever the reason is.
        told = f"uid {uid} may not read {path}, so no runtime reads it on its behalf"
        return (error.code, error.message) != (ErrorCode.PERMISSION_DENIED, told)
    return True


def file(path: Path, mode: int = 0o644) -> Path:
    path.write_bytes(b"GGUF")
    path.chmod(mode)
    return path


def test_the_files_own_mode(place: Path) -> None:
    assert may(file(place / "all"))
    assert not may(file(place / "own", 0o600))
    assert may(place / "own", uid=os.geteuid())
    assert may(file(place / "group", 0o640), place.stat().st_gid)
    assert not may(place / "group", GROUP)
    # The class that fits decides alone, as in the kernel.
    assert not may(file(place / "less", 0o604), place.stat().st_gid)
    assert may(place / "missing")


def test_nothing_is_told_of_what_is_behind_a_closed_directory(place: Path) -> None:
    closed = place / "closed"
    (closed / "deep").mkdir(parents=True)
    seen, missing = file(closed / "deep" / "m.gguf"), closed / "deep" / "missing.gguf"
    assert may(seen)
    closed.chmod(0o700)
    answers = [may(path) for path in (seen, missing, closed / "none" / "x", closed / "deep")]
    assert answers == [False] * 4
    closed.chmod(0o744)  # listed, but not entered
    assert not may(seen)
    closed.chmod(0o711)
    assert may(seen)
    assert may(missing)


def test_links_and_steps_up_lead_nowhere_else(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir()
    secret = file(closed / "secret")
    (place / "absolute").symlink_to(secret)
    (place / "relative").symlink_to("closed/secret")
    (place / "dangling").symlink_to("closed/nothing")
    (place / "directory").symlink_to("closed")
    (place / "twice").symlink_to("directory/secret")
    (place / "loop").symlink_to("loop")
    fine = file(place / "fine")
    (place / "aside").symlink_to(fine)
    names = ["absolute", "relative", "dangling", "directory/secret", "twice", "closed/../fine"]
    assert [name for name in names if not may(place / name)] == []
    closed.chmod(0o700)
    assert [name for name in names if may(f"{place}/{name}")] == []
    assert may(place / "aside")
    assert may(f"{place}//./fine")
    assert may(f"{place}/../{place.name}/fine")
    assert may(place / "loop")  # whoever opens it tells
