"""A supervised worker that is killed, hung or crashed under load comes back; no more is lost."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends import libllama
from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.base import Engine, Health, Launch, Service, Timing
from inferd_daemon.engines.failures import Cause
from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.supervision.processes.logs import RuntimeLog
from inferd_daemon.supervision.processes.process import Process, spawn
from inferd_daemon.supervision.processes.tie import _working_tie, short_tie
from inferd_daemon.supervision.runtimes import readiness
from inferd_daemon.supervision.runtimes import supervisor as supervisor_module
from inferd_daemon.supervision.runtimes.backoff import RestartPolicy
from inferd_daemon.supervision.runtimes.machine import State
from inferd_daemon.supervision.runtimes.readiness import SILENT_LOOKS, look
from inferd_daemon.supervision.runtimes.supervisor import Supervisor
from inferd_proto import ErrorCode
from tests.support import models
from tests.support.processes import is_alive, until
from tests.support.serving import Serving, answer, ask, serving

SHELL = "/bin/sh"


@pytest.fixture
async def endless(tmp_path: Path) -> AsyncIterator[Serving]:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    async with serving(tmp_path, model) as served:
        yield served


async def until_state(supervisor: Supervisor, state: State, seconds: float = 60.0) -> None:
    with trio.fail_after(seconds):
        while supervisor.state is not state:
            await supervisor.wait_changed()


class Looks:
    """Each state that a supervisor was in, however short, and the looks at its engine so far."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.begun = 0
        self.supervisor: Supervisor | None = None

    def changed(self) -> None:
        """Its supervisor's `on_change`."""
        if self.supervisor is not None and self.states[-1:] != [self.supervisor.state]:
            self.states.append(self.supervisor.state)

    def watch(self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
        """From here on."""
        real = supervisor.engine.look

        async def look() -> Health:
            self.begun += 1
            return await real()

        monkeypatch.setattr(supervisor.engine, "look", look)
        self.supervisor = supervisor
        self.states.append(supervisor.state)

    async def until(self, state: State) -> None:
        """It was in that state."""
        assert self.supervisor is not None
        with trio.fail_after(60):
            while state not in self.states:
                await self.supervisor.wait_changed()


async def until_restarted(supervisor: Supervisor, times: int = 1) -> None:
    """It has lost so many processes; by now the next one may run."""
    with trio.fail_after(60):
        while supervisor.machine.restarts < times:
            await supervisor.wait_changed()


async def stream_until_error(served: Serving, started: trio.Event) -> list[RequestError]:
    """Generate without an end; every error that came, in the one place where errors come."""
    errors: list[RequestError] = []
    try:
        async with aclosing(served.backend.generate(ask())) as batches:
            async for _ in batches:
                started.set()
    except RequestError as error:
        errors.append(error)
    return errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_killed_worker_costs_one_error_per_request_and_a_restart(
    endless: Serving, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libllama, "NOTICE_S", 60.0)
    errors: list[list[RequestError]] = []
    started = [trio.Event() for _ in range(4)]
    pid, path = endless.pid, endless.supervisor.endpoint.uds
    ended: list[float] = []

    async def run_one(event: trio.Event) -> None:
        errors.append(await stream_until_error(endless, event))
        ended.append(trio.current_time())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for event in started:
                nursery.start_soon(run_one, event)
            for event in started:
                await event.wait()
            killed_at = trio.current_time()
            os.kill(pid, number)
    assert [len(found) for found in errors] == [1] * 4
    assert {found[0].code for found in errors} == {ErrorCode.BACKEND_UNAVAILABLE}
    assert all(number.name in found[0].message for found in errors)
    assert max(ended) - killed_at < 20
    with trio.fail_after(60):
        while endless.supervisor.state is State.READY:
            await endless.supervisor.wait_changed()
    # Asked while it restarts, a request waits for it.
    assert (await answer(endless.backend, ask(max_tokens=5))).finished.usage.output_tokens == 5
    assert trio.current_time() - killed_at < 60
    assert endless.pid != pid
    assert endless.supervisor.endpoint.uds == path
    assert endless.supervisor.status().restarts == 1


async def test_a_hung_worker_is_noticed_within_two_looks_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks()
    async with serving(tmp_path, "demo", health_interval_s=1.0, on_change=looks.changed) as served:
        pid = served.pid
        looks.watch(served.supervisor, monkeypatch)
        os.kill(pid, signal.SIGSTOP)
        await until_restarted(served.supervisor)
        # One may have been answered before the stop; two intervals' looks were not.
        assert looks.begun <= 3
        assert looks.states[:3] == [State.READY, State.UNAVAILABLE, State.RESTARTING]
        failure = served.supervisor.machine.last_failure
        assert failure is not None
        assert failure.cause is Cause.HUNG
        await until_state(served.supervisor, State.READY)
        assert served.pid != pid
        assert not is_alive(pid)


async def test_a_worker_that_is_only_busy_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def patient(engine: Service, timeout_s: float) -> Health:
        began = trio.current_time()
        seen.append(await look(engine, 30.0))
        in_time.append(trio.current_time() - began < timeout_s)
        return seen[-1]

    seen: list[Health] = []
    in_time: list[bool] = []
    monkeypatch.setattr(readiness, "look", patient)
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    async with (
        serving(tmp_path, model, health_interval_s=0.3) as served,
        trio.open_nursery() as nursery,
    ):
        pid = served.pid
        started = trio.Event()
        for _ in range(40):
            nursery.start_soon(stream_until_error, served, started)
        await started.wait()
        # On a machine that is busy itself some may be late.
        await until(lambda: len(seen) >= 4 and sum(in_time) >= 2)
        assert set(seen) == {Health.HEALTHY}
        assert served.supervisor.state is State.READY
        assert served.pid == pid
        nursery.cancel_scope.cancel()


async def test_cancelling_the_owner_in_mid_stream_ends_the_worker_at_once(tmp_path: Path) -> None:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    async with serving(tmp_path, model, stop_timeout_s=100) as served:
        pid = served.pid
        started = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream_until_error, served, started)
            await started.wait()
            nursery.cancel_scope.cancel()
        left_at = trio.current_time()
    assert trio.current_time() - left_at < 50
    assert not is_alive(pid)
    assert served.supervisor.state is State.STOPPED


async def test_a_worker_that_always_dies_is_given_up(tmp_path: Path) -> None:
    policy = RestartPolicy(first_s=0.01, limit=2)
    async with serving(tmp_path, "demo", policy=policy) as demo:
        for _ in range(3):
            with trio.fail_after(60):
                assert (await demo.supervisor.wait_settled()).ready
            os.kill(demo.pid, signal.SIGKILL)
            with trio.fail_after(60):
                while demo.supervisor.state is State.READY:
                    await demo.supervisor.wait_changed()
        assert demo.supervisor.state is State.FAILED
        with pytest.raises(BackendFault, match="SIGKILL"):
            await answer(demo.backend, ask())
        demo.supervisor.start()
        assert (await answer(demo.backend, ask())).text


async def test_many_deaths_leave_no_descriptor_and_no_process(endless: Serving) -> None:
    async def die_once() -> None:
        pid = endless.pid
        restarts = endless.supervisor.machine.restarts
        os.kill(pid, signal.SIGKILL)
        await until_restarted(endless.supervisor, restarts + 1)
        endless.supervisor.start()
        await until_state(endless.supervisor, State.READY)
        assert not is_alive(pid)

    await die_once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        await die_once()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_request_does_not_wait_longer_than_its_patience(tmp_path: Path) -> None:
    model = tmp_path / "slow.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    slow = {"ctx_size": 20_000_000, "wait": False, "patience_s": 0.3}
    async with serving(tmp_path, model, **slow) as served:  # type: ignore[arg-type]
        asked_at = trio.current_time()
        with pytest.raises(BackendFault, match="is loading its model"):
            await answer(served.backend, ask())
        assert trio.current_time() - asked_at > 0.25


class ScriptEngine(Engine):
    """Runs a shell script; healthy while the file `up` is there."""

    name = "script"

    def __init__(self, script: str, directory: Path, **timing: float) -> None:
        self.script = script
        self.directory = directory
        self.timing = Timing(**timing)
        self.endpoint = Endpoint(port=1)
        self.starts = 0
        self.discards = 0

    def prepare(self) -> Launch:
        self.starts += 1
        return Launch(
            ["sh", "-c", self.script], {"PATH": os.environ["PATH"]}, directory=self.directory
        )

    async def look(self) -> Health:
        await trio.lowlevel.checkpoint()
        return Health.HEALTHY if (self.directory / "up").exists() else Health.LOADING

    def discard(self) -> None:
        self.discards += 1


@pytest.mark.parametrize("stop_before_it_runs", [True, False])
async def test_a_stop_wins_over_a_start(tmp_path: Path, stop_before_it_runs: bool) -> None:
    engine = ScriptEngine("sleep 1000", tmp_path)
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        if not stop_before_it_runs:
            await until(lambda: engine.starts)
        supervisor.stop()
        await until_state(supervisor, State.STOPPED)
        assert engine.starts == (0 if stop_before_it_runs else 1)
        nursery.cancel_scope.cancel()


async def test_who_failed_for_a_passing_cause_is_revived(tmp_path: Path) -> None:
    engine = ScriptEngine("test -e fixed && touch up && exec sleep 1000", tmp_path)
    looks = Looks()
    supervisor = Supervisor(
        engine,
        RuntimeLog(tmp_path / "log"),
        policy=RestartPolicy(limit=0),
        revive_after_s=0.1,
        on_change=looks.changed,
    )
    looks.supervisor = supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await looks.until(State.FAILED)
        (tmp_path / "fixed").touch()
        await until_state(supervisor, State.READY)
        assert State.RESTARTING not in looks.states
        assert engine.starts >= 2
        nursery.cancel_scope.cancel()


class SilentEngine(ScriptEngine):
    """Takes connections from the start, and answers none before it is up."""

    def __init__(self, script: str, directory: Path) -> None:
        super().__init__(script, directory)
        self.timing = Timing(health_interval_s=0.2, readiness_interval_s=0.01)
        self.looks = 0

    def prepare(self) -> Launch:
        if self.starts:  # the second one answers, however late it is
            self.timing = Timing(health_interval_s=60, readiness_interval_s=0.01)
            (self.directory / "up").touch()
        return super().prepare()

    async def look(self) -> Health:
        self.looks += 1
        await until((self.directory / "up").exists)
        return await super().look()


class DegradedEngine(ScriptEngine):
    """Serves, and says from the start that it is degraded."""

    async def look(self) -> Health:
        await trio.lowlevel.checkpoint()
        return Health.DEGRADED


async def test_one_that_is_degraded_from_the_start_serves(tmp_path: Path) -> None:
    supervisor = Supervisor(
        DegradedEngine("exec sleep 1000", tmp_path), RuntimeLog(tmp_path / "log")
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.DEGRADED)
        assert supervisor.readiness().ready
        nursery.cancel_scope.cancel()


async def test_one_that_hangs_while_it_loads_is_replaced(tmp_path: Path) -> None:
    engine = SilentEngine("exec sleep 1000", tmp_path)
    supervisor = Supervisor(
        engine, RuntimeLog(tmp_path / "log"), policy=RestartPolicy(first_s=0.05, jitter=0)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_restarted(supervisor)
        assert supervisor.machine.last_failure is not None
        assert supervisor.machine.last_failure.cause is Cause.HUNG
        await until_state(supervisor, State.READY)
        assert engine.starts == 2
        nursery.cancel_scope.cancel()


async def test_one_that_is_busy_loading_is_left_alone(tmp_path: Path) -> None:
    engine = SilentEngine("while :; do :; done", tmp_path)
    engine.timing = Timing(health_interval_s=1.0, readiness_interval_s=0.01)
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until(lambda: engine.looks > SILENT_LOOKS + 1)
        (tmp_path / "up").touch()
        await until_state(supervisor, State.READY)
        assert engine.starts == 1
        nursery.cancel_scope.cancel()


class FaultyEngine(ScriptEngine):
    """Serves, but once a look at it fails as nobody foresaw."""

    faults = 1

    async def look(self) -> Health:
        if self.starts == 1 and self.faults and (self.directory / "fault").exists():
            self.faults = 0
            raise LookupError("nobody foresaw it")
        return await super().look()


async def test_a_fault_that_nobody_foresaw_counts_as_a_crash_of_this_one(tmp_path: Path) -> None:
    engine = FaultyEngine("touch up; exec sleep 1000", tmp_path, health_interval_s=0.5)
    supervisor = Supervisor(
        engine, RuntimeLog(tmp_path / "log"), policy=RestartPolicy(first_s=0.05, jitter=0)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        process = supervisor.process
        assert process is not None
        (tmp_path / "fault").touch()
        await until_restarted(supervisor)
        assert not is_alive(process.pid)
        await until_state(supervisor, State.READY)
        assert engine.starts == 2
        nursery.cancel_scope.cancel()


async def test_marks_reach_the_process_and_its_log_reaches_the_ring(tmp_path: Path) -> None:
    engine = ScriptEngine("echo mark=$INFERD_INSTANCE; touch up; exec sleep 1000", tmp_path)
    log = RuntimeLog(tmp_path / "log")
    supervisor = Supervisor(engine, log, marks={"INFERD_INSTANCE": "i-1"})
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        with trio.fail_after(60):
            while not log.lines:
                await log.wait_changed()
        assert list(log.lines) == ["mark=i-1"]
        nursery.cancel_scope.cancel()


async def test_what_callers_wrote_into_its_log_neither_decides_nor_is_told(tmp_path: Path) -> None:
    script = "touch up; while test ! -e go; do sleep 0.02; done; echo failed to allocate secret"
    engine = ScriptEngine(f"{script} >&2; kill -ABRT $$", tmp_path)
    slow = RestartPolicy(first_s=30, jitter=0)
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"), policy=slow)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        (tmp_path / "go").touch()
        await until_state(supervisor, State.RESTARTING)
        failure = supervisor.machine.last_failure
        assert failure is not None
        assert failure.cause is Cause.CRASHED
        assert "secret" not in supervisor.readiness().reason
        nursery.cancel_scope.cancel()


async def test_a_start_without_a_process_shows_nothing_of_the_run_before(tmp_path: Path) -> None:
    engine = ScriptEngine("touch up; echo hello; exec sleep 1000", tmp_path)
    log = RuntimeLog(tmp_path / "logs" / "log")
    supervisor = Supervisor(engine, log, policy=RestartPolicy(first_s=0.05, jitter=0))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        (tmp_path / "logs" / "log").unlink()
        (tmp_path / "logs" / "log").mkdir()
        assert supervisor.process is not None
        supervisor.process.signal_group(signal.SIGKILL)
        with trio.fail_after(60):
            while (last := supervisor.machine.last_failure) is None or last.cause is Cause.KILLED:
                await supervisor.wait_changed()
        assert last.cause is Cause.NO_PROCESS
        assert supervisor.last_returncode is None
        assert log.run_lines() == []
        nursery.cancel_scope.cancel()


async def test_a_held_runtime_restarts_without_a_wait(tmp_path: Path) -> None:
    engine = ScriptEngine("touch up; exec sleep 1000", tmp_path)
    slow = RestartPolicy(first_s=30, jitter=0)
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"), policy=slow, held=lambda: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        assert supervisor.process is not None
        supervisor.process.signal_group(signal.SIGKILL)
        with trio.fail_after(60):
            while engine.starts < 2:
                await supervisor.wait_changed()
        await until_state(supervisor, State.READY)
        assert engine.discards == 1
        nursery.cancel_scope.cancel()


async def test_the_short_tie_is_taken_once_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullPath(ScriptEngine):
        def prepare(self) -> Launch:
            launch = super().prepare()
            return Launch([SHELL, *launch.argv[1:]], launch.environment, directory=launch.directory)

    taken: list[object] = []

    def spawn_noting(launch: Launch, *, log_fd: int, tie: list[str] | None) -> Process:
        taken.append(tie)
        return spawn(launch, log_fd=log_fd, tie=tie)

    monkeypatch.setattr(supervisor_module, "spawn", spawn_noting)
    _working_tie.cache_clear()
    engine = FullPath("touch up; exec sleep 1000", tmp_path)
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"), held=lambda: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.READY)
        await until(lambda: _working_tie.cache_info().currsize)
        assert supervisor.process is not None
        supervisor.process.signal_group(signal.SIGKILL)
        with trio.fail_after(60):
            while engine.starts < 2:
                await supervisor.wait_changed()
        await until_state(supervisor, State.READY)
        nursery.cancel_scope.cancel()
    assert taken == [None, short_tie(SHELL)]


async def test_a_log_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    engine = ScriptEngine("touch up; exec sleep 1000", tmp_path)
    blocked = tmp_path / "blocked"
    blocked.touch()
    supervisor = Supervisor(
        engine, RuntimeLog(blocked / "log"), policy=RestartPolicy(first_s=1.0, jitter=0)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        await until_state(supervisor, State.RESTARTING)
        assert "cannot write" in supervisor.readiness().reason
        blocked.unlink()
        await until_state(supervisor, State.READY)
        nursery.cancel_scope.cancel()


async def test_an_adopted_process_is_owned_like_any_other(tmp_path: Path) -> None:
    engine = ScriptEngine("touch up; exec sleep 1000", tmp_path)
    with (tmp_path / "log").open("w") as log:
        process = spawn(engine.prepare(), log_fd=log.fileno())
    supervisor = Supervisor(engine, RuntimeLog(tmp_path / "log"))
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await supervisor.run(adopted=process)

        nursery.start_soon(run)
        await until_state(supervisor, State.READY)
        assert supervisor.status().pid == process.pid
        process.signal_group(signal.SIGKILL)
        await until_restarted(supervisor)
        await until_state(supervisor, State.READY)
        assert supervisor.status().pid != process.pid
        nursery.cancel_scope.cancel()
    assert not is_alive(process.pid)
