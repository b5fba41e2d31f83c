"""The journal on a real disk: durable before acknowledged, shared fsyncs, disks that fail."""

import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.errors import OperatorError
from inferd_daemon.supervision.leases import journal_file
from inferd_daemon.supervision.leases.journal import (
    MAX_LINE_BYTES,
    Entry,
    EntryTooLong,
    Gone,
    ProcessEntry,
    RuntimeEntry,
    encode,
    replay,
)
from inferd_daemon.supervision.leases.journal_file import (
    JournalFile,
    JournalUnavailable,
    open_journal,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")


@asynccontextmanager
async def _running(path: Path) -> AsyncIterator[JournalFile]:
    journal = open_journal(path)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            yield journal
            nursery.cancel_scope.cancel()
    finally:
        journal.close()


def _entry(key: str, size: int = 0) -> Entry:
    return RuntimeEntry(instance_key=key, kind="boot", spec={"model": "x" * size})


def _keys(path: Path) -> set[str]:
    return set(replay(path.read_bytes()).entries)


async def test_what_append_returned_from_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with _running(path) as journal:
        await journal.append(_entry("a"), _entry("b"))
        assert _keys(path) == {"runtime/a", "runtime/b"}
        await journal.append(Gone("runtime/a"))
        assert _keys(path) == {"runtime/b"}
    reopened = open_journal(path)
    assert [entry.key for entry in reopened.entries] == ["runtime/b"]
    assert (reopened.damaged, reopened.failure) == (0, None)
    reopened.close()


async def test_nothing_to_write_is_written_at_once(tmp_path: Path) -> None:
    async with _running(tmp_path / "journal") as journal:
        before = journal.syncs
        with trio.fail_after(10):
            await journal.append()
        assert journal.syncs == before


async def test_the_file_is_the_daemons_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    former = os.umask(0)
    try:
        async with _running(path) as journal:
            await journal.append(_entry("a"))
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_torn_end_is_cut_off_and_the_next_entry_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with _running(path) as journal:
        await journal.append(_entry("a"))
    with path.open("ab") as file:
        file.write(b'00000000 {"e":"runt')
    async with _running(path) as journal:
        assert journal.damaged == 1
        await journal.append(_entry("b"))
    assert replay(path.read_bytes()).damaged == 0
    assert _keys(path) == {"runtime/a", "runtime/b"}


async def test_many_callers_share_one_fsync(tmp_path: Path) -> None:
    async with _running(tmp_path / "journal") as journal:
        before = journal.syncs

        async def write(number: int) -> None:
            await journal.append(_entry(f"k{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(write, number)
        assert journal.syncs - before <= 3
    assert len(_keys(tmp_path / "journal")) == 64


async def test_speed(tmp_path: Path) -> None:
    """64 callers wait for the disk 30 times, not 1,920 times; what else an entry takes leaves time
    for 2,000 of them in a second, half of that under load.
    """
    async with _running(tmp_path / "journal") as journal:
        done = 0

        async def write(caller: int) -> None:
            nonlocal done
            for number in range(30):
                await journal.append(_entry(f"{caller}-{number}", 400))
                done += 1

        before, began = journal.syncs, time.process_time()
        async with trio.open_nursery() as nursery:
            for caller in range(64):
                nursery.start_soon(write, caller)
        assert done / (time.process_time() - began) > 1000
        assert journal.syncs - before <= 60


async def test_a_cancelled_caller_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with _running(tmp_path / "journal") as journal:
        with trio.move_on_after(0):
            await journal.append(_entry("gave up"))
        await journal.append(_entry("stayed"))
    assert "runtime/stayed" in _keys(tmp_path / "journal")


async def test_what_was_appended_when_the_writer_ended_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = open_journal(path)
    outcome: list[str] = []

    async def write() -> None:
        await journal.append(_entry("last"))
        outcome.append("durable")

    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        callers.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert outcome == ["durable"]
    assert _keys(path) == {"runtime/last"}
    with pytest.raises(RuntimeError, match="not running"):
        await journal.append(_entry("later"))
    journal.close()


async def test_the_file_stays_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "COMPACT_ABOVE_BYTES", 20_000)
    path = tmp_path / "journal"
    async with _running(path) as journal:
        for turn in range(300):
            await journal.append(_entry(f"k{turn % 3}", 500))
        assert path.stat().st_size < 25_000
        await journal.append(_entry("end"))
    assert _keys(path) == {"runtime/k0", "runtime/k1", "runtime/k2", "runtime/end"}
    assert not (tmp_path / "journal.new").exists()


async def test_a_large_file_is_read_back_and_kept_small_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "LARGE_BYTES", 2 << 20)
    path = tmp_path / "journal"
    live = {f"runtime/k{number}" for number in range(30)}
    async with _running(path) as journal:
        for turn in range(300):
            await journal.append(_entry(f"k{turn % 30}", 100_000))
        # By the ratio of small files it would be twelve.
        assert path.stat().st_size < 4_800_000
    assert _keys(path) == live
    # What no version of ours writes, with an entry of ours in its midst.
    with path.open("ab") as file:
        file.write(b"x" * MAX_LINE_BYTES + encode(_entry("hidden")) + encode(_entry("next")))
    reopened = open_journal(path)
    assert {entry.key for entry in reopened.entries} == live | {"runtime/next"}
    assert reopened.damaged == 1
    reopened.close()


async def test_an_entry_that_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    async with _running(tmp_path / "journal") as journal:
        with pytest.raises(EntryTooLong):
            await journal.append(_entry("small"), _entry("large", MAX_LINE_BYTES))
        await journal.append(_entry("after"))
    assert _keys(tmp_path / "journal") == {"runtime/after"}


# -- faults --------------------------------------------------------------------------------


@contextmanager
def _small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def _remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", path], check=True)


@as_root
async def test_a_full_disk_refuses_keeps_and_recovers(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        path = disk / "journal"
        filler = disk / "filler"
        async with _running(path) as journal:
            await journal.append(_entry("before"))
            with pytest.raises(OSError, match="No space"):
                _fill(filler)
            acknowledged = {"runtime/before"}

            async def write_many() -> None:
                for number in range(100):
                    await journal.append(_entry(f"full-{number}", 1000))
                    acknowledged.add(f"runtime/full-{number}")

            with pytest.raises(JournalUnavailable, match="No space left") as caught:
                await write_many()
            assert caught.value.code == "backend_unavailable"
            assert journal.failure == "No space left on device"
            assert _keys(path) == acknowledged
            assert {entry.key for entry in journal.entries} == acknowledged

            filler.unlink()
            await journal.append(_entry("after"))
            assert journal.failure is None
            assert _keys(path) == acknowledged | {"runtime/after"}


@as_root
async def test_compaction_without_room_for_a_second_file_goes_on_in_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "COMPACT_ABOVE_BYTES", 1000)
    monkeypatch.setattr(journal_file, "COMPACT_RATIO", 0)
    with _small_disk(tmp_path / "disk") as disk:
        async with _running(disk / "journal") as journal:
            for number in range(40):
                await journal.append(_entry(f"k{number}", 4000))
        assert len(_keys(disk / "journal")) == 40


@as_root
async def test_a_read_only_disk_refuses_and_recovers(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        path = disk / "journal"
        async with _running(path) as journal:
            await journal.append(_entry("before"))
        _remount(disk, "ro")
        async with _running(path) as journal:
            # The old state is there, and nothing new is acknowledged.
            assert [entry.key for entry in journal.entries] == ["runtime/before"]
            assert journal.failure == "Read-only file system"
            with pytest.raises(JournalUnavailable, match="Read-only"):
                await journal.append(_entry("refused"))
            _remount(disk, "rw")
            await journal.append(_entry("after"))
        assert _keys(path) == {"runtime/before", "runtime/after"}


_SHORT_WRITES = """
import resource, sys, trio
from pathlib import Path
from inferd_daemon.supervision.leases.journal import RuntimeEntry
from inferd_daemon.supervision.leases.journal_file import JournalUnavailable, open_journal

async def main():
    journal = open_journal(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
        kept = []
        for number in range(10):
            try:
                await journal.append(
                    RuntimeEntry(instance_key=str(number), kind="boot", spec={"x": "y" * 600})
                )
            except JournalUnavailable as error:
                assert "File too large" in str(error), error
            else:
                kept.append(number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await journal.append(RuntimeEntry(instance_key="after", kind="boot", spec={}))
        nursery.cancel_scope.cancel()
    print(*kept)

trio.run(main)
"""


def test_short_writes_leave_no_half_entry(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", _SHORT_WRITES, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    kept = done.stdout.split()
    assert 1 <= len(kept) < 10
    read = replay(path.read_bytes())
    assert read.damaged == 0
    assert set(read.entries) == {f"runtime/{number}" for number in [*kept, "after"]}


async def test_a_descriptor_that_fails_is_replaced_by_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with _running(path) as journal:
        await journal.append(_entry("before"))
        # /dev/full takes no byte and cannot be truncated: the file must be made anew.
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._fd)
        os.close(full)
        with pytest.raises(JournalUnavailable, match="No space left"):
            await journal.append(_entry("refused"))
        await journal.append(_entry("after"))
    assert _keys(path) == {"runtime/before", "runtime/after"}


async def test_no_descriptor_left_is_a_refusal_too(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with _running(path) as journal:
        await journal.append(_entry("before"))
        journal.close()  # as after a failed fsync
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The interpreter and trio go on with what they have.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(JournalUnavailable, match="Too many open files"):
                await journal.append(_entry("refused"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await journal.append(_entry("after"))
    assert _keys(path) == {"runtime/before", "runtime/after"}


def test_a_journal_of_another_kind_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (directory, link, fifo):
        with pytest.raises(OperatorError, match="cannot be read"):
            open_journal(path)


@as_root
def test_another_users_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    os.chown(path, 65_534, 65_534)
    with pytest.raises(OperatorError, match="own user"):
        open_journal(path)


_KILLED = """
import os, sys, trio
from pathlib import Path
from inferd_daemon.supervision.leases.journal import ProcessEntry
from inferd_daemon.supervision.leases.journal_file import open_journal

async def main():
    journal = open_journal(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        for number in range(10 ** 6):
            await journal.append(ProcessEntry(instance_key=str(number), mark="m", boot_id="b"))
            os.write(1, b"%d\\n" % number)

trio.run(main)
"""


def test_killed_in_mid_write_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(50)]
        child.kill()
        seen += child.stdout.readlines()
    told = {f"process/m/{line.strip()}" for line in seen if line.endswith("\n")}
    read = replay(path.read_bytes())
    assert told <= set(read.entries)
    assert len(read.entries) <= len(told) + 1
    assert all(isinstance(entry, ProcessEntry) for entry in read.entries.values())
