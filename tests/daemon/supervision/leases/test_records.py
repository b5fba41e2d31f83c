"""What the journal is told at once, what soon, and how much of it for whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from msgspec.structs import replace

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.journal import RuntimeEntry, encode, replay
from inferd_daemon.supervision.leases.journal_file import JournalUnavailable
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.records import Records
from inferd_daemon.supervision.leases.spec_room import SpecLimits
from tests.support.lone_runtimes import FailingJournal, failing_journal

ME = Claimant(1000, 1, 5)
RUNTIME = RuntimeEntry(instance_key="k", kind="boot", spec={})


class Book(NamedTuple):
    """What a test looks at."""

    records: Records
    journal: FailingJournal

    def on_disk(self) -> set[str]:
        return set(replay(self.journal.path.read_bytes()).entries)

    async def until_disk(self, keys: set[str]) -> None:
        with trio.fail_after(30):
            while self.on_disk() != keys:  # noqa: ASYNC110 (a thread makes it true)
                await trio.sleep(0.005)


@asynccontextmanager
async def book(directory: Path, limits: SpecLimits | None = None) -> AsyncIterator[Book]:
    journal = failing_journal(directory / "journal")
    records = Records(journal, limits)
    try:
        async with trio.open_nursery() as outer:
            await outer.start(journal.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(records.run)
                yield Book(records, journal)
                nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
    finally:
        journal.close()


def runtimes(count: int, size: int) -> list[RuntimeEntry]:
    return [replace(RUNTIME, instance_key=f"k{n}", spec={"x": "y" * size}) for n in range(count)]


async def test_what_is_noted_is_known_at_once_and_on_the_disk_soon(tmp_path: Path) -> None:
    async with book(tmp_path) as kept:
        kept.records.note(RUNTIME)
        assert kept.records.known(RUNTIME.key)
        await kept.until_disk({RUNTIME.key})
        kept.records.forget(RUNTIME.key)
        assert not kept.records.known(RUNTIME.key)
        await kept.until_disk(set())


async def test_what_is_remembered_is_written_once(tmp_path: Path) -> None:
    async with book(tmp_path) as kept:
        await kept.records.remember(RUNTIME)
        assert kept.on_disk() == {RUNTIME.key}
        kept.journal.failing = True
        await kept.records.remember(RUNTIME)
        with pytest.raises(JournalUnavailable):
            await kept.records.remember(*runtimes(1, 1))


async def test_what_is_written_undoes_what_was_to_be_written_before(tmp_path: Path) -> None:
    async with book(tmp_path) as kept:
        kept.records.note(RUNTIME)
        kept.records.forget(RUNTIME.key)
        await kept.records.write([RUNTIME])
        (other,) = runtimes(1, 1)
        kept.records.note(other)  # behind whatever was to be written
        await kept.until_disk({RUNTIME.key, other.key})


async def test_specs_of_one_user_have_a_limit_until_they_are_forgotten(tmp_path: Path) -> None:
    large = runtimes(3, 400_000)
    async with book(tmp_path, SpecLimits(per_uid=900_000)) as kept:
        for entry in large[:2]:
            kept.records.require_room([entry], ME)
            await kept.records.write_leases([], [entry], ME.uid)
        with pytest.raises(RequestError, match="release some leases"):
            kept.records.require_room(large[2:], ME)
        kept.records.require_room(large[:2], ME)  # they are there already
        kept.records.forget(large[0].key)
        kept.records.require_room(large[2:], ME)


async def test_what_a_former_run_wrote_counts(tmp_path: Path) -> None:
    first, second = runtimes(2, 400_000)
    async with book(tmp_path, SpecLimits(per_uid=500_000)) as kept:
        kept.records.take_over(first, ME.uid)
        assert kept.records.known(first.key)
        with pytest.raises(RequestError, match="release some leases"):
            kept.records.require_room([second], ME)


async def test_a_spec_that_was_not_written_takes_no_room(tmp_path: Path) -> None:
    limits = SpecLimits(per_uid=2 * len(encode(RUNTIME)) - 1)
    async with book(tmp_path, limits) as kept:
        kept.journal.failing = True
        with pytest.raises(JournalUnavailable):
            await kept.records.write_leases([], [RUNTIME], ME.uid)
        kept.records.require_room([replace(RUNTIME, instance_key="q")], ME)
