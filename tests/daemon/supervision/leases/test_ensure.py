"""Ensure under every order of events: shared starts, cancelled callers, room, failures, idling."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from inferd_daemon.engines.base import EngineFailure, Health
from inferd_daemon.engines.failures import Cause, failure
from inferd_daemon.engines.secret import Secret
from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases import placing
from inferd_daemon.supervision.leases.eviction import Limits
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.room_queue import plan_in_turn
from inferd_daemon.supervision.leases.waiting_room import MAX_WAITING_PER_UID
from inferd_daemon.supervision.leasing import Leasing
from inferd_daemon.supervision.runtimes.blueprint import Former, Hooks
from inferd_daemon.supervision.runtimes.machine import State
from inferd_daemon.supervision.runtimes.supervisor import Supervisor
from inferd_proto import (
    ConsumerManifest,
    EnsurePlan,
    ErrorCode,
    JsonObject,
    LeaseEnsure,
    LeaseEnsured,
)
from tests.support.lone_runtimes import (
    SleepBlueprint,
    failing_journal,
    have,
    leasing,
    owner,
)
from tests.support.processes import until


async def until_state(whole: Leasing, key: str, state: State, seconds: float = 30.0) -> None:
    with trio.fail_after(seconds):
        while (runtime := whole.runtimes.get(key)) is None or runtime.state is not state:
            await whole.runtimes.wait_changed()


def state_of(whole: Leasing, key: str) -> State:
    runtime = whole.runtimes.get(key)
    assert runtime is not None
    return runtime.state


async def test_callers_share_one_start(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    got: list[LeaseEnsured] = []
    async with leasing(tmp_path) as whole:

        async def one(connection: int) -> None:
            got.append(await have(whole, blueprint, connection))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(one, number)
        assert blueprint.engine.starts == 1
        assert len({one.lease.lease_ref for one in got}) == 50
        assert whole.keeper.count("a") == 50
        whole.keeper.connection_closed(7)
        assert whole.keeper.count("a") == 49


async def test_a_caller_that_leaves_does_not_take_the_start_from_the_others(
    tmp_path: Path,
) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    blueprint.engine.health = Health.LOADING
    async with leasing(tmp_path) as whole, trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def leaves() -> None:
            with first:
                await have(whole, blueprint)

        stayed = trio.Event()

        async def stays() -> None:
            await have(whole, blueprint, 2)
            stayed.set()

        nursery.start_soon(leaves)
        await until_state(whole, "a", State.STARTING)
        nursery.start_soon(stays)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        blueprint.engine.health = Health.HEALTHY
        await until_state(whole, "a", State.READY)
        with trio.fail_after(30):
            await stayed.wait()
        assert blueprint.engine.starts == 1
        assert whole.keeper.count("a") == 1


async def test_what_cannot_start_is_told_to_every_caller_and_not_tried_on(
    tmp_path: Path,
) -> None:
    blueprint = SleepBlueprint(
        "a", tmp_path, script="echo couldn\\'t bind HTTP server socket; exit 1"
    )
    errors: list[RequestError] = []
    async with leasing(tmp_path) as whole:

        async def one(connection: int) -> None:
            with pytest.raises(RequestError) as refused:
                await have(whole, blueprint, connection)
            errors.append(refused.value)

        blueprint.engine.health = Health.NO_ANSWER
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(one, number)
        assert {error.code for error in errors} == {ErrorCode.CONFLICT}
        assert all(error.details and error.details["exit_code"] == 1 for error in errors)
        await until_state(whole, "a", State.STOPPED)
        assert blueprint.engine.starts == 1
        # The next caller gets a try of its own.
        blueprint.engine.script, blueprint.engine.health = "exec sleep 600", Health.HEALTHY
        await have(whole, blueprint)
        assert blueprint.engine.starts == 2


async def test_a_refusal_before_the_start_names_its_reason(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    blueprint.engine.refusal = EngineFailure(failure(Cause.BAD_OPTION, "`x` is wrong"))
    async with leasing(tmp_path) as whole:
        with pytest.raises(RequestError, match="`x` is wrong") as refused:
            await have(whole, blueprint)
        assert refused.value.code is ErrorCode.INVALID_REQUEST


async def test_not_ready_in_time_is_a_timeout(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    blueprint.engine.health = Health.LOADING
    blueprint.engine.timing = replace(blueprint.engine.timing, ready_timeout_s=0.3)
    async with leasing(tmp_path) as whole:
        with (
            trio.fail_after(30),
            pytest.raises(RequestError, match=r"not ready after 0\.3 s") as refused,
        ):
            await have(whole, blueprint)
        assert refused.value.code is ErrorCode.TIMEOUT
        assert state_of(whole, "a") is State.FAILED


async def test_nothing_starts_for_who_does_not_fit(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    async with leasing(tmp_path) as whole:
        for fields in (
            {"consumer": ConsumerManifest(accepted_protocols=["x"])},
            {"transport": "tcp"},
        ):
            with pytest.raises(RequestError) as refused:
                await have(whole, blueprint, **fields)
            assert refused.value.code is ErrorCode.INCOMPATIBLE
            assert refused.value.details is not None
            assert "compatibility" in refused.value.details
        assert len(whole.runtimes) == 0


class _Front:
    """One that may be opened, and was not."""

    stands = False
    opened = 0

    async def address(self) -> str:
        self.opened += 1
        return "http://127.0.0.1:1"


async def test_only_who_may_has_the_front_opened(tmp_path: Path) -> None:
    blueprint = SleepBlueprint("a", tmp_path)
    front = _Front()
    async with leasing(tmp_path) as whole:
        whole.open_to(front)
        with pytest.raises(RequestError, match="has no HTTP front") as refused:
            await have(whole, blueprint, transport="tcp")
        assert refused.value.code is ErrorCode.INCOMPATIBLE
        assert (len(whole.runtimes), front.opened) == (0, 0)
        front.stands = True
        ensured = await have(whole, blueprint, transport="tcp")
        assert ensured.endpoint.base_url.startswith("http://127.0.0.1:1/leases/")
        front.stands = False
        blueprint.opens_front = True
        await have(whole, blueprint, transport="tcp")
        assert front.opened == 2


def stubborn(key: str, directory: Path) -> SleepBlueprint:
    """One that no SIGINT ends, once there is a file `trapped`; it is not killed for it so soon."""
    script = f"trap '' INT; touch {directory}/trapped; while :; do sleep 0.05; done"
    blueprint = SleepBlueprint(key, directory, script=script)
    blueprint.engine.timing = replace(blueprint.engine.timing, stop_timeout_s=60.0)
    return blueprint


async def test_a_runtime_that_is_on_its_way_out_is_waited_for_and_started_anew(
    tmp_path: Path,
) -> None:
    blueprint = stubborn("a", tmp_path)
    async with leasing(tmp_path) as whole:
        await have(whole, blueprint)
        whole.keeper.connection_closed(1)
        await until((tmp_path / "trapped").exists, 30)
        blueprint.engine.script = "exec sleep 600"  # of the next one
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        whole.runtimes.stop(runtime)
        assert state_of(whole, "a") is State.DRAINING
        process = runtime.supervisor.process
        assert process is not None

        async def kill_soon() -> None:
            await trio.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_soon)
            with trio.fail_after(30):
                await have(whole, blueprint)
        assert blueprint.engine.starts == 2
        assert state_of(whole, "a") is State.READY


async def test_all_who_wait_for_one_on_its_way_out_get_it_anew(tmp_path: Path) -> None:
    blueprint = stubborn("a", tmp_path)
    async with leasing(tmp_path) as whole:
        await have(whole, blueprint)
        whole.keeper.connection_closed(1)
        await until((tmp_path / "trapped").exists, 30)
        blueprint.engine.script = "exec sleep 600"  # of the next one
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        whole.runtimes.stop(runtime)
        process = runtime.supervisor.process
        assert process is not None
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for connection in range(2, 7):
                    nursery.start_soon(have, whole, blueprint, connection)
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert state_of(whole, "a") is State.DRAINING
                os.killpg(process.pid, signal.SIGKILL)
        assert blueprint.engine.starts == 2
        assert whole.keeper.count("a") == 5


async def test_idle_ones_go_only_as_far_as_needed(tmp_path: Path) -> None:
    old, young = (SleepBlueprint(key, tmp_path, mib=40) for key in ("old", "young"))
    async with leasing(tmp_path, limits=Limits(memory_bytes=100 << 20)) as whole:
        for connection, blueprint in enumerate((old, young)):
            await have(whole, blueprint, connection)
            whole.keeper.connection_closed(connection)
        await have(whole, SleepBlueprint("new", tmp_path, mib=40))
        assert state_of(whole, "old") is State.STOPPED
        assert state_of(whole, "young") is State.READY


async def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:
        await have(whole, SleepBlueprint("a", tmp_path))
        for key, verdict in (("a", "running"), ("b", "refused")):
            told = await whole.ensure.ensure(
                SleepBlueprint(key, tmp_path), LeaseEnsure(target=key, plan=True), owner()
            )
            assert isinstance(told, EnsurePlan)
            assert told.verdict == verdict
        whole.keeper.connection_closed(1)
        told = await whole.ensure.ensure(
            SleepBlueprint("b", tmp_path), LeaseEnsure(target="b", plan=True), owner()
        )
        assert isinstance(told, EnsurePlan)
        assert (told.verdict, [one.name for one in told.evict]) == ("evicts", ["a"])
        assert state_of(whole, "a") is State.READY
        assert len(whole.runtimes) == 1


async def test_waiting_for_room_ends_with_it_or_with_the_refusal(tmp_path: Path) -> None:
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:
        await have(whole, SleepBlueprint("a", tmp_path))
        with trio.fail_after(30), pytest.raises(RequestError) as refused:
            await have(whole, SleepBlueprint("b", tmp_path), 2, wait_ms=50)
        assert refused.value.code is ErrorCode.CONFLICT

        async def release_soon() -> None:
            await trio.sleep(0.05)
            whole.keeper.connection_closed(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(release_soon)
            with trio.fail_after(30):
                await have(whole, SleepBlueprint("b", tmp_path), 2, wait_ms=60_000)
        assert state_of(whole, "a") is State.STOPPED


async def test_who_waits_for_room_gets_it_in_the_order_of_coming(tmp_path: Path) -> None:
    order: list[str] = []
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:
        await have(whole, SleepBlueprint("held", tmp_path), 1)

        async def wait(key: str, connection: int) -> None:
            await have(whole, SleepBlueprint(key, tmp_path), connection, wait_ms=60_000)
            order.append(key)
            await trio.sleep(0.02)
            whole.keeper.connection_closed(connection)

        keys = [f"r{number}" for number in range(6)]
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for connection, key in enumerate(keys, 2):
                    nursery.start_soon(wait, key, connection)
                    await trio.testing.wait_all_tasks_blocked()
                # Who does not wait does not get what the others wait for.
                whole.keeper.connection_closed(1)
                with pytest.raises(RequestError, match="waiting") as refused:
                    await have(whole, SleepBlueprint("late", tmp_path), 99)
                assert refused.value.code is ErrorCode.CONFLICT
        assert order == keys


async def test_who_gives_up_waiting_is_in_nobodys_way(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=100 << 20)
    async with leasing(tmp_path, limits=limits) as whole, trio.open_nursery() as nursery:
        await have(whole, SleepBlueprint("held", tmp_path, mib=40), 1)
        patience = trio.CancelScope()

        async def wait() -> None:
            with patience:
                await have(whole, SleepBlueprint("large", tmp_path, mib=90), 2, wait_ms=60_000)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        told = await whole.ensure.ensure(
            SleepBlueprint("large", tmp_path, mib=90),
            LeaseEnsure(target="large", plan=True),
            owner(),
        )
        assert isinstance(told, EnsurePlan)
        assert [one.name for one in told.blocked_by] == ["held"]
        # Beside the large one there is room for 10 once it has its own.
        await have(whole, SleepBlueprint("small", tmp_path, mib=10), 3)
        with pytest.raises(RequestError):
            await have(whole, SleepBlueprint("other", tmp_path, mib=20), 4)
        with trio.fail_after(30):
            async with trio.open_nursery() as inner:
                medium = SleepBlueprint("medium", tmp_path, mib=20)
                inner.start_soon(lambda: have(whole, medium, 5, wait_ms=60_000))
                await trio.testing.wait_all_tasks_blocked()
                patience.cancel()
        assert state_of(whole, "medium") is State.READY


async def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    async with leasing(tmp_path, limits=Limits(memory_bytes=1 << 20)) as whole:
        with trio.fail_after(30), pytest.raises(RequestError, match="larger than the limits"):
            await have(whole, SleepBlueprint("a", tmp_path), wait_ms=60_000)


async def test_two_that_race_for_the_last_place_do_not_both_get_it(tmp_path: Path) -> None:
    outcomes: list[str] = []
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:

        async def one(key: str, connection: int) -> None:
            try:
                await have(whole, SleepBlueprint(key, tmp_path), connection)
                outcomes.append("ready")
            except RequestError as error:
                outcomes.append(error.code.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "a", 1)
            nursery.start_soon(one, "b", 2)
        assert sorted(outcomes) == ["conflict", "ready"]


@pytest.mark.parametrize(("ttl_s", "stays"), [(0.0, False), (0.05, False), (None, True)])
async def test_idle_time_runs_from_the_last_release(
    tmp_path: Path, ttl_s: float | None, stays: bool
) -> None:
    blueprint = SleepBlueprint("a", tmp_path, idle_ttl_s=ttl_s)
    async with leasing(tmp_path) as whole:
        await have(whole, blueprint)
        await trio.sleep(0.1)
        assert state_of(whole, "a") is State.READY
        whole.keeper.connection_closed(1)
        if stays:
            await trio.sleep(0.1)
            assert state_of(whole, "a") is State.READY
        else:
            await until_state(whole, "a", State.STOPPED)


async def test_a_disk_that_takes_nothing_lets_nothing_start_and_recovers(tmp_path: Path) -> None:
    journal = failing_journal(tmp_path / "journal")
    blueprint = SleepBlueprint("a", tmp_path)
    async with leasing(tmp_path, journal=journal) as whole:
        journal.failing = True
        with pytest.raises(RequestError, match="journal") as refused:
            await have(whole, blueprint)
        assert refused.value.code is ErrorCode.BACKEND_UNAVAILABLE
        assert len(whole.keeper.table) == 0
        journal.failing = False
        await have(whole, blueprint)
        assert state_of(whole, "a") is State.READY


async def test_runtimes_that_ended_are_kept_but_not_for_ever(tmp_path: Path) -> None:
    async with leasing(tmp_path) as whole:
        for number in range(40):
            blueprint = SleepBlueprint(f"r{number}", tmp_path)
            blueprint.engine.refusal = EngineFailure(failure(Cause.BAD_OPTION, "no"))
            with pytest.raises(RequestError):
                await have(whole, blueprint)
        assert len(whole.runtimes) == 32
        assert whole.runtimes.get("r39") is not None


class OtherBlueprint(SleepBlueprint):
    """The same runtime, by a spec with other deadlines."""

    former: Former | None = None

    def make(self, hooks: Hooks, former: Former | None = None) -> Supervisor:
        self.former = former
        return super().make(hooks, former)

    def to_json(self) -> JsonObject:
        return {"ready_timeout_ms": 5}


async def test_what_ended_runs_again_as_its_next_caller_wants_it(tmp_path: Path) -> None:
    first, same = (SleepBlueprint("a", tmp_path, idle_ttl_s=0.0) for _ in range(2))
    other = OtherBlueprint("a", tmp_path)
    async with leasing(tmp_path) as whole:
        await have(whole, first)
        await have(whole, other)  # it runs, as its first caller wanted it
        assert (first.engine.starts, other.engine.starts) == (1, 0)
        whole.keeper.connection_closed(1)
        await until_state(whole, "a", State.STOPPED)
        await have(whole, same)
        assert first.engine.starts == 2
        whole.keeper.connection_closed(1)
        await until_state(whole, "a", State.STOPPED)
        ensured = await have(whole, other)
        assert other.engine.starts == 1
        assert other.former is not None
        assert other.former.key == Secret("k")
        assert ensured.endpoint.headers == {"Authorization": "Bearer k"}
        assert len(whole.runtimes) == 1


def occupied(whole: Leasing) -> set[str]:
    """Who has a process now, or is about to."""
    return {runtime.key for runtime in whole.runtimes if runtime.occupies}


async def test_a_restart_keeps_its_place(tmp_path: Path) -> None:
    # Its shell takes its time to end.
    slow = SleepBlueprint("a", tmp_path, script="trap 'sleep 0.2; exit' INT; sleep 600 & wait")
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:
        await have(whole, slow)
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        before = runtime.memory_bytes
        most: list[set[str]] = []

        async def look() -> None:
            while True:
                most.append(occupied(whole))
                assert runtime is not None
                assert runtime.memory_bytes >= min(before, 10 << 20)
                await whole.runtimes.wait_changed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            hold = whole.keeper.pinned("a", os.geteuid())
            nursery.start_soon(whole.runtimes.restart, runtime, hold)
            await until_state(whole, "a", State.DRAINING)
            with pytest.raises(RequestError) as refused:
                await have(whole, SleepBlueprint("b", tmp_path), 2)
            assert refused.value.code is ErrorCode.CONFLICT
            with pytest.raises(RequestError):
                await have(whole, SleepBlueprint("c", tmp_path), 3, wait_ms=300)
            # Who wants the same one waits for its next process.
            await have(whole, slow, 4)
            nursery.cancel_scope.cancel()
        assert set().union(*most) == {"a"}
        assert slow.engine.starts == 2


async def test_a_stop_during_a_restart_gives_the_place_away(tmp_path: Path) -> None:
    slow = SleepBlueprint("a", tmp_path, script="trap 'sleep 0.2; exit' INT; sleep 600 & wait")
    async with (
        leasing(tmp_path, limits=Limits(runtimes=1)) as whole,
        trio.open_nursery() as nursery,
    ):
        await have(whole, slow)
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        nursery.start_soon(whole.runtimes.restart, runtime, whole.keeper.pinned("a", os.geteuid()))
        await until_state(whole, "a", State.DRAINING)
        whole.keeper.runtime_gone("a")
        whole.runtimes.stop(runtime)
        with trio.fail_after(30):
            await have(whole, SleepBlueprint("b", tmp_path), 2, wait_ms=20_000)
        assert occupied(whole) == {"b"}
        assert slow.engine.starts == 1


async def test_of_two_restarts_at_once_the_place_is_kept_to_the_end(tmp_path: Path) -> None:
    slow = SleepBlueprint("a", tmp_path, script="trap 'sleep 0.2; exit' INT; sleep 600 & wait")
    async with leasing(tmp_path, limits=Limits(runtimes=1)) as whole:
        await have(whole, slow)
        runtime = whole.runtimes.get("a")
        assert runtime is not None
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    hold = whole.keeper.pinned("a", os.geteuid())
                    nursery.start_soon(whole.runtimes.restart, runtime, hold)
                    await until_state(whole, "a", State.DRAINING)
                with pytest.raises(RequestError):
                    await have(whole, SleepBlueprint("b", tmp_path), 2, wait_ms=300)
        await until_state(whole, "a", State.READY)
        assert occupied(whole) == {"a"}
        assert not runtime.restarting
        assert slow.engine.starts == 2


async def test_when_the_daemon_goes_over_nobody_waits_for_room(tmp_path: Path) -> None:
    slow = SleepBlueprint("slow", tmp_path)
    slow.engine.health = Health.LOADING
    said: dict[str, RequestError | None] = {}
    limits = Limits(runtimes=2)
    async with leasing(tmp_path, limits=limits) as whole, trio.open_nursery() as nursery:

        async def one(blueprint: SleepBlueprint, connection: int) -> None:
            try:
                await have(whole, blueprint, connection, wait_ms=60_000)
                said[blueprint.name] = None
            except RequestError as error:
                said[blueprint.name] = error

        await have(whole, SleepBlueprint("held", tmp_path), 1)
        nursery.start_soon(one, slow, 2)
        await until_state(whole, "slow", State.STARTING)
        for number in range(3, 6):
            nursery.start_soon(one, SleepBlueprint(f"r{number}", tmp_path), number)
        await trio.testing.wait_all_tasks_blocked()
        assert said == {}
        whole.hear_nobody()
        await trio.testing.wait_all_tasks_blocked()
        assert set(said) == {"r3", "r4", "r5"}
        codes = {error.code for error in said.values() if error is not None}
        assert codes == {ErrorCode.BACKEND_UNAVAILABLE}
        # Nor from then on; a start that is under way goes on.
        await one(SleepBlueprint("late", tmp_path), 7)
        late = said["late"]
        assert late is not None
        assert "upgraded" in late.message
        slow.engine.health = Health.HEALTHY
        await until_state(whole, "slow", State.READY)
        await until(lambda: "slow" in said, 30)  # its lease goes to the disk
        assert said["slow"] is None


async def test_waiters_of_one_user_are_bounded_and_sleep_through_what_is_not_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def counted(*args: Any) -> object:  # noqa: ANN401 (whatever the function takes)
        nonlocal looks
        looks += 1
        return plan_in_turn(*args)

    monkeypatch.setattr(placing, "plan_in_turn", counted)
    others = os.geteuid() + 1
    granted: list[str] = []
    async with (
        leasing(tmp_path, limits=Limits(runtimes=1)) as whole,
        trio.open_nursery() as nursery,
    ):

        async def one(number: int, uid: int) -> None:
            key = f"{uid}-{number}"
            until = trio.current_time() + 600
            with whole.keeper.pinned(key, uid):
                await whole.placing.place(
                    SleepBlueprint(key, tmp_path), Claimant(uid), wait_until=until
                )
                granted.append(key)
                await trio.sleep_forever()

        held = SleepBlueprint("held", tmp_path)
        # Each look at one that ends is a change, and how long it takes to end is not told.
        held.engine.timing = replace(held.engine.timing, health_interval_s=60.0)
        await have(whole, held, 1)
        for uid in (others, others + 1):
            for number in range(MAX_WAITING_PER_UID):
                nursery.start_soon(one, number, uid)
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises(RequestError, match="wait for room already") as full:
            await one(MAX_WAITING_PER_UID, others)
        assert full.value.code is ErrorCode.QUEUE_FULL
        with pytest.raises(RequestError, match="beside what is leased"):
            await have(whole, SleepBlueprint("impatient", tmp_path), 2)
        await trio.testing.wait_all_tasks_blocked(0.02)
        before = looks
        for _ in range(50):
            whole.runtimes.stir()
            await trio.testing.wait_all_tasks_blocked()
        assert looks == before
        whole.keeper.connection_closed(1)
        with trio.fail_after(30):
            while not granted:  # noqa: ASYNC110 (no event for it)
                await trio.sleep(0.01)
        assert len(granted) == 1
        assert looks < before + 20
        nursery.cancel_scope.cancel()
