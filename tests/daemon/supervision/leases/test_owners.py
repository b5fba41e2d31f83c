"""Owners that do not come back after a restart: who has ended has its leases for a moment."""

import os
import subprocess
import time
from pathlib import Path

import trio

from inferd_daemon.supervision.changes import Changes
from inferd_daemon.supervision.leases.journal import Clocks, LeaseEntry
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


async def test_who_ends_before_it_came_back_has_the_grace_and_no_more(tmp_path: Path) -> None:
    def clocks() -> Clocks:
        return Clocks(time.monotonic(), time.time(), "boot")

    journal = open_journal(tmp_path / "journal")
    keeper = LeaseKeeper(journal, clocks, Changes())
    with sleeper() as owner:
        started = read_start_ticks(owner.pid)
        for ref in ("ends", "comes back"):
            keeper.restore(lease_of(owner.pid, ref, started), 30.0)
        keeper.restore(lease_of(os.getpid(), "lives", read_start_ticks(os.getpid())), 30.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            await nursery.start(keeper.run)
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
    journal.close()


async def test_a_shortened_time_is_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = open_journal(path)
    keeper = LeaseKeeper(journal, lambda: Clocks(time.monotonic(), time.time(), "boot"), Changes())
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        await nursery.start(keeper.run)
        keeper.restore(lease_of(os.getpid(), "l", None), 30.0)
        keeper.shorten("l", 20.0)
        deadline = time.monotonic() + 20.0
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    journal.close()
    (entry,) = open_journal(path).entries
    assert isinstance(entry, LeaseEntry)
    assert entry.lease.deadline is not None
    assert entry.lease.deadline <= deadline
