"""When streams are read by a common beat, and when nobody may wait."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.transport import Beat, LoopLoad
from inferd_daemon.backends.transport.beat import BEAT_S, LOOK_EVERY


def test_a_burst_is_no_saturation_and_calm_ends_it() -> None:
    load = LoopLoad()
    assert not load.look(100.0, 50.0)
    # All busy, but for less than the window.
    assert not load.look(100.004, 50.004)
    assert load.look(100.006, 50.006)
    # The beat itself makes the load fall: half is no reason to end it.
    assert load.look(100.1, 50.05)
    assert not load.look(100.2, 50.06)


def test_idle_time_since_the_last_look_counts() -> None:
    load = LoopLoad()
    load.look(100.0, 50.0)
    assert not load.look(200.0, 50.1)


class Machine:
    """The clock of trio and a thread that has worked for `share` of it."""

    def __init__(self, share: float) -> None:
        self.share = share

    def beat(self) -> Beat:
        return Beat(trio.current_time, lambda: self.share * trio.current_time())


async def begin(beat: Beat) -> None:
    """Let it see the load."""
    for _ in range(2):
        for _ in range(LOOK_EVERY):
            await beat.wait()
        await trio.sleep(0.1)


async def test_nobody_waits_while_the_loop_has_time(autojump_clock: MockClock) -> None:
    beat = Machine(0.7).beat()
    await begin(beat)
    before = trio.current_time()
    for _ in range(3 * LOOK_EVERY):
        assert not await beat.wait()
    assert trio.current_time() == before


async def test_all_wait_for_one_beat(autojump_clock: MockClock) -> None:
    beat = Machine(0.9).beat()
    await begin(beat)
    woken: list[float] = []

    async def wait() -> None:
        assert await beat.wait()
        woken.append(trio.current_time())

    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
            await trio.sleep(BEAT_S / 10)
    assert len(woken) == 5
    assert woken == pytest.approx([before + BEAT_S] * 5)


async def test_who_leads_may_be_cancelled(autojump_clock: MockClock) -> None:
    beat = Machine(0.9).beat()
    await begin(beat)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            leader = trio.CancelScope()

            async def lead() -> None:
                with leader:
                    await beat.wait()

            nursery.start_soon(lead)
            await wait_all_tasks_blocked()
            nursery.start_soon(beat.wait)
            await wait_all_tasks_blocked()
            leader.cancel()
        assert await beat.wait()


async def test_it_ends_with_the_load(autojump_clock: MockClock) -> None:
    machine = Machine(0.9)
    beat = machine.beat()
    await begin(beat)
    assert await beat.wait()
    await trio.sleep(10)
    idle = 0.9 * trio.current_time()
    beat._busy_s = lambda: idle
    assert await beat.wait()
    await trio.sleep(10)
    assert not await beat.wait()
