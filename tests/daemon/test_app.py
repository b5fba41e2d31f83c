"""The end of a drain: a stop that was heard is never forgotten for an upgrade. The fault of a
backend is its own.
"""

import math
import signal

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock

from inferd_daemon.app import _drain, keep_running
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.orders import Orders


async def drained(*, finishes: bool, stops: bool) -> bool:
    """What a drain says where these happen in one turn."""
    finished, answers = trio.Event(), []
    give, signals = trio.open_memory_channel[int](math.inf)

    async def drain() -> None:
        fronts = None  # asked nothing before the deadline
        answers.append(await _drain(fronts, finished.wait, 5, Orders(signals)))  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        if finishes:
            finished.set()
        if stops:
            give.send_nowait(signal.SIGTERM)
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    ("finishes", "stops", "patient"),
    [(True, False, True), (False, True, False), (True, True, False)],
)
async def test_a_signal_counts_though_all_was_finished_in_its_turn(
    finishes: bool, stops: bool, patient: bool, mock_clock: MockClock
) -> None:
    # trio wakes what waits in any order: each of them is met in some of these tries.
    for _ in range(20):
        assert await drained(finishes=finishes, stops=stops) is patient


class FaultyBackend(MockBackend):
    """Runs, but at first as nobody foresaw."""

    runs = 0

    async def run(self) -> None:
        self.runs += 1
        if self.runs < 3:
            raise LookupError("nobody foresaw it")
        await trio.sleep(5)


async def test_a_backend_that_fails_as_nobody_foresaw_runs_again(autojump_clock: MockClock) -> None:
    backend = FaultyBackend("b", MockConfig())
    with capture_logs() as lines:
        await keep_running(backend)
    assert backend.runs == 3
    assert [line["event"] for line in lines] == ["backend b failed unexpectedly"] * 2
