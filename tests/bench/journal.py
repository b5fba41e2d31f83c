"""Durable appends, alone and from 64 callers: `python tests/bench/journal.py DIRECTORY`."""

import sys
import time
from pathlib import Path

import trio

from inferd_daemon.supervision.leases.journal import Clocks, lease_entry
from inferd_daemon.supervision.leases.journal_file import JournalFile, open_journal
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_proto import LeaseEnsure

CLOCKS = Clocks(0.0, 0.0, "boot")


def _lease(table: LeaseTable, number: int) -> Lease:
    asked = LeaseEnsure(target="r", bind="none", owner_ref=f"owner-{number}")
    lease = table.grant(0.0, f"lease-{number:024}", f"key-{number % 10}", asked, Claimant(0))
    table.release(0.0, lease.lease_ref, Claimant(0))
    return lease


async def _alone(journal: JournalFile, table: LeaseTable) -> None:
    times = []
    for number in range(1000):
        began = time.perf_counter()
        await journal.append(lease_entry(_lease(table, number % 100), CLOCKS))
        times.append(time.perf_counter() - began)
    times.sort()
    print(f"one at a time: p50 {times[500] * 1e3:.2f} ms, p99 {times[990] * 1e3:.2f} ms")


async def _together(journal: JournalFile, table: LeaseTable) -> None:
    async def call(caller: int) -> None:
        for number in range(300):
            await journal.append(lease_entry(_lease(table, caller * 300 + number % 20), CLOCKS))

    began, syncs = time.perf_counter(), journal.syncs
    async with trio.open_nursery() as nursery:
        for caller in range(64):
            nursery.start_soon(call, caller)
    seconds = time.perf_counter() - began
    print(f"64 callers: {64 * 300 / seconds:,.0f}/s in {journal.syncs - syncs} fsyncs")


async def main(directory: Path) -> None:
    """Print both figures."""
    journal = open_journal(directory / "bench-journal")
    table = LeaseTable()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        await _alone(journal, table)
        await _together(journal, table)
        nursery.cancel_scope.cancel()
    journal.close()
    journal.path.unlink()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
