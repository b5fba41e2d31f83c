"""A lease is given back whatever ends its block: a late grant, either loop's cancel, a restart."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from random import Random

import anyio
import pytest

from inferd_client import Client, ClientClosed, async_link, held_lease
from inferd_proto import Control, Result
from tests.clients.conftest import LAST_WORD_S
from tests.clients.lease_records import ENSURED
from tests.clients.lease_script import (
    Ledger,
    first_times,
    give_up,
    ops,
    until_asked,
    vanish,
    when,
)
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]

ROUNDS = 60
UNDISTURBED = 5


async def hold_a_moment(client: Client) -> None:
    async with client.lease("qwen3", ttl=None):
        await anyio.sleep(0.001)


async def how_long(client: Client) -> float:
    """What the longest of a few undisturbed holds takes here: no machine is as quick as another."""
    longest = 0.0
    for _ in range(UNDISTURBED):
        start = anyio.current_time()
        await hold_a_moment(client)
        longest = max(longest, anyio.current_time() - start)
    return longest


# -- cancelled at any moment -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cancels", [1, 2])
def test_asyncios_cancel_at_any_moment_leaves_no_lease(
    daemon: ScriptedDaemon, seed: int, cancels: int
) -> None:
    """One that hits the block's end, and a second one that hits what the first began."""
    ledger = daemon.script = Ledger(seed, slow_s=0.002)
    random = Random(seed)

    async def main() -> None:
        async with Client(daemon.path) as client:
            whole_s = await how_long(client)
            for _ in range(ROUNDS):
                task = asyncio.create_task(hold_a_moment(client))
                for _ in range(cancels):
                    await asyncio.sleep(random.uniform(0, whole_s))
                    task.cancel()
                await asyncio.wait([task])
                assert ledger.living == set()

    asyncio.run(main())
    assert ledger.granted > UNDISTURBED


@pytest.mark.parametrize("seed", range(4))
def test_asyncios_timeout_at_any_moment_leaves_no_lease(daemon: ScriptedDaemon, seed: int) -> None:
    ledger = daemon.script = Ledger(seed, slow_s=0.002)
    random = Random(seed)

    async def one(client: Client, whole_s: float) -> None:
        for _ in range(ROUNDS // 4):
            try:
                async with asyncio.timeout(random.uniform(0, 2 * whole_s)):
                    await hold_a_moment(client)
            except TimeoutError:
                pass

    async def main() -> None:
        async with Client(daemon.path) as client:
            whole_s = await how_long(client)
            await asyncio.gather(*(one(client, whole_s) for _ in range(6)))
            assert ledger.living == set()
            assert (await client.status()).pid == 4242

    asyncio.run(main())
    assert ledger.granted > UNDISTURBED


@pytest.mark.parametrize("seed", range(2))
def test_a_cancelled_scope_at_any_moment_leaves_no_lease(
    run: Run, daemon: ScriptedDaemon, seed: int
) -> None:
    ledger = daemon.script = Ledger(seed, slow_s=0.002)
    random = Random(seed)

    async def main() -> None:
        async with Client(daemon.path) as client:
            whole_s = await how_long(client)
            for _ in range(ROUNDS):
                with anyio.move_on_after(random.uniform(0, whole_s)):
                    await hold_a_moment(client)
                assert ledger.living == set()

    run(main)
    assert ledger.granted > UNDISTURBED


@pytest.mark.usefixtures("often")
def test_a_cancel_at_the_end_closes_the_leases_own_connection(daemon: ScriptedDaemon) -> None:
    held_up = threading.Event()

    def slow(asked: Asked) -> None:
        held_up.set()
        asked.cancelled.wait(0.2)
        asked.send(Result(asked.id, None))

    renewing = when("lease.renew", first_times(1, Asked.hang_up))

    def script(asked: Asked) -> None:
        releases = isinstance(asked.request, Control) and asked.request.op == "lease.release"
        (slow if releases else renewing)(asked)

    async def hold(client: Client) -> None:
        async with client.lease("qwen3", ttl=60):
            await until_asked(daemon, "lease.renew", 2)  # the second one is on its own connection

    async def main() -> None:
        daemon.script = script
        async with Client(daemon.path) as client:
            task = asyncio.create_task(hold(client))
            while not held_up.is_set():  # noqa: ASYNC110 (it is set in another thread)
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(2):  # the client's, which the daemon ended, and the lease's own
                assert daemon.clean_ends.acquire(timeout=PATIENCE_S)

    asyncio.run(main())
    assert ops(daemon)[-1] == "lease.release"


# -- a grant that comes late -----------------------------------------------------------------


class LateGrant:
    """The answer to `lease.ensure` comes on cue, long after the client gave up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(async_link, "END_TIMEOUT_S", 0.05)
        self.cue, self.sent = threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> None:
        assert asked.cancelled.wait(PATIENCE_S)
        assert self.cue.wait(PATIENCE_S)
        asked.send(Result(asked.id, ENSURED))
        self.sent.set()


def test_a_grant_that_comes_long_after_is_given_back(
    run: Run, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateGrant(monkeypatch)
    daemon.script = when("lease.ensure", late)

    async def main() -> None:
        async with Client(daemon.path) as client:
            await give_up(daemon, lambda: client.ensure("qwen3", ttl=3600))
            assert ops(daemon) == ["lease.ensure"]
            late.cue.set()
            assert late.sent.wait(PATIENCE_S)
            assert (await client.status()).pid == 4242
            await until_asked(daemon, "lease.release", 1)

    run(main)


def test_so_is_one_that_nothing_was_read_after(
    run: Run, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the client is the last chance for a lease that is bound to no connection."""
    late = LateGrant(monkeypatch)
    daemon.script = when("lease.ensure", late)

    async def main() -> None:
        async with Client(daemon.path) as client:
            await give_up(daemon, lambda: client.ensure("qwen3", ttl=3600))
            late.cue.set()
            assert late.sent.wait(PATIENCE_S)
        await until_asked(daemon, "lease.release", 1)

    run(main)


# -- the daemon's end ------------------------------------------------------------------------


def test_a_lease_outlives_the_connection_and_is_given_back_on_another(
    run: Run, daemon: ScriptedDaemon
) -> None:
    """As after a restart of the daemon that nobody noticed: no renewal was due."""
    daemon.script = when("lease.release", first_times(1, Asked.hang_up))

    async def main() -> None:
        async with Client(daemon.path) as client:
            async with client.lease("qwen3", ttl=3600):
                pass
            assert ops(daemon) == ["lease.ensure", "lease.release", "lease.release"]
        assert daemon.clean_ends.acquire(timeout=PATIENCE_S)
        assert daemon.clean_ends.acquire(timeout=PATIENCE_S)

    run(main)


def test_so_it_is_when_the_client_is_closed(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            lease = client.lease("qwen3", ttl=3600)
            async with lease:
                client.close()
            with pytest.raises(ClientClosed):
                await client.status()

    run(main)
    assert ops(daemon) == ["lease.ensure", "lease.release"]


def test_a_daemon_that_is_gone_is_not_waited_for(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.release", vanish(daemon))

    async def main() -> None:
        start = anyio.current_time()
        async with Client(daemon.path, wait_s=0) as client, client.lease("qwen3", ttl=3600):
            pass
        assert anyio.current_time() - start < LAST_WORD_S - 5

    run(main)


def test_one_that_may_come_back_is_waited_for_a_moment(
    run: Run, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_lease, "RELEASE_TIMEOUT_S", 2.0)
    daemon.script = when("lease.release", vanish(daemon))

    async def main() -> None:
        start = anyio.current_time()
        async with Client(daemon.path, wait_s=600) as client, client.lease("qwen3", ttl=3600):
            pass
        assert 1.9 < anyio.current_time() - start < 40

    run(main)
