"""The runtime machine by its table, and against any order of events."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd_daemon.engines.base import Health
from inferd_daemon.engines.failures import Cause, Failure
from inferd_daemon.supervision.runtimes.backoff import RestartPolicy
from inferd_daemon.supervision.runtimes.machine import (
    SETTLED,
    TRANSITIONS,
    WITH_PROCESS,
    KillProcess,
    MachineError,
    RuntimeMachine,
    Signal,
    SpawnProcess,
    State,
    StopProcess,
    WaitBackoff,
    diagram,
)

CRASH = Failure(Cause.CRASHED, "SIGSEGV")
MISSING = Failure(Cause.MODEL_MISSING, "no such file")


def state_of(machine: RuntimeMachine) -> State:
    """Asked through a call, so that the type checker does not hold the last answer for true."""
    return machine.state


def ready_machine() -> RuntimeMachine:
    machine = RuntimeMachine()
    assert machine.start() == [SpawnProcess()]
    assert machine.looked(Health.HEALTHY) == []
    assert machine.state is State.READY
    return machine


def test_every_state_is_reachable_and_can_be_left() -> None:
    assert {after for (_, _), after in TRANSITIONS.items()} == set(State)
    assert {before for (before, _), after in TRANSITIONS.items() if after is not before} == set(
        State
    )


def test_every_state_takes_a_stop() -> None:
    for state in State:
        assert (state, Signal.STOP) in TRANSITIONS


def test_the_diagram_shows_every_change_of_state() -> None:
    changes = {(a, e, b) for (a, e), b in TRANSITIONS.items() if a is not b}
    assert diagram().count("-->") == len(changes) + 1


def test_a_crash_is_restarted_after_a_wait() -> None:
    machine = ready_machine()
    (wait,) = machine.exited(CRASH, now=0, chance=0)
    assert wait == WaitBackoff(machine.policy.first_s)
    assert machine.state is State.RESTARTING
    assert machine.backoff_over() == [SpawnProcess()]
    assert machine.looked(Health.HEALTHY) == []
    assert (machine.state, machine.restarts) == (State.READY, 1)


def test_a_held_runtime_that_served_is_restarted_at_once_each_time() -> None:
    machine = ready_machine()
    for now in range(3):
        assert machine.exited(CRASH, now=now, chance=0, held=True, served_s=0.5) == [WaitBackoff(0)]
        machine.backoff_over()
    (wait,) = machine.exited(CRASH, now=3, chance=0, held=True)
    assert wait == WaitBackoff(machine.policy.delay(3, 0))


def test_one_that_served_for_long_begins_a_new_window() -> None:
    machine = ready_machine()
    settled_s = machine.policy.settled_s
    for now in range(3 * machine.policy.limit):
        assert machine.exited(CRASH, now=now, chance=0, served_s=settled_s) != []
        machine.backoff_over()
    assert machine.restarts == 3 * machine.policy.limit


def test_a_missing_model_is_not_tried_again_until_asked() -> None:
    machine = RuntimeMachine()
    machine.start()
    assert machine.exited(MISSING, now=0, chance=0) == []
    assert machine.state is State.FAILED
    assert machine.last_failure == MISSING
    assert machine.start() == [SpawnProcess()]


def test_the_restart_limit_fails_it_and_a_start_forgives() -> None:
    machine = RuntimeMachine(RestartPolicy(limit=2))
    machine.start()
    for now in (0, 1):
        machine.exited(CRASH, now=now, chance=0)
        machine.backoff_over()
    assert machine.exited(CRASH, now=2, chance=0) == []
    assert machine.state is State.FAILED
    machine.start()
    assert machine.exited(CRASH, now=3, chance=0) == [WaitBackoff(machine.policy.first_s)]


def test_two_missed_answers_replace_a_process_and_name_the_cause() -> None:
    machine = ready_machine()
    assert machine.looked(Health.NO_ANSWER) == []
    assert state_of(machine) is State.UNAVAILABLE
    assert machine.looked(Health.NO_ANSWER) == [KillProcess()]
    assert machine.looked(Health.NO_ANSWER) == []
    machine.exited(Failure(Cause.KILLED, "SIGKILL"), now=0, chance=0)
    assert state_of(machine) is State.RESTARTING
    assert machine.last_failure is not None
    assert machine.last_failure.cause is Cause.HUNG


def test_an_answer_between_two_misses_saves_it() -> None:
    machine = ready_machine()
    machine.looked(Health.NO_ANSWER)
    machine.looked(Health.HEALTHY)
    assert machine.looked(Health.NO_ANSWER) == []
    assert machine.state is State.UNAVAILABLE


@pytest.mark.parametrize("seen", [Health.DEGRADED, Health.LOADING])
def test_degraded_keeps_serving(seen: Health) -> None:
    machine = ready_machine()
    machine.looked(seen)
    assert machine.state is State.DEGRADED
    assert machine.serving


def test_not_ready_in_time_stops_it_for_good() -> None:
    machine = RuntimeMachine()
    machine.start()
    assert machine.not_ready_in_time(60) == [StopProcess()]
    machine.exited(Failure(Cause.KILLED, "SIGKILL"), now=0, chance=0)
    assert machine.state is State.FAILED
    assert machine.last_failure is not None
    assert machine.last_failure.cause is Cause.NOT_READY


def test_a_hang_while_loading_is_replaced() -> None:
    machine = RuntimeMachine()
    machine.start()
    assert machine.stalled() == [KillProcess()]
    machine.exited(Failure(Cause.KILLED, "SIGKILL"), now=0, chance=0)
    assert machine.state is State.RESTARTING
    assert machine.last_failure is not None
    assert machine.last_failure.cause is Cause.HUNG
    assert ready_machine().stalled() == []


def test_a_stop_is_not_a_failure() -> None:
    machine = ready_machine()
    assert machine.stop() == [StopProcess()]
    assert machine.stop() == []
    machine.exited(CRASH, now=0, chance=0)
    assert machine.state is State.STOPPED
    assert machine.last_failure is None
    assert machine.restarts == 0


def test_a_stop_ends_the_wait_for_a_restart() -> None:
    machine = ready_machine()
    machine.exited(CRASH, now=0, chance=0)
    assert machine.stop() == []
    assert machine.state is State.STOPPED


def test_a_start_ends_the_wait_for_a_restart() -> None:
    machine = ready_machine()
    machine.exited(CRASH, now=0, chance=0)
    assert machine.start() == [SpawnProcess()]
    assert machine.state is State.STARTING


def test_starting_what_runs_does_nothing() -> None:
    assert ready_machine().start() == []


def test_an_adopted_process_is_judged_by_its_first_look() -> None:
    machine = RuntimeMachine()
    assert machine.adopt() == []
    assert state_of(machine) is State.ADOPTED
    machine.looked(Health.HEALTHY)
    assert state_of(machine) is State.READY


def test_what_cannot_happen_is_an_error() -> None:
    with pytest.raises(MachineError, match="stopped takes no backoff over"):
        RuntimeMachine().backoff_over()


class AnyLife(RuleBasedStateMachine):
    """A supervisor that carries actions out, and a world that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = RuntimeMachine(RestartPolicy(limit=3, window_s=50))
        self.process = False
        self.waiting = False
        self.now = 0.0
        self.grants: list[float] = []

    def carry_out(self, actions: list[object]) -> None:
        self.waiting = self.waiting and self.machine.state is State.RESTARTING
        for action in actions:
            match action:
                case SpawnProcess():
                    assert not self.process, "two processes at once"
                    self.process, self.waiting = True, False
                case WaitBackoff(seconds):
                    assert not self.process
                    assert 0 <= seconds <= self.machine.policy.longest_s
                    self.waiting = True
                    self.grants.append(self.now)
                case StopProcess() | KillProcess():
                    assert self.process, "nothing to end"

    def recent(self) -> list[float]:
        """When it was started again within the window."""
        return [at for at in self.grants if self.now - at < self.machine.policy.window_s]

    @rule()
    def start(self) -> None:
        if self.machine.state in SETTLED:
            self.grants.clear()
        self.carry_out([*self.machine.start()])

    @rule()
    def stop(self) -> None:
        self.carry_out([*self.machine.stop()])

    @precondition(lambda self: self.process)
    @rule(health=st.sampled_from(Health))
    def look(self, health: Health) -> None:
        self.carry_out([*self.machine.looked(health)])

    @precondition(lambda self: self.process)
    @rule(
        cause=st.sampled_from(Cause),
        held=st.booleans(),
        served_s=st.none() | st.floats(0, 20),
        chance=st.floats(0, 0.99),
    )
    def die(self, cause: Cause, held: bool, served_s: float | None, chance: float) -> None:
        self.process = False
        if served_s is not None and served_s >= self.machine.policy.settled_s:
            self.grants.clear()
        why = Failure(cause, "x")
        died = self.machine.exited(why, self.now, chance, held=held, served_s=served_s)
        self.carry_out([*died])
        if cause is Cause.NO_PROCESS and len(self.recent()) > self.machine.policy.limit:
            # None of its processes died: it is tried on, as rarely as can be.
            assert died == [WaitBackoff(self.machine.policy.longest_s)]
            self.grants.pop()

    @precondition(lambda self: self.process)
    @rule()
    def time_out(self) -> None:
        self.carry_out([*self.machine.not_ready_in_time(1)])

    @precondition(lambda self: self.waiting)
    @rule()
    def wait_over(self) -> None:
        self.carry_out([*self.machine.backoff_over()])

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def state_tells_of_the_process(self) -> None:
        assert self.process == (self.machine.state in WITH_PROCESS)
        assert self.waiting == (self.machine.state is State.RESTARTING)

    @invariant()
    def restarts_are_limited(self) -> None:
        assert len(self.recent()) <= self.machine.policy.limit


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
