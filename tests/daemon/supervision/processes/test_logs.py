"""A runtime's log: bounded in memory and on disk, whatever a child writes."""

import os
from pathlib import Path

import pytest
import trio

from inferd_daemon.supervision.processes.logs import MAX_LINE_BYTES, RuntimeLog


@pytest.fixture
def log(tmp_path: Path) -> RuntimeLog:
    return RuntimeLog(tmp_path / "logs" / "engine.log", max_bytes=1000, kept=2, ring_lines=10)


def write(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode())


def test_lines_come_in_order_and_partial_ones_wait(log: RuntimeLog) -> None:
    child = log.open_for_child()
    write(child, "one\ntw")
    assert log.poll() == 1
    write(child, "o\nthree")
    assert log.poll() == 1
    assert list(log.lines) == ["one", "two"]
    assert log.poll() == 0
    os.close(child)
    assert log.end_run() == ["one", "two", "three"]


def test_file_and_directory_are_private(log: RuntimeLog) -> None:
    os.close(log.open_for_child())
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_not_followed(log: RuntimeLog, tmp_path: Path) -> None:
    log.path.parent.mkdir()
    log.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        log.open_for_child()


def test_a_run_is_told_apart_from_the_one_before(log: RuntimeLog) -> None:
    first = log.open_for_child()
    write(first, "old\n")
    log.end_run()
    second = log.open_for_child()
    write(second, "new\n")
    assert log.end_run() == ["new"]
    assert list(log.lines) == ["old", "new"]
    os.close(first)
    os.close(second)


def test_what_a_former_daemon_left_is_not_read(log: RuntimeLog) -> None:
    log.path.parent.mkdir()
    log.path.write_text("last week\n")
    child = log.open_for_child()
    write(child, "now\n")
    assert log.end_run() == ["now"]
    os.close(child)


def test_memory_is_bounded(log: RuntimeLog) -> None:
    child = log.open_for_child()
    write(child, "x" * 3 * MAX_LINE_BYTES + "\n" + "short\n" * 100)
    log.poll()
    assert log.total_lines == 101
    assert list(log.lines) == ["short"] * 10
    write(child, "y" * 100 * MAX_LINE_BYTES)
    log.poll()
    assert len(log.end_run()[-1]) == MAX_LINE_BYTES
    os.close(child)


def test_bytes_that_are_no_text_are_kept_readable(log: RuntimeLog) -> None:
    child = log.open_for_child()
    os.write(child, b"caf\xe9\n")
    assert log.end_run() == ["caf\N{REPLACEMENT CHARACTER}"]
    os.close(child)


async def test_a_full_file_is_turned_over_and_the_writer_goes_on(log: RuntimeLog) -> None:
    child = log.open_for_child()
    seen = []
    for number in range(40):
        write(child, f"line {number:03} {'.' * 90}\n")
        await log.maintain()
        seen.append(log.lines[-1])
    assert [line[:8] for line in seen] == [f"line {number:03}" for number in range(40)]
    kept = sorted(path.name for path in log.path.parent.iterdir())
    assert kept == ["engine.log", "engine.log.1", "engine.log.2"]
    assert sum(path.stat().st_size for path in log.path.parent.iterdir()) < 3 * 1200
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in log.path.parent.iterdir())
    os.close(child)


async def test_a_follower_is_woken(log: RuntimeLog) -> None:
    child = log.open_for_child()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        write(child, "news\n")
        with trio.fail_after(10):
            await log.maintain()
    os.close(child)


def test_a_file_that_vanished_does_no_harm(log: RuntimeLog) -> None:
    os.close(log.open_for_child())
    log.path.unlink()
    assert log.poll() == 0
