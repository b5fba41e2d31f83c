"""Leases by the client library on a real daemon with real llama-servers."""

import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from inferd_client import (
    Change,
    Client,
    Conflict,
    ConnectionLost,
    ConsumerManifest,
    HeldLease,
    Incompatible,
    Lease,
    LeaseLost,
    NoRoom,
    NotFound,
    RequestRefused,
    Runtime,
    RuntimeState,
)
from inferd_client.blocking import Client as BlockingClient
from tests.clients.e2e.leasing import daemon_with
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import boot, start_again
from tests.support.llama_server import llama_server_path

Run = Callable[[Callable[[], Awaitable[None]]], None]

HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
POST = "/chat/completions"


@pytest.fixture(scope="module", params=["real", "bundled"])
def daemon(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    with daemon_with(llama_server_path() if request.param == "real" else "") as running:
        yield running


@pytest.fixture
def alone() -> Iterator[RunningDaemon]:
    """A daemon that a test may kill."""
    with daemon_with(llama_server_path()) as running:
        yield running


async def completes(lease: HeldLease) -> dict[str, Any]:
    async with lease.http_client() as http:
        answer = await http.post(POST, json=HI)
        assert answer.status_code == 200, answer.text
        completed: dict[str, Any] = answer.json()
        return completed


TTL_S = 60.0
"""Renewed `often`: every 300 ms."""


def is_renewed(held: Lease, asked_at: float, since: float) -> bool:
    """Whether `held`, asked for at `asked_at`, has more time left than it had at `since`."""
    assert held.left_ms is not None
    assert held.left_ms <= TTL_S * 1000
    return held.left_ms > (TTL_S - (asked_at - since)) * 1000 + 50


async def until_renewed(client: Client, since: float) -> Lease:
    """The one lease once it was renewed after `since`, by this loop's clock."""
    while True:
        asked_at = anyio.current_time()
        (held,) = await client.leases(owner="tests")
        if is_renewed(held, asked_at, since):
            return held
        await anyio.sleep(0.05)


def seen_in(change: Change) -> list[Runtime]:
    """Its runtimes: the one that changed, or all of the snapshot, which may be new already."""
    return [change.runtime] if change.runtime is not None else list(change.runtimes)


@pytest.mark.usefixtures("often")
def test_a_route_is_leased_used_and_let_go(run: Run, daemon: RunningDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.socket, label="tests") as client:
            assert (await client.plan("chat")).verdict in ("fits", "running")
            async with client.lease("gpt", ttl=TTL_S) as lease:
                assert lease.endpoint.model_identity == "demo-model"
                assert lease.compatibility.compatible
                assert (await completes(lease))["choices"]
                runtime = await client.runtime("chat")
                assert (runtime.state, runtime.leases) == (RuntimeState.READY, 1)
                assert runtime.memory_bytes is not None
                with pytest.raises(Conflict, match="in use"):
                    await client.stop("demo")
                held = await until_renewed(client, anyio.current_time())
                assert (held.lease_ref, held.uid, held.pid) == (lease.ref, os.getuid(), os.getpid())
                assert (await completes(lease))["choices"]
            assert await client.leases() == []
            assert (await client.runtime("demo-model")).idle_left_ms is not None
            lines = [line.text async for line in client.logs("demo", lines=5)]
            assert len(lines) == 5
            assert (await client.stop("demo")).state is RuntimeState.STOPPED

    run(main)


@pytest.mark.usefixtures("often")
def test_a_spec_is_leased_without_a_route(run: Run, daemon: RunningDaemon) -> None:
    async def main() -> None:
        async with (
            Client(daemon.socket) as client,
            client.lease(boot(alias="mine", port=0), transport="tcp", ttl=None) as lease,
        ):
            assert lease.endpoint.uds is None
            assert lease.endpoint.base_url.startswith("http://127.0.0.1:")
            assert (lease.record.ttl_ms, lease.record.left_ms) == (None, None)
            assert (await completes(lease))["choices"]
            with pytest.raises(LeaseLost, match="there is no lease"):
                await stop_what_is_held(client)

    async def stop_what_is_held(client: Client) -> None:
        async with client.lease(boot(alias="mine", port=0), transport="tcp", ttl=TTL_S):
            assert (await client.runtime("mine")).leases == 2
            # Force ends both leases; this one notices at its next renewal.
            await client.stop("mine", force=True)
            await anyio.sleep_forever()

    run(main)


@pytest.mark.usefixtures("often")
def test_the_blocking_client(daemon: RunningDaemon) -> None:
    with BlockingClient(daemon.socket, label="threads") as client:
        with client.lease("chat", ttl=TTL_S) as lease, lease.http_client() as http:
            held_since = time.monotonic()

            def has_more_time() -> bool:
                asked_at = time.monotonic()
                (held,) = client.leases(owner="threads")
                return is_renewed(held, asked_at, held_since)

            wait_until(has_more_time, 5, "a renewal")
            lease.check()
            assert http.post(POST, json=HI).json()["choices"]
            assert [one.lease_ref for one in client.leases(owner="threads")] == [lease.ref]
            assert client.restart("chat", force=True).state is RuntimeState.STARTING
            with client.watch() as changes:
                for change in changes:
                    if any(
                        now.name == "demo" and now.state is RuntimeState.READY
                        for now in seen_in(change)
                    ):
                        break
            # The same lease, address and key; another process.
            assert http.post(POST, json=HI).json()["choices"]
        assert client.leases() == []
        ensured = client.ensure("chat", ttl=30)
        assert ensured.lease.bind == "none"
        renewed = client.renew(ensured.lease.lease_ref, 60)
        assert renewed.left_ms is not None
        assert renewed.left_ms > 50_000
    with BlockingClient(daemon.socket) as client:
        assert len(client.leases()) == 1
        for _ in range(2):
            client.release(ensured.lease.lease_ref)
        with pytest.raises(NotFound):
            client.renew(ensured.lease.lease_ref, 60)


def test_refusals_are_typed(daemon: RunningDaemon) -> None:
    wants_eyes = ConsumerManifest(consumer="tests", required_capabilities={"vision": True})
    with BlockingClient(daemon.socket) as client:
        with pytest.raises(NotFound, match="the routes are: chat, mock"):
            client.ensure("nobody")
        with pytest.raises(Incompatible) as misfit:
            client.ensure("chat", consumer=wants_eyes)
        assert misfit.value.compatibility is not None
        assert "vision" in str(misfit.value.compatibility.missing_requirements)
        with pytest.raises(Incompatible, match="mock"):
            client.ensure("mock")
        with pytest.raises(RequestRefused, match="ctx_size"):
            client.ensure(boot(ctx_size="many"))
        with pytest.raises(RequestRefused, match="ttl_ms"):
            client.ensure("chat", ttl=0.5)
        with client.lease(boot(ctx_size=256)), client.lease(boot(ctx_size=384)):
            with pytest.raises(NoRoom) as full:
                client.ensure("chat")
            plan = full.value.plan
            assert (plan.verdict, plan.missing_runtimes) == ("refused", 1)
            assert plan.blocked_by[0].held_by[0].uid == os.getuid()
            assert client.plan("chat") == plan
            start = time.monotonic()
            with pytest.raises(NoRoom):
                client.ensure("chat", wait_s=0.3)
            assert time.monotonic() - start >= 0.3
        # Nobody holds them any more: one has to go.
        assert client.plan("chat").verdict == "evicts"
        client.release(client.ensure("chat").lease.lease_ref)


@pytest.mark.usefixtures("often")
async def test_a_killed_server_does_not_end_a_lease(alone: RunningDaemon) -> None:
    async with (
        Client(alone.socket, label="tests") as client,
        client.lease("chat", ttl=TTL_S) as lease,
    ):
        before = await client.runtime("chat")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        with anyio.fail_after(60):
            async with client.watch() as changes:
                async for change in changes:
                    if any(
                        now.instance_key == before.instance_key
                        and now.state == "ready"
                        and now.pid != before.pid
                        for now in seen_in(change)
                    ):
                        break
        with anyio.fail_after(60):
            await until_renewed(client, anyio.current_time())
        assert (await completes(lease))["choices"]


@pytest.mark.usefixtures("often")
async def test_a_killed_daemon_does_not_end_a_lease(alone: RunningDaemon) -> None:
    """It comes back, and the lease is found, renewed, and released at the end."""
    async with Client(alone.socket, label="tests") as client:
        async with client.lease("chat", ttl=TTL_S) as lease:
            alone.process.kill()
            alone.process.wait()
            killed_at = anyio.current_time()
            await anyio.to_thread.run_sync(start_again, alone, llama_server_path())
            async with Client(alone.socket) as other:
                with anyio.fail_after(60):
                    held = await until_renewed(other, killed_at)
                assert held.lease_ref == lease.ref
            assert (await completes(lease))["choices"]
            with pytest.raises(ConnectionLost):
                await client.status()
        async with Client(alone.socket) as other:
            assert await other.leases() == []
    alone.stop()


async def test_a_killed_daemon_is_given_back_what_no_renewal_found_again(
    alone: RunningDaemon,
) -> None:
    """The next daemon has both leases for an hour; the blocks end on connections of the first."""
    async with Client(alone.socket) as client, client.lease("chat", ttl=3600):
        with BlockingClient(alone.socket) as blocking, blocking.lease("chat", ttl=3600):
            alone.process.kill()
            alone.process.wait()
            await anyio.to_thread.run_sync(start_again, alone, llama_server_path())
            async with Client(alone.socket) as other:
                assert len(await other.leases()) == 2
        async with Client(alone.socket) as other:
            assert len(await other.leases()) == 1
    async with Client(alone.socket) as other:
        assert await other.leases() == []
    alone.stop()
