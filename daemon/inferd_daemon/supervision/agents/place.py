"""The private directories of one run: made fresh, filled with what its plan says, removed after."""

import contextlib
import os
import shutil
from pathlib import Path

from ...engines.agents.profile import Place, Plan, ProbeHome

DIRECTORY_MODE = 0o700
SCRATCH_BYTES = 16 << 20
"""Codex was seen to take six for a prompt of 256 KiB."""


def make_place(root: Path, scratch: Path | None = None) -> Place:
    """Neither may be there yet. Without `scratch`, or where that has no room, it is in `root`.

    Raises OSError.
    """
    _make(root)
    place = Place(root / "work", root / "home", root / "tmp", root / "scratch")
    if scratch is not None and _holds_scratch(scratch):
        place = place._replace(scratch=scratch)
    for directory in place:
        if directory != scratch:
            directory.mkdir(mode=DIRECTORY_MODE)
    return place


def _holds_scratch(scratch: Path) -> bool:
    """Make it, where there is room for what a CLI writes there."""
    with contextlib.suppress(OSError):
        _make(scratch)
        free = os.statvfs(scratch)
        return free.f_bavail * free.f_frsize >= SCRATCH_BYTES
    return False


def _make(root: Path) -> None:
    root.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    root.mkdir(mode=DIRECTORY_MODE)


def fill_place(place: Place, plan: Plan) -> None:
    """Raises OSError."""
    for name, text in plan.files.items():
        path = place.home / name
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    for name, target in plan.links.items():
        if target.exists():
            path = place.home / name
            path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            path.symlink_to(target.absolute())


def fill_probe_home(home: Path, plan: ProbeHome) -> None:
    """`home` is there. What of the operator's cannot be read is left out. Raises OSError."""
    for name in plan.directories:
        (home / name).mkdir(mode=DIRECTORY_MODE)
    for name, target in plan.links.items():
        if target.exists():
            (home / name).symlink_to(target.absolute())
    for name, source in plan.copies.items():
        with contextlib.suppress(FileNotFoundError, PermissionError):
            shutil.copyfile(source, home / name)


def remove_place(root: Path) -> None:
    """What cannot be removed stays: a run does not fail for it."""
    shutil.rmtree(root, ignore_errors=True)


def clear_places(directory: Path) -> None:
    """Remove what runs of a daemon that was killed left there. Before the first run of this one."""
    with contextlib.suppress(OSError):
        for root in directory.iterdir():
            remove_place(root)
