"""What is swept at a start, and what is none of the sweeper's business."""

import os
from pathlib import Path

import pytest

from inferd_daemon.supervision.runtimes.leftovers import Leftovers
from inferd_daemon.supervision.runtimes.registry import KEPT_ENDED


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    made = Leftovers(tmp_path / "runtimes", tmp_path / "logs")
    made.runtimes.mkdir()
    made.logs.mkdir()
    return made


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_directories_of_former_runtimes_go_with_what_is_in_them(leftovers: Leftovers) -> None:
    needed, gone = (leftovers.runtimes / (digit * 16) for digit in "ab")
    for path in (needed, gone, leftovers.runtimes / ".agents", leftovers.runtimes / "worker"):
        path.mkdir()
        (path / "engine.sock").touch()
    outside = leftovers.logs / "kept.txt"
    outside.touch()
    (gone / "link").symlink_to(leftovers.logs)
    (leftovers.runtimes / ("c" * 16)).symlink_to(leftovers.logs)
    leftovers.sweep({needed})
    assert names(leftovers.runtimes) == {"a" * 16, "c" * 16, ".agents", "worker"}
    assert (needed / "engine.sock").exists()
    assert outside.exists()


def test_of_the_logs_the_last_ones_and_those_in_use_stay(leftovers: Leftovers) -> None:
    for number in range(KEPT_ENDED + 3):
        for name in (f"k{number}.log", f"k{number}.log.1"):
            path = leftovers.logs / name
            path.touch()
            os.utime(path, (number, number))
    (leftovers.logs / "note.txt").touch()
    leftovers.sweep({leftovers.logs / "k0.log"})
    left = names(leftovers.logs)
    assert left >= {"k0.log", "k0.log.1", f"k{KEPT_ENDED + 2}.log", "note.txt"}
    assert not left & {"k1.log", "k1.log.1", "k2.log", "k2.log.1"}
    assert len(left) == 2 * (KEPT_ENDED + 1) + 1


def test_where_nothing_was_there_is_nothing_to_do(tmp_path: Path) -> None:
    Leftovers(tmp_path / "none", tmp_path / "neither").sweep(())
