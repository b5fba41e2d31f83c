"""The breaker: three failures in a minute, half a minute alone, one trial."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd_daemon.config import BreakerConfig
from inferd_daemon.routing.breaker import Breaker, BreakerState, Pass

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def opened(at: float = 2.0) -> Breaker:
    breaker = Breaker(BreakerConfig())
    for now in (at - 2, at - 1, at):
        breaker.failed(now, breaker.begin(now))
    return breaker


def test_opens_at_the_third_failure_in_a_minute() -> None:
    breaker = Breaker(BreakerConfig())
    for now in (0.0, 30.0):
        breaker.failed(now, breaker.begin(now))
        assert breaker.state(now) is CLOSED
    breaker.failed(59.9, breaker.begin(59.9))
    assert breaker.state(59.9) is OPEN
    assert breaker.refusal(59.9) == "its breaker is open for another 30.0 s"
    assert breaker.retry_in(79.9) == pytest.approx(10.0)


def test_failures_of_more_than_a_minute_ago_do_not_count() -> None:
    breaker = Breaker(BreakerConfig())
    for now in (0.0, 30.0, 60.0, 90.0):
        breaker.failed(now, breaker.begin(now))
        assert breaker.state(now) is CLOSED
    assert breaker.failures(90.0) == 2
    assert breaker.failures(200.0) == 0


def test_successes_do_not_wash_failures_away() -> None:
    breaker = Breaker(BreakerConfig())
    for now in (1.0, 2.0, 3.0):
        breaker.succeeded(breaker.begin(now))
        breaker.failed(now, breaker.begin(now))
    assert breaker.state(3.0) is OPEN


def test_half_open_lets_one_through() -> None:
    breaker = opened(at=2.0)
    assert breaker.state(31.9) is OPEN
    assert breaker.state(32.0) is HALF_OPEN
    assert breaker.refusal(32.0) is None
    assert breaker.begin(32.0).trial
    assert breaker.refusal(32.0) == "its breaker is open while one request tries it"


def test_a_trial_that_is_answered_closes_and_forgets() -> None:
    breaker = opened(at=2.0)
    breaker.succeeded(breaker.begin(32.0))
    assert (breaker.state(32.0), breaker.closed, breaker.failures(32.0)) == (CLOSED, True, 0)


def test_a_trial_that_fails_opens_again_for_as_long() -> None:
    breaker = opened(at=2.0)
    breaker.failed(40.0, breaker.begin(32.0))
    assert breaker.state(69.9) is OPEN
    assert breaker.state(70.0) is HALF_OPEN


def test_a_trial_without_a_verdict_makes_room_for_another() -> None:
    breaker = opened(at=2.0)
    breaker.abandoned(breaker.begin(32.0))
    assert breaker.state(32.0) is HALF_OPEN
    assert breaker.begin(32.0).trial


def test_what_began_before_it_opened_changes_nothing() -> None:
    breaker = Breaker(BreakerConfig())
    early = breaker.begin(0.0)
    for now in (0.0, 1.0, 2.0):
        breaker.failed(now, breaker.begin(now))
    breaker.succeeded(early)
    breaker.failed(20.0, early)
    breaker.failed(20.0, early, alone=True)
    breaker.abandoned(early)
    assert breaker.state(31.9) is OPEN
    assert breaker.state(32.0) is HALF_OPEN


def test_no_failures_allowed_means_none_counted() -> None:
    breaker = Breaker(BreakerConfig(failures=0))
    for _ in range(100):
        breaker.failed(1.0, breaker.begin(1.0))
    assert breaker.closed


def test_what_ran_at_the_same_time_fails_once() -> None:
    breaker = Breaker(BreakerConfig())
    for crash in (1.0, 2.0):
        running = [breaker.begin(crash) for _ in range(10)]
        for passed in running:
            breaker.failed(crash, passed)
    assert breaker.failures(2.0) == 2
    breaker.failed(2.0, breaker.begin(2.0))  # at the same instant, but begun after the failure
    assert breaker.state(2.0) is OPEN


def test_who_fails_alone_counts_beside_others() -> None:
    breaker = Breaker(BreakerConfig())
    for passed in [breaker.begin(0.0) for _ in range(3)]:
        breaker.failed(1.0, passed, alone=True)
    assert breaker.state(1.0) is OPEN


def test_a_reset_forgets_and_what_began_before_it_proves_nothing() -> None:
    breaker = opened(at=2.0)
    trial = breaker.begin(32.0)
    breaker.reset()
    assert (breaker.state(32.0), breaker.failures(32.0)) == (CLOSED, 0)
    breaker.failed(33.0, trial)
    assert (breaker.state(33.0), breaker.failures(33.0)) == (CLOSED, 0)
    for now in (34.0, 35.0, 36.0):
        breaker.failed(now, breaker.begin(now))
    later = breaker.begin(66.0)
    breaker.succeeded(trial)
    breaker.abandoned(trial)
    assert breaker.refusal(66.0) == "its breaker is open while one request tries it"
    breaker.succeeded(later)
    assert breaker.closed


def test_says_what_it_is() -> None:
    assert repr(Breaker(BreakerConfig())) == "<Breaker closed, 0 recent failures>"
    breaker = opened(at=2.0)
    assert repr(breaker) == "<Breaker open until 32.000>"
    breaker.begin(40.0)
    assert repr(breaker) == "<Breaker open until 32.000, a trial is under way>"


class AnyOrder(RuleBasedStateMachine):
    """Requests begin and end in any order, as time goes by."""

    @initialize(failures=st.integers(1, 4))
    def build(self, failures: int) -> None:
        self.breaker = Breaker(BreakerConfig(failures=failures, window_s=10, open_s=5))
        self.now = 0.0
        self.running: list[Pass] = []
        self.last_failure = float("-inf")

    def trials(self) -> int:
        return sum(passed.trial for passed in self.running)

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        if self.breaker.refusal(self.now) is None:
            self.running.append(self.breaker.begin(self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), verdict=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def end(self, data: st.DataObject, verdict: str) -> None:
        passed = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if verdict == "failed":
            self.last_failure = self.now
            self.breaker.failed(self.now, passed)
        elif verdict == "succeeded":
            self.breaker.succeeded(passed)
        else:
            self.breaker.abandoned(passed)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.running = [passed._replace(trial=False) for passed in self.running]
        assert self.breaker.closed
        assert self.breaker.failures(self.now) == 0

    @invariant()
    def there_is_one_trial_at_most(self) -> None:
        assert self.trials() <= 1

    @invariant()
    def nobody_is_shut_out_for_longer_than_told(self) -> None:
        """Without a trial under way, a request goes through at the latest after `open_s`."""
        if not self.trials():
            assert self.breaker.refusal(self.last_failure + 5) is None
        assert self.breaker.retry_in(self.now) <= 5

    @invariant()
    def closed_lets_everyone_through(self) -> None:
        if self.breaker.state(self.now) is CLOSED:
            assert self.breaker.refusal(self.now) is None
            assert not self.trials()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
