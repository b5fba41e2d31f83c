"""Runtimes that are stopped and restarted while others hold them, wait for them, or leave."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.runtime_restart import runtime_restart
from inferd_daemon.control.runtime_stop import runtime_stop
from inferd_daemon.control.view import DaemonView
from inferd_daemon.engines.base import Health
from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.revival import Revival
from inferd_daemon.supervision.leasing import Leasing
from inferd_daemon.supervision.runtimes import managed
from inferd_daemon.supervision.runtimes.machine import State
from inferd_proto import ErrorCode
from tests.daemon.control.test_leasing import call
from tests.daemon.fronts.conversation import view_of
from tests.daemon.supervision.leases.test_ensure import state_of, until_state
from tests.support.lone_runtimes import SleepBlueprint, have, leasing
from tests.support.processes import until

SLOW = "trap '' INT; : > {deaf}; while :; do sleep 0.05; done"
"""Ends by SIGKILL alone, once `deaf` is there."""
PATIENCE_S = 60.0


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Leasing]:
    async with leasing(tmp_path) as one:
        yield one


@pytest.fixture
def view(whole: Leasing) -> DaemonView:
    made = view_of(MockBackend("mock", MockConfig()))
    made.leasing = whole
    return made


def slow_to_end(directory: Path) -> SleepBlueprint:
    """Runtime `a`, for which a stop has more patience than any test."""
    script = SLOW.format(deaf=directory / "deaf")
    blueprint = SleepBlueprint("a", directory, script=script)
    blueprint.engine.timing = replace(blueprint.engine.timing, stop_timeout_s=PATIENCE_S)
    return blueprint


async def deaf(directory: Path) -> None:
    """Until its process hears no SIGINT."""
    await until((directory / "deaf").exists, 30)


async def test_a_restart_goes_on_without_its_caller(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = slow_to_end(tmp_path)
    lease = (await have(whole, blueprint)).lease
    await deaf(tmp_path)
    blueprint.engine.script = "exec sleep 600"  # the next one ends at once
    patience = trio.CancelScope()

    async def restart() -> None:
        with patience:
            await runtime_restart(call(view, instance_key="a", force=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        await until_state(whole, "a", State.DRAINING)
        await trio.testing.wait_all_tasks_blocked()
        patience.cancel()
    assert patience.cancelled_caught
    assert state_of(whole, "a") is State.DRAINING
    whole.runtimes.kill()
    await until_state(whole, "a", State.READY)
    assert blueprint.engine.starts == 2
    assert [one.lease_ref for one in whole.keeper.table] == [lease.lease_ref]


async def test_who_stops_what_is_being_restarted_has_the_last_word(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = slow_to_end(tmp_path)
    await have(whole, blueprint)
    await deaf(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime_restart, call(view, instance_key="a", force=True))
        await until_state(whole, "a", State.DRAINING)
        await runtime_stop(call(view, instance_key="a", force=True))
    assert state_of(whole, "a") is State.STOPPED
    assert blueprint.engine.starts == 1


async def test_a_second_stop_by_force_ends_the_patience(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = slow_to_end(tmp_path)
    await have(whole, blueprint)
    await deaf(tmp_path)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime_stop, call(view, instance_key="a", force=True))
            await until_state(whole, "a", State.DRAINING)
            await runtime_stop(call(view, instance_key="a", force=True))
    assert state_of(whole, "a") is State.STOPPED


async def test_a_leased_runtime_that_was_left_stopped_is_started_again(
    whole: Leasing, tmp_path: Path
) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    await have(whole, blueprint)
    async with trio.open_nursery() as nursery:
        revival = Revival(whole.runtimes, whole.keeper, whole.placing, first_rest_s=0.05)
        await nursery.start(revival.run)
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        whole.runtimes.stop(runtime)
        await until_state(whole, "a", State.STOPPED)
        await until_state(whole, "a", State.READY)
        nursery.cancel_scope.cancel()
    assert blueprint.engine.starts == 2


async def test_a_forced_stop_calls_off_a_start(
    view: DaemonView, whole: Leasing, tmp_path: Path
) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    blueprint.engine.health = Health.LOADING
    refused: list[RequestError] = []

    async def waits(connection: int) -> None:
        with pytest.raises(RequestError) as caught:
            await have(whole, blueprint, connection)
        refused.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits, 1)
        nursery.start_soon(waits, 2)
        with trio.fail_after(30):
            while not blueprint.engine.starts:  # noqa: ASYNC110 (the test's own engine)
                await trio.sleep(0.005)
            shown = await runtime_stop(call(view, instance_key="a", force=True))
        assert shown["state"] == "stopped"
    assert {error.code for error in refused} == {ErrorCode.CONFLICT}
    assert all("stopped by force" in error.message for error in refused)
    assert (state_of(whole, "a"), blueprint.engine.starts) == (State.STOPPED, 1)
    assert not whole.keeper.records.known("runtime/a")
    assert len(whole.keeper.table) == 0
    # Whoever comes later is served.
    blueprint.engine.health = Health.HEALTHY
    await have(whole, blueprint)
    assert blueprint.engine.starts == 2


async def test_what_does_not_end_is_waited_for_no_longer_than_it_may_take(
    view: DaemonView, whole: Leasing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed, "END_SLACK_S", 0.2 - PATIENCE_S)  # long before the SIGKILL
    blueprint, other = slow_to_end(tmp_path), SleepBlueprint("b", tmp_path)
    await have(whole, blueprint)
    await deaf(tmp_path)
    runtime = whole.runtimes.get("a")
    assert runtime is not None
    assert runtime.supervisor.process is not None
    whole.placing.limits = whole.placing.limits._replace(runtimes=1)
    told = rf"a \(pid {runtime.supervisor.process.pid}\) was asked to end"
    with pytest.raises(RequestError, match=told):
        await runtime_restart(call(view, instance_key="a", force=True))
    for wanted in (blueprint, other):
        with trio.fail_after(30), pytest.raises(RequestError, match=told) as refused:
            await have(whole, wanted, 2)
        assert refused.value.code is ErrorCode.TIMEOUT
    whole.keeper.connection_closed(1)
    with pytest.raises(RequestError, match=told):
        await runtime_stop(call(view, instance_key="a"))
    whole.runtimes.kill()
    await until_state(whole, "a", State.STOPPED)
    await have(whole, other, 2)
