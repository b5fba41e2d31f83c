"""The keeper over a journal that works, fails and recovers: what is told is what is on the disk."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.changes import Changes
from inferd_daemon.supervision.leases.journal import (
    Clocks,
    LeaseEntry,
    RuntimeEntry,
    replay,
)
from inferd_daemon.supervision.leases.journal_file import JournalUnavailable
from inferd_daemon.supervision.leases.keeper import LeaseKeeper, Need
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.spec_room import SpecLimits
from inferd_proto import ErrorCode, LeaseEnsure
from tests.support.lone_runtimes import FailingJournal, failing_journal

ME = Claimant(1000, 1, 5)
RUNTIME = RuntimeEntry(instance_key="k", kind="boot", spec={})


class Kept(NamedTuple):
    """What a test looks at."""

    keeper: LeaseKeeper
    journal: FailingJournal
    unheld: list[str]

    def on_disk(self) -> set[str]:
        """References of the leases that a restart would find."""
        entries = replay(self.journal.path.read_bytes()).entries.values()
        return {entry.lease.lease_ref for entry in entries if isinstance(entry, LeaseEntry)}


def clocks() -> Clocks:
    """Leases have trio's time: a test that has a clock of its own says when they run out."""
    return Clocks(trio.current_time(), time.time(), "boot")


@asynccontextmanager
async def keeping(directory: Path, limits: SpecLimits | None = None) -> AsyncIterator[Kept]:
    journal = failing_journal(directory / "journal")
    keeper = LeaseKeeper(journal, clocks, Changes(), spec_limits=limits)
    unheld: list[str] = []
    keeper.on_unheld = unheld.append
    try:
        async with trio.open_nursery() as outer:
            await outer.start(journal.run)
            async with trio.open_nursery() as nursery:
                await nursery.start(keeper.run)
                yield Kept(keeper, journal, unheld)
                nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
    finally:
        journal.close()


def asked(**fields: object) -> LeaseEnsure:
    return LeaseEnsure(target="t", **fields)  # type: ignore[arg-type]


async def until_disk(kept: Kept, refs: set[str]) -> None:
    with trio.fail_after(30):
        while kept.on_disk() != refs:  # noqa: ASYNC110 (a thread makes it true)
            await trio.sleep(0.005)


def pass_time(clock: trio.testing.MockClock, seconds: float) -> None:
    """All at once; from here on it goes on by itself."""
    clock.jump(seconds)
    clock.rate = 1.0


async def test_granted_renewed_and_released_are_on_the_disk_when_told(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        lease = await kept.keeper.grant("k", asked(), ME, RUNTIME)
        assert kept.on_disk() == {lease.lease_ref}
        assert "runtime/k" in replay(kept.journal.path.read_bytes()).entries
        renewed = await kept.keeper.renew(lease.lease_ref, 90_000, ME)
        assert (renewed.ttl_ms, renewed.connection) == (90_000, 5)
        await kept.keeper.release(lease.lease_ref, ME)
        assert kept.on_disk() == set()
        assert kept.unheld == ["k"]
        await kept.keeper.release(lease.lease_ref, ME)
        assert kept.unheld == ["k"]


async def test_a_runtime_is_written_once_for_all_its_leases(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        for _ in range(3):
            await kept.keeper.grant("k", asked(), ME, RUNTIME)
        assert kept.journal.path.read_bytes().count(b'"runtime"') == 1


async def test_a_disk_that_takes_nothing_changes_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        keeper = kept.keeper
        lease = await keeper.grant("k", asked(ttl_ms=60_000), ME, None)
        kept.journal.failing = True
        with pytest.raises(JournalUnavailable):
            await keeper.grant("k", asked(), ME, None)
        with pytest.raises(JournalUnavailable):
            await keeper.renew(lease.lease_ref, 3_600_000, ME)
        with pytest.raises(JournalUnavailable):
            await keeper.release(lease.lease_ref, ME)
        assert list(keeper.table) == [lease]
        assert kept.unheld == []
        kept.journal.failing = False
        await keeper.release(lease.lease_ref, ME)
        assert kept.on_disk() == set()


async def test_what_ends_while_the_disk_is_full_is_forgotten_once_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd_daemon.supervision.leases.records.RETRY_S", 0.02)
    async with keeping(tmp_path) as kept:
        lease = await kept.keeper.grant("k", asked(), ME, None)
        kept.journal.failing = True
        kept.keeper.connection_closed(5)
        assert kept.unheld == ["k"]
        await trio.sleep(0.05)
        assert kept.on_disk() == {lease.lease_ref}
        kept.journal.failing = False
        await until_disk(kept, set())


async def test_a_release_that_failed_gives_no_lease_back_to_a_closed_connection(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as kept:
        lease = await kept.keeper.grant("k", asked(ttl_ms=None), ME, None)
        kept.journal.failing = True
        admin = Claimant(0, 2, 6, admin=True)

        async def release() -> None:
            with pytest.raises(JournalUnavailable):
                await kept.keeper.release(lease.lease_ref, admin)

        async with trio.open_nursery() as nursery:
            with kept.journal.held_up():
                nursery.start_soon(release)
                await trio.testing.wait_all_tasks_blocked()
                kept.keeper.connection_closed(5)
        assert len(kept.keeper.table) == 0


async def test_a_caller_that_is_cancelled_leaves_no_lease(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        with trio.CancelScope() as scope:
            scope.cancel()
            await kept.keeper.grant("k", asked(bind="none"), ME, None)
        assert scope.cancelled_caught
        assert len(kept.keeper.table) == 0
        other = await kept.keeper.grant("k", asked(bind="none"), ME, None)
        await until_disk(kept, {other.lease_ref})


async def test_leases_expire_by_themselves_the_short_ones_first(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        long = await kept.keeper.grant("long", asked(ttl_ms=60_000), ME, None)
        short = await kept.keeper.grant("short", asked(ttl_ms=1_000), ME, None)
        assert kept.on_disk() == {long.lease_ref, short.lease_ref}
        pass_time(mock_clock, 1.0)
        await until_disk(kept, {long.lease_ref})
        assert kept.unheld == ["short"]


async def test_a_runtime_that_is_stopped_by_force_while_a_lease_is_written(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:

        async def grant() -> None:
            with pytest.raises(RequestError) as refused:
                await kept.keeper.grant("k", asked(), ME, None)
            assert refused.value.code is ErrorCode.CONFLICT

        async with trio.open_nursery() as nursery:
            with kept.journal.held_up():
                nursery.start_soon(grant)
                await trio.testing.wait_all_tasks_blocked()
                kept.keeper.runtime_gone("k")
        await until_disk(kept, set())


@pytest.mark.parametrize("others", [0, 1])
async def test_a_disk_that_is_slower_than_the_leases_time_is_told(
    tmp_path: Path, mock_clock: trio.testing.MockClock, others: int
) -> None:
    async with keeping(tmp_path) as kept:

        async def grant() -> None:
            with pytest.raises(RequestError, match="longer ttl_ms") as refused:
                await kept.keeper.grant("k", asked(ttl_ms=1_000), ME, None)
            assert refused.value.code is ErrorCode.TIMEOUT

        for _ in range(others):
            await kept.keeper.grant("k", asked(ttl_ms=1_000), ME, None)
        async with trio.open_nursery() as nursery:
            with kept.journal.held_up():
                nursery.start_soon(grant)
                await trio.testing.wait_all_tasks_blocked()
                pass_time(mock_clock, 1.1)
                await trio.testing.wait_all_tasks_blocked()
        assert len(kept.keeper.table) == 0
        await until_disk(kept, set())


async def test_a_pin_holds_and_lets_go(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        with kept.keeper.pinned("k", 0), kept.keeper.pinned("k", 0):
            assert kept.keeper.held("k")
            assert kept.keeper.count("k") == 0
        assert not kept.keeper.held("k")
        assert kept.unheld == ["k"]
        assert kept.on_disk() == set()


async def test_a_spec_beyond_its_users_limit_grants_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path, SpecLimits(per_uid=900_000)) as kept:
        large = [replace(RUNTIME, instance_key=key, spec={"x": "y" * 400_000}) for key in "abc"]
        for entry in large[:2]:
            await kept.keeper.grant(entry.instance_key, asked(), ME, entry)
        with pytest.raises(RequestError, match="release some leases"):
            await kept.keeper.grant("c", asked(), ME, large[2])
        assert len(kept.keeper.table) == 2


async def test_a_renewal_that_its_caller_left_counts_down_all_the_same(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        lease = await kept.keeper.grant("k", asked(ttl_ms=3_600_000, bind="none"), ME, None)
        with trio.CancelScope() as scope:
            scope.cancel()
            await kept.keeper.renew(lease.lease_ref, 1_000, ME)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert kept.unheld == []
        pass_time(mock_clock, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert kept.unheld == ["k"]
        await until_disk(kept, set())


async def test_who_releases_what_has_just_run_out_leaves_its_end_to_be_told(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        over: list[str] = []
        kept.keeper.on_over = over.append
        need = Need("needed", replace(RUNTIME, instance_key="needed"))
        lease = await kept.keeper.grant("k", asked(ttl_ms=1_000), ME, None, need=need)
        pass_time(mock_clock, 1.05)  # the task that ends leases has no turn before the release
        await kept.keeper.release(lease.lease_ref, ME)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(kept.unheld) == ["k", "needed"]
        assert len(over) == 2
        assert len(kept.keeper.table) == 0
        await until_disk(kept, set())
