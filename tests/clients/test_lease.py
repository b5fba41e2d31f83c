"""`client.lease`: held, renewed, lost and given back, on trio and on asyncio."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from inferd_client import (
    Client,
    ClientClosed,
    ConnectionLost,
    Constraints,
    ConsumerManifest,
    ErrorCode,
    Incompatible,
    LeaseContext,
    LeaseLost,
    NoRoom,
    NotFound,
    TextDelta,
)
from inferd_proto import Error, Result
from tests.clients.lease_records import ENSURED, KEY, LEASE, PLAN
from tests.clients.lease_script import (
    arguments,
    first_times,
    give_up,
    grant_late,
    never,
    ops,
    refuse,
    until_asked,
    when,
)
from tests.clients.scripted_daemon import Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]

GONE = refuse(ErrorCode.NOT_FOUND, "there is no lease; ensure again")
TTL_S = 60.0
"""Renewed `often`: every 300 ms."""


async def hold(client: Client, ttl: float = TTL_S, renewable: bool = True) -> None:
    """A block that ends when it is cancelled."""
    async with client.lease("qwen3", ttl=ttl, renewable=renewable):
        await anyio.sleep_forever()


async def hold_on(client: Client, error: Exception | None = None) -> None:
    """A block that does not notice a loss, and ends with `error` after it."""
    async with client.lease("qwen3", ttl=TTL_S) as lease:
        with anyio.CancelScope(shield=True):
            while "lost" not in repr(lease):  # noqa: ASYNC110 (nothing else tells it)
                await anyio.sleep(0.005)
        if error is not None:
            raise error


@pytest.mark.usefixtures("often")
def test_it_is_held_renewed_and_given_back(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path, label="me") as client:
            async with client.lease("qwen3", ttl=TTL_S) as lease:
                assert lease.ref == "lease-abc"
                assert lease.endpoint.base_url == "http://localhost/v1"
                assert lease.compatibility.compatible
                assert lease.record.bind == "connection"
                await until_asked(daemon, "lease.renew", 3)
                assert "lease.release" not in ops(daemon)
            assert ops(daemon)[-1] == "lease.release"
            # The connection is the client's, and as good as before.
            assert await client.generate("x").text() == "Hello from inferd."

    run(main)
    asked = arguments(daemon, "lease.ensure")
    assert asked == {"target": "qwen3", "owner_ref": "me", "ttl_ms": 60_000}
    assert arguments(daemon, "lease.renew") == {"lease_ref": "lease-abc", "ttl_ms": 60_000}


def test_every_option_arrives(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            lease = client.lease(
                {"model": "/m.gguf", "ctx_size": 4096},
                ttl=None,
                transport="tcp",
                owner="job 7",
                wait_s=2.5,
                renewable=False,
                consumer=ConsumerManifest(
                    consumer="tests",
                    required_capabilities={"tool_calling": True},
                    constraints=Constraints(),
                ),
                context=LeaseContext(run_id="r-1"),
            )
            async with lease:
                pass
            with pytest.raises(ValueError, match="neither a boot spec"):
                client.lease({"nonsense": 1})
            with pytest.raises(ValueError, match="only with `bind` connection"):
                client.lease("x", ttl=None, bind="none")

    run(main)
    asked = arguments(daemon, "lease.ensure")
    consumer = asked.pop("consumer")
    assert asked == {
        "target": {"model": "/m.gguf", "ctx_size": 4096},
        "ttl_ms": None,
        "transport": "tcp",
        "owner_ref": "job 7",
        "wait_ms": 2500,
        "renewable": False,
        "context": {"run_id": "r-1"},
    }
    assert isinstance(consumer, dict)
    assert consumer["required_capabilities"] == {"tool_calling": True}


@pytest.mark.usefixtures("often")
def test_a_loss_cancels_the_block_and_is_raised(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.renew", GONE)
    cleaned_up: list[str] = []

    async def tidy(client: Client) -> None:
        async with client.lease("qwen3", ttl=TTL_S):
            try:
                await anyio.sleep_forever()
            finally:
                cleaned_up.append("yes")

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost, match="there is no lease") as caught:
                await tidy(client)
            assert caught.value.lease_ref == "lease-abc"
            await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left
            assert (await client.status()).pid == 4242

    run(main)
    assert cleaned_up == ["yes"]


@pytest.mark.usefixtures("often")
def test_a_loss_ends_the_tasks_of_the_block_too(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.renew", GONE)

    async def work(client: Client) -> None:
        async with client.lease("qwen3", ttl=TTL_S), anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.start_soon(anyio.sleep_forever)

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost):
                await work(client)

    run(main)


@pytest.mark.usefixtures("often")
def test_a_loss_that_the_block_did_not_notice_is_raised_at_its_end(
    run: Run, daemon: ScriptedDaemon
) -> None:
    daemon.script = when("lease.renew", GONE)

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost):
                await hold_on(client)

    run(main)


@pytest.mark.usefixtures("often")
def test_the_blocks_own_error_stays_what_it_is(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(KeyError, match="mine") as caught:
                async with client.lease("qwen3"):
                    raise KeyError("mine")
            assert not hasattr(caught.value, "__notes__")
            assert ops(daemon)[-1] == "lease.release"
            daemon.script = when("lease.renew", GONE)
            with pytest.raises(KeyError) as caught:
                await hold_on(client, KeyError("mine"))
            assert "is lost: there is no lease" in caught.value.__notes__[0]

    run(main)


def test_a_cancelled_block_gives_its_lease_back(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            with anyio.CancelScope() as scope:
                async with client.lease("qwen3"):
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert ops(daemon)[-1] == "lease.release"

    run(main)


@pytest.mark.usefixtures("often")
def test_asyncios_own_cancellation(daemon: ScriptedDaemon) -> None:
    async def hold(client: Client, entered: asyncio.Event) -> None:
        async with client.lease("qwen3"):
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        async with Client(daemon.path) as client:
            entered = asyncio.Event()
            task = asyncio.create_task(hold(client, entered))
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ops(daemon)[-1] == "lease.release"
            daemon.script = when("lease.renew", GONE)
            with pytest.raises(LeaseLost):
                async with client.lease("qwen3", ttl=TTL_S):
                    await asyncio.Event().wait()
            this = asyncio.current_task()
            assert this is not None
            assert this.cancelling() == 0

    asyncio.run(main())


@pytest.mark.usefixtures("often")
def test_a_daemon_that_comes_back_is_found_again(run: Run, daemon: ScriptedDaemon) -> None:
    """The client's connection is gone for good; the lease goes on over its own."""
    daemon.script = when("lease.renew", first_times(1, lambda asked: asked.hang_up()))

    async def main() -> None:
        async with Client(daemon.path) as client:
            async with client.lease("qwen3", ttl=TTL_S) as lease:
                await until_asked(daemon, "lease.renew", 3)
                assert lease.ref == "lease-abc"
                with pytest.raises(ConnectionLost):
                    await client.status()
            assert ops(daemon)[-1] == "lease.release"

    run(main)
    assert ops(daemon).count("lease.ensure") == 1


def test_a_daemon_that_stays_away_is_a_loss_when_the_time_is_up(
    run: Run, daemon: ScriptedDaemon
) -> None:
    def vanish(asked: Asked) -> None:
        daemon.path.unlink()
        asked.hang_up()

    daemon.script = when("lease.renew", vanish)

    async def main() -> None:
        start = anyio.current_time()
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost):
                await hold(client, ttl=0.6)
        assert anyio.current_time() - start > 0.55

    run(main)


@pytest.mark.usefixtures("often")
def test_a_daemon_that_hangs_is_a_loss_when_the_time_is_up(
    run: Run, daemon: ScriptedDaemon
) -> None:
    daemon.script = when("lease.renew", never)

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost, match="did not answer"):
                await hold(client, ttl=2)

    run(main)


@pytest.mark.usefixtures("often")
def test_a_passing_failure_is_tried_again(run: Run, daemon: ScriptedDaemon) -> None:
    full = refuse(ErrorCode.BACKEND_UNAVAILABLE, "the journal's disk is full")
    daemon.script = when("lease.renew", first_times(1, full))

    async def main() -> None:
        async with Client(daemon.path) as client, client.lease("qwen3", ttl=TTL_S):
            await until_asked(daemon, "lease.renew", 3)

    run(main)


def test_a_lease_that_ends_by_itself_is_a_loss(run: Run, daemon: ScriptedDaemon) -> None:
    fixed = LEASE | {"renewable": False, "left_ms": 200}

    def grant(asked: Asked) -> None:
        asked.send(Result(asked.id, ENSURED | {"lease": fixed}))

    daemon.script = when("lease.ensure", grant)

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(LeaseLost, match="not renewable"):
                await hold(client, renewable=False)

    run(main)
    assert "lease.renew" not in ops(daemon)


def test_a_grant_that_crosses_the_cancel_is_given_back(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.ensure", grant_late)

    async def main() -> None:
        async with Client(daemon.path) as client:
            await give_up(daemon, client.lease("qwen3").__aenter__)
            assert ops(daemon) == ["lease.ensure", "lease.release"]

    run(main)


def test_so_is_one_that_nobody_would_have_renewed(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.ensure", grant_late)

    async def main() -> None:
        async with Client(daemon.path) as client:
            await give_up(daemon, lambda: client.ensure("qwen3", ttl=3600))
            assert ops(daemon) == ["lease.ensure", "lease.release"]

    run(main)


def test_refusals_are_typed_and_leave_nothing(run: Run, daemon: ScriptedDaemon) -> None:
    codes = iter(
        [
            (ErrorCode.NOT_FOUND, {}, NotFound),
            (ErrorCode.CONFLICT, {"plan": PLAN}, NoRoom),
            (ErrorCode.INCOMPATIBLE, {"compatibility": _MISFIT}, Incompatible),
        ]
    )

    async def main() -> None:
        async with Client(daemon.path) as client:
            for code, details, kind in codes:

                def answer(asked: Asked, code: ErrorCode = code, details: object = details) -> None:
                    asked.send(Error(asked.id, code, "no", details))  # type: ignore[arg-type]

                daemon.script = when("lease.ensure", answer)
                with pytest.raises(kind) as caught:
                    async with client.lease("qwen3"):
                        raise AssertionError("it was not granted")
                if isinstance(caught.value, NoRoom):
                    assert caught.value.plan.blocked_by[0].held_by[0].owner_ref == "me"
                if isinstance(caught.value, Incompatible):
                    assert caught.value.compatibility is not None
                    assert caught.value.compatibility.missing_requirements == ["vision"]

    run(main)
    assert set(ops(daemon)) == {"lease.ensure"}


_MISFIT = {
    "compatible": False,
    "reason": "missing_capability",
    "missing_requirements": ["vision"],
}


@pytest.mark.usefixtures("often")
def test_leases_and_answers_share_a_client(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with (
            Client(daemon.path) as client,
            client.lease("a", ttl=TTL_S),
            client.lease("b", ttl=TTL_S),
        ):
            events = []
            for _ in range(20):
                events += [event async for event in client.generate("x")]
                await anyio.sleep(0.02)
            await until_asked(daemon, "lease.renew", 4)
            assert TextDelta("Hello") in events

    run(main)
    # the outer lease may be renewed once more while the inner one is given back
    assert ops(daemon)[-1] == "lease.release"
    assert ops(daemon).count("lease.release") == 2


def test_a_lease_is_entered_once(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            lease = client.lease("qwen3")
            assert repr(lease) == "<HeldLease, not entered>"
            with pytest.raises(ClientClosed, match="not held"):
                _ = lease.endpoint
            async with lease:
                assert repr(lease) == "<HeldLease lease-abc>"
            with pytest.raises(ClientClosed, match="entered once"):
                async with lease:
                    pass
            assert KEY not in repr(lease)
        with pytest.raises(ClientClosed):
            async with client.lease("qwen3"):
                pass

    run(main)
