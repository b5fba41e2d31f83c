"""The end of a drain: a stop that was heard is never forgotten for an upgrade."""

import math
import signal

import pytest
import trio
import trio.testing

from inferd_daemon.app import _drain
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
    finishes: bool, stops: bool, patient: bool
) -> None:
    # trio wakes what waits in any order: each of them is met in some of these tries.
    for _ in range(20):
        assert await drained(finishes=finishes, stops=stops) is patient
