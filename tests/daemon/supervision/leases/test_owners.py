"""Owners that do not come back after a restart: who has ended has its leases for a moment."""

import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from msgspec.structs import replace

from inferd_daemon.supervision.changes import Changes
from inferd_daemon.supervision.leases.journal import Clocks, LeaseEntry, replay
from inferd_daemon.supervision.leases.journal_file import open_journal
from inferd_daemon.supervision.leases.keeper import LeaseKeeper
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.owners import AbsentOwners, owner_ended
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_daemon.supervision.processes.identity import read_start_ticks
from inferd_proto import LeaseEnsure


def lease_of(pid: int, ref: str, started: int | None) -> Lease:
    asked = LeaseEnsure(target="r", ttl_ms=3_600_000, bind="connection")
    owner = Claimant(1000, pid, 1)
    return LeaseTable().grant(time.monotonic(), ref, "k", asked, owner, pid_started=started)


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def test_a_later_process_of_the_same_number_is_not_the_owner() -> None:
    here, started = os.getpid(), read_start_ticks(os.getpid())
    assert not owner_ended(lease_of(here, "l", started))
    assert owner_ended(lease_of(here, "l", started - 1))
    # Of one whose start could not be read, or was not noted, it cannot be told.
    assert not owner_ended(lease_of(here, "l", 0))
    assert not owner_ended(lease_of(here, "l", None))


@asynccontextmanager
async def keeping(path: Path) -> AsyncIterator[LeaseKeeper]:
    """A keeper over a journal that goes after it."""
    journal = open_journal(path)

    def clocks() -> Clocks:
        return Clocks(time.monotonic(), time.time(), "boot")

    keeper = LeaseKeeper(journal, clocks, Changes())
    async with trio.open_nursery() as outer:
        await outer.start(journal.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(keeper.run)
            yield keeper
            nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()
    journal.close()


async def test_who_ends_before_it_came_back_has_the_grace_and_no_more(tmp_path: Path) -> None:
    with sleeper() as owner:
        started = read_start_ticks(owner.pid)
        async with keeping(tmp_path / "journal") as keeper, trio.open_nursery() as nursery:
            for ref in ("ends", "comes back"):
                keeper.restore(lease_of(owner.pid, ref, started), 30.0)
            keeper.restore(lease_of(os.getpid(), "lives", read_start_ticks(os.getpid())), 30.0)
            nursery.start_soon(AbsentOwners(keeper, 0.5, look_s=0.01).run)
            await keeper.renew("comes back", 3_600_000, Claimant(1000, os.getpid(), 7))
            await trio.sleep(0.05)
            assert len(keeper.table) == 3
            owner.kill()
            owner.wait()
            with trio.fail_after(30):
                while keeper.table.find("ends") is not None:  # noqa: ASYNC110  no event for it
                    await trio.sleep(0.01)
            assert {lease.lease_ref for lease in keeper.table} == {"lives", "comes back"}
            back = keeper.table.find("comes back")
            assert back is not None
            assert (back.pid, back.connection) == (os.getpid(), 7)
            nursery.cancel_scope.cancel()


async def test_times_that_were_changed_are_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    def deadlines() -> dict[str, float | None]:
        entries = replay(path.read_bytes()).entries.values()
        found = [entry.lease for entry in entries if isinstance(entry, LeaseEntry)]
        return {lease.lease_ref: lease.deadline for lease in found}

    async with keeping(path) as keeper:
        bound = replace(lease_of(os.getpid(), "bound", None), ttl_ms=None, deadline=None)
        keeper.restore(bound, 30.0)
        keeper.restore(lease_of(os.getpid(), "l", None), 30.0)
        keeper.shorten("l", 20.0)
        kept = {lease.lease_ref: lease.deadline for lease in keeper.table}
        assert kept["l"] is not None
        assert kept["l"] <= time.monotonic() + 20
        assert kept["bound"] is not None
        with trio.fail_after(30):
            while deadlines() != kept:  # noqa: ASYNC110  nobody waits for it
                await trio.sleep(0.01)
