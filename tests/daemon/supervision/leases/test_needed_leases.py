"""Leases on what another lease needs: they come, end, and are restored with it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.changes import Changes
from inferd_daemon.supervision.leases.entrance import Entrance, Refusal, WrongToken
from inferd_daemon.supervision.leases.journal import (
    Clocks,
    LeaseEntry,
    RuntimeEntry,
    lease_of,
    replay,
)
from inferd_daemon.supervision.leases.journal_file import JournalUnavailable
from inferd_daemon.supervision.leases.keeper import LeaseKeeper, Need
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.tokens import digest, new_token
from inferd_proto import ErrorCode, LeaseEnsure
from tests.support.lone_runtimes import FailingJournal, failing_journal

ME = Claimant(1000, 1, 5)
AGENT = RuntimeEntry(instance_key="agent", kind="agent", spec={})
MODEL = RuntimeEntry(instance_key="model", kind="boot", spec={})
NEED = Need("model", MODEL)


def clocks() -> Clocks:
    """Leases have trio's time, which a test may have stand still."""
    return Clocks(trio.current_time(), time.time(), "boot")


class Kept(NamedTuple):
    """What a test looks at."""

    keeper: LeaseKeeper
    journal: FailingJournal
    unheld: list[str]
    over: list[str]

    async def grant(self, **fields: object) -> tuple[Lease, Lease]:
        """The lease, and the one on what it needs."""
        asked = LeaseEnsure(target="t", **fields)  # type: ignore[arg-type]
        lease = await self.keeper.grant("agent", asked, ME, AGENT, need=NEED)
        child = self.keeper.table.child_of(lease.lease_ref)
        assert child is not None
        return lease, child

    def on_disk(self) -> dict[str, Lease]:
        """The leases that a restart would find."""
        entries = replay(self.journal.path.read_bytes()).entries.values()
        leases = [lease_of(one, clocks()) for one in entries if isinstance(one, LeaseEntry)]
        return {lease.lease_ref: lease for lease in leases}

    async def until_disk_is_empty(self) -> None:
        with trio.fail_after(30):
            while self.on_disk():  # noqa: ASYNC110 (a thread makes it true)
                await trio.sleep(0.005)


@asynccontextmanager
async def keeping(directory: Path) -> AsyncIterator[Kept]:
    await trio.Path(directory).mkdir(exist_ok=True)
    journal = failing_journal(directory / "journal")
    keeper = LeaseKeeper(journal, clocks, Changes())
    kept = Kept(keeper, journal, [], [])
    keeper.on_unheld, keeper.on_over = kept.unheld.append, kept.over.append
    try:
        async with trio.open_nursery() as outer:
            await outer.start(journal.run)
            async with trio.open_nursery() as inner:
                await inner.start(keeper.run)
                yield kept
                inner.cancel_scope.cancel()
            outer.cancel_scope.cancel()
    finally:
        journal.close()


async def test_both_are_granted_in_one_write_and_shown_to_their_owner(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        before = kept.journal.syncs
        lease, child = await kept.grant()
        assert kept.journal.syncs == before + 1
        assert set(kept.on_disk()) == {lease.lease_ref, child.lease_ref}
        assert (child.owner_ref, child.parent) == (lease.lease_ref, lease.lease_ref)
        assert (child.instance_key, child.deadline, child.connection) == ("model", None, None)
        assert kept.keeper.count("model") == 1
        shown = kept.keeper.table.visible(kept.keeper.now(), ME)
        assert {one.lease_ref for one in shown} == {lease.lease_ref, child.lease_ref}


@pytest.mark.parametrize("end", ["released", "disconnected", "expired", "agent", "model"])
async def test_both_end_together_whatever_ends_one(
    end: str, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        lease, child = await kept.grant(ttl_ms=1000)
        match end:
            case "released":
                await kept.keeper.release(lease.lease_ref, ME)
            case "disconnected":
                kept.keeper.connection_closed(5)
            case "expired":
                mock_clock.jump(1.0)
                await trio.testing.wait_all_tasks_blocked()
            case runtime:
                kept.keeper.runtime_gone(runtime)
        assert len(kept.keeper.table) == 0
        assert sorted(kept.unheld) == ["agent", "model"]
        assert sorted(kept.over) == sorted([lease.lease_ref, child.lease_ref])
        mock_clock.rate = 1.0
        await kept.until_disk_is_empty()


async def test_the_child_is_nobodys_to_renew_or_release(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        lease, child = await kept.grant()
        for change in (
            kept.keeper.release(child.lease_ref, ME),
            kept.keeper.renew(child.lease_ref, 9000, ME),
        ):
            with pytest.raises(RequestError) as refused:
                await change
            assert refused.value.code is ErrorCode.CONFLICT
        await kept.keeper.renew(lease.lease_ref, 90_000, ME)
        assert kept.keeper.table.child_of(lease.lease_ref) == child


async def test_a_disk_that_takes_nothing_grants_neither_and_releases_neither(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as kept:
        lease, child = await kept.grant()
        kept.journal.failing = True
        with pytest.raises(JournalUnavailable):
            await kept.grant()
        with pytest.raises(JournalUnavailable):
            await kept.keeper.release(lease.lease_ref, ME)
        assert {one.lease_ref for one in kept.keeper.table} == {lease.lease_ref, child.lease_ref}
        kept.journal.failing = False
        await kept.keeper.release(lease.lease_ref, ME)
        await kept.until_disk_is_empty()


@pytest.mark.parametrize("parent_first", [True, False])
async def test_a_restart_restores_both_or_neither(parent_first: bool, tmp_path: Path) -> None:
    async with keeping(tmp_path / "a") as kept:
        lease, child = await kept.grant()
        found = kept.on_disk()
    both = [found[lease.lease_ref], found[child.lease_ref]]
    async with keeping(tmp_path / "b") as kept:
        for one in both if parent_first else reversed(both):
            assert kept.keeper.restore(one, 30.0) is not None
        kept.keeper.end_orphans()
        restored = kept.keeper.table.child_of(lease.lease_ref)
        assert restored is not None
        assert restored.deadline is None
        await kept.keeper.release(lease.lease_ref, ME)
        assert len(kept.keeper.table) == 0
    async with keeping(tmp_path / "c") as kept:
        kept.keeper.restore(found[child.lease_ref], 30.0)
        kept.keeper.end_orphans()
        assert len(kept.keeper.table) == 0
        assert kept.unheld == ["model"]


async def test_only_leases_with_a_token_are_entered_and_only_with_that(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        entrance, token = Entrance(kept.keeper), new_token()
        asked = LeaseEnsure(target="t")
        plain = await kept.keeper.grant("agent", asked, ME, None)
        lease = await kept.keeper.grant("agent", asked, ME, None, token_sha256=digest(token))
        assert entrance.enter(lease.lease_ref, token).instance_key == "agent"
        assert token not in kept.journal.path.read_text()
        for wrong in (None, "", token[:-1], token + "x"):
            with pytest.raises(WrongToken):
                entrance.enter(lease.lease_ref, wrong)
        for ref in (plain.lease_ref, "lease-x", ""):
            with pytest.raises(RequestError) as refused:
                entrance.enter(ref, token)
            assert refused.value.code is ErrorCode.NOT_FOUND
        await kept.keeper.release(lease.lease_ref, ME)
        with pytest.raises(RequestError, match="released or expired"):
            entrance.enter(lease.lease_ref, token)


async def test_a_pass_opens_its_runtime_for_the_block_alone(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        entrance, token = Entrance(kept.keeper), new_token()
        asked = LeaseEnsure(target="t")
        lease = await kept.keeper.grant("model", asked, ME, None, token_sha256=digest(token))
        with entrance.passing("model") as one, entrance.passing("other") as two:
            assert entrance.enter(one.ref, one.token).instance_key == "model"
            with pytest.raises(WrongToken):
                entrance.enter(one.ref, two.token)
            with pytest.raises(WrongToken):
                entrance.enter(lease.lease_ref, one.token)
            with pytest.raises(WrongToken):
                entrance.enter(one.ref, token)
            assert one.token not in repr(one)
        with pytest.raises(RequestError) as refused:
            entrance.enter(one.ref, one.token)
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_how_a_runtime_refused_a_pass_is_known_while_it_lasts(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        entrance, token = Entrance(kept.keeper), new_token()
        asked = LeaseEnsure(target="t")
        lease = await kept.keeper.grant("model", asked, ME, None, token_sha256=digest(token))
        with entrance.passing("model") as one, entrance.passing("model") as two:
            assert entrance.refusal(one.ref) is None
            entrance.note(one.ref, 501, b"x" * 5000)
            assert entrance.refusal(one.ref) == Refusal(501, b"x" * 4096)
            assert entrance.refusal(two.ref) is None
            entrance.note(two.ref, 400, b"bad")
            entrance.note(two.ref, 200)
            assert entrance.refusal(two.ref) is None
            entrance.note(lease.lease_ref, 500, b"its own affair")
            assert entrance.refusal(lease.lease_ref) is None
        assert entrance.refusal(one.ref) is None
        entrance.note(one.ref, 500, b"late")
        assert entrance.refusal(one.ref) is None
