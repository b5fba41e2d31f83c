"""Whose fault a failure was, and what follows for the backend."""

import pytest
import trio

from inferd_daemon.errors import (
    BackendFault,
    BackendSilence,
    CallerFault,
    MachineFault,
    ModelFault,
    RequestError,
)
from inferd_daemon.routing.breaker import BreakerState
from inferd_proto import ErrorCode
from tests.daemon.routing.upstreams import BROKEN, COMING, READY, Told, upstream

DOWN = BackendFault("upstream answered 502")


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (DOWN, True),
        (BackendFault("too slow", ErrorCode.TIMEOUT), True),
        (ModelFault("broken off by a content filter"), False),
        (ModelFault("arguments are not JSON", ErrorCode.TOOL_CALL_MALFORMED), False),
        (MachineFault("cannot start a thread"), False),
        (BackendFault("images need pillow", ErrorCode.ATTACHMENT_UNSUPPORTED), False),
        (CallerFault("context exceeded"), False),
        (CallerFault("no images", ErrorCode.ATTACHMENT_UNSUPPORTED), False),
        (RequestError(ErrorCode.EMBED_UNSUPPORTED, "no embeddings"), False),
        (ConnectionResetError(), False),
        (ZeroDivisionError(), False),
        (None, False),
    ],
)
def test_only_failures_of_the_backend_count(error: Exception | None, counts: bool) -> None:
    asked = upstream(Told("a"))
    for _ in range(3):
        assert asked.readiness().ready
        asked.end(asked.begin(), error)
    assert asked.readiness().ready is not counts


async def test_cancellation_does_not_count() -> None:
    asked = upstream(Told("a"))
    for _ in range(3):
        attempt = asked.begin()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                asked.end(attempt, cancelled)
                raise
    assert asked.readiness().ready
    assert asked.in_flight == 0


def test_says_why_it_is_left_alone() -> None:
    now = 0.0
    asked = upstream(Told("a"), lambda: now)
    for _ in range(3):
        asked.end(asked.begin(), BackendFault("x" * 1000 + ": the prompt was 'secret'"))
    now = 10.0
    reason = asked.readiness().reason
    assert reason.startswith("its breaker is open for another 20.0 s; its last failure: xxx")
    assert len(reason) < 300
    now = 30.0
    assert asked.readiness().ready
    asked.begin()
    assert "while one request tries it" in asked.readiness().reason


def test_does_not_pass_on_what_an_upstream_says_of_a_request() -> None:
    asked = upstream(Told("a"))
    for _ in range(3):
        asked.end(asked.begin(), BackendFault("upstream answered 500: cannot render 'my secret'"))
    assert asked.readiness().reason.endswith("its last failure: upstream answered 500")


def test_its_own_reason_stands_while_the_breaker_is_closed() -> None:
    backend = Told("a")
    backend.told = BROKEN
    assert upstream(backend).readiness() is BROKEN


def test_who_said_that_it_is_not_ready_is_not_blamed() -> None:
    backend = Told("a")
    backend.told = COMING
    asked = upstream(backend)
    for _ in range(5):
        asked.end(asked.begin(), DOWN)
    assert asked.breaker.closed
    backend.told = READY
    attempt = asked.begin()
    backend.told = BROKEN  # it became unready under the request: that is its failure
    asked.end(attempt, DOWN)
    assert asked.breaker.failures(0.0) == 1


def test_a_crash_with_many_requests_running_is_one_failure() -> None:
    asked = upstream(Told("a"))
    for attempt in [asked.begin() for _ in range(5)]:
        asked.end(attempt, DOWN)
    assert asked.breaker.failures(0.0) == 1
    assert asked.readiness().ready


def test_requests_that_run_out_of_time_count_each() -> None:
    asked = upstream(Told("a"))
    for attempt in [asked.begin() for _ in range(3)]:
        asked.end(attempt, BackendSilence("upstream began no answer in time"))
    assert not asked.readiness().ready


def test_one_start_that_took_too_long_is_one_failure() -> None:
    asked = upstream(Told("a"))
    for attempt in [asked.begin() for _ in range(3)]:
        asked.end(attempt, BackendFault("not ready in 60 s", ErrorCode.TIMEOUT))
    assert asked.breaker.failures(0.0) == 1


def test_who_is_ready_again_is_asked_again() -> None:
    backend = Told("a")
    asked = upstream(backend)
    late = asked.begin()
    for _ in range(3):
        attempt = asked.begin()
        backend.told = COMING
        asked.end(attempt, DOWN)
        backend.told = READY
        assert asked.readiness().ready
        assert asked.breaker.failures(0.0) == 0
    for _ in range(3):
        asked.end(asked.begin(), DOWN)
    assert asked.breaker.state(0.0) is BreakerState.OPEN
    backend.told = COMING
    assert "its breaker is open" in asked.readiness().reason
    backend.told = READY
    assert asked.readiness().ready
    asked.end(late, DOWN)  # of a former life
    assert asked.breaker.failures(0.0) == 0


def test_the_first_of_an_answer_is_enough_for_a_trial() -> None:
    now = 0.0
    asked = upstream(Told("a"), lambda: now)
    for _ in range(3):
        asked.end(asked.begin(), DOWN)
    now = 30.0
    attempt = asked.begin()
    assert attempt.trial
    assert not asked.readiness().ready
    attempt = asked.answered(attempt)
    assert asked.readiness().ready
    asked.end(attempt, DOWN)  # it broke off later: one failure among three
    assert asked.breaker.failures(now) == 1
    assert asked.readiness().ready


def test_counts_what_is_in_flight() -> None:
    asked = upstream(Told("a", slots=2))
    first, second = asked.begin(), asked.begin()
    assert (asked.in_flight, asked.has_room) == (2, False)
    asked.end(first, None)
    asked.end(second, DOWN)
    assert (asked.in_flight, asked.has_room) == (0, True)
