"""A leased runtime that failed is tried again by itself; one that nobody holds is left alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from msgspec.structs import replace

from inferd_daemon.engines.base import EngineFailure, Health
from inferd_daemon.engines.failures import Cause, failure
from inferd_daemon.supervision.leases.eviction import Limits
from inferd_daemon.supervision.leases.revival import Revival
from inferd_daemon.supervision.leasing import Leasing
from inferd_daemon.supervision.runtimes.machine import State
from tests.support.lone_runtimes import SleepBlueprint, have, leasing

REST_S = 0.1
GONE = EngineFailure(failure(Cause.MODEL_MISSING, "`model`: /models/a.gguf: no such file"))


@asynccontextmanager
async def reviving(directory: Path, limits: Limits | None = None) -> AsyncIterator[Leasing]:
    """Leasing, with rests that a test can wait for."""
    async with leasing(directory, limits=limits) as whole, trio.open_nursery() as nursery:
        revival = Revival(whole.runtimes, whole.keeper, whole.placing, first_rest_s=REST_S)
        await nursery.start(revival.run)
        yield whole
        nursery.cancel_scope.cancel()


async def until(whole: Leasing, key: str, state: State) -> None:
    with trio.fail_after(30):
        while (runtime := whole.runtimes.get(key)) is None or runtime.state is not state:
            await whole.runtimes.wait_changed()


def kill(whole: Leasing, key: str) -> None:
    runtime = whole.runtimes.get(key)
    assert runtime is not None
    whole.runtimes.kill()


async def test_a_model_that_comes_back_is_served_again_under_the_same_lease(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with reviving(tmp_path) as whole:
        had = await have(whole, blueprint)
        blueprint.engine.refusal = GONE
        kill(whole, "a")
        await until(whole, "a", State.FAILED)
        await trio.sleep(2.5 * REST_S)  # one more try in vain
        assert blueprint.engine.starts == 1
        blueprint.engine.refusal = None
        await until(whole, "a", State.READY)
        assert blueprint.engine.starts == 2
        assert whole.keeper.table.find(had.lease.lease_ref) is not None


async def test_one_that_was_not_ready_in_time_after_a_crash(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with reviving(tmp_path) as whole:
        await have(whole, blueprint)
        usual = blueprint.engine.timing
        blueprint.engine.timing = replace(usual, ready_timeout_s=0.3)
        blueprint.engine.health = Health.LOADING
        kill(whole, "a")
        await until(whole, "a", State.FAILED)
        blueprint.engine.timing = usual
        blueprint.engine.health = Health.HEALTHY
        await until(whole, "a", State.READY)


async def test_what_nobody_holds_rests(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with reviving(tmp_path) as whole:
        await have(whole, blueprint)
        blueprint.engine.refusal = GONE
        kill(whole, "a")
        await until(whole, "a", State.FAILED)
        whole.keeper.connection_closed(1)
        blueprint.engine.refusal = None
        await trio.sleep(3 * REST_S)
        assert blueprint.engine.starts == 1


async def test_room_that_was_taken_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with reviving(tmp_path, Limits(runtimes=1)) as whole:
        await have(whole, blueprint)
        blueprint.engine.refusal = GONE
        kill(whole, "a")
        await until(whole, "a", State.FAILED)
        await have(whole, SleepBlueprint("b", tmp_path), 2)
        blueprint.engine.refusal = None
        await trio.sleep(2 * REST_S)
        assert blueprint.engine.starts == 1
        await until(whole, "b", State.READY)
        whole.keeper.connection_closed(2)
        await until(whole, "a", State.READY)
