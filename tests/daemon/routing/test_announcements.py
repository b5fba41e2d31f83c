"""Who waits is told where, when that has changed, and not more often than a reader can use."""

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.routing.admission import Admission, Place
from inferd_daemon.routing.gate import ANNOUNCE_INTERVAL_S, Gate
from inferd_daemon.routing.shares import PeerKey

PEER = PeerKey(1000, "peer")


class Visit:
    """A request in the queue; notes what it is told and when. `slow_s` to take in each word."""

    def __init__(self, gate: Gate, peer: PeerKey = PEER, slow_s: float = 0.0) -> None:
        self.gate = gate
        self.peer = peer
        self.slow_s = slow_s
        self.scope = trio.CancelScope()
        self.told: list[tuple[float, int]] = []
        self.places: list[Place] = []
        self.inside = False
        self.leave = trio.Event()

    @property
    def positions(self) -> list[int]:
        return [position for _, position in self.told]

    async def run(self) -> None:
        with self.scope:
            async with self.gate.admitted(self.peer, self._on_queued):
                self.inside = True
                await self.leave.wait()

    async def _on_queued(self, place: Place) -> None:
        self.told.append((trio.current_time(), place.position))
        self.places.append(place)
        await trio.sleep(self.slow_s)


@pytest.fixture
async def gate(nursery: trio.Nursery) -> Gate:
    """One permit, and its announcer at work."""
    gate = Gate("r", Admission(1, 64))
    nursery.start_soon(gate.run)
    return gate


async def come(nursery: trio.Nursery, *visits: Visit) -> None:
    for visit in visits:
        nursery.start_soon(visit.run)
        await wait_all_tasks_blocked()


async def test_positions_come_down(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    visits = [Visit(gate) for _ in range(4)]
    await come(nursery, *visits)
    assert [visit.positions for visit in visits] == [[], [1], [2], [3]]
    for visit in visits:
        await trio.sleep(1)
        visit.leave.set()
    await wait_all_tasks_blocked()
    assert [visit.positions for visit in visits] == [[], [1], [2, 1], [3, 2, 1]]


async def test_estimates_come_with_them(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    visits = [Visit(gate) for _ in range(3)]
    await come(nursery, *visits)
    await trio.sleep(2)
    visits[0].leave.set()
    await trio.sleep(1)
    assert visits[2].places == [Place(2, None), Place(1, 2000)]


async def test_a_withdrawal_before_is_told(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    first, second, third = visits = [Visit(gate) for _ in range(3)]
    await come(nursery, *visits)
    second.scope.cancel()
    await trio.sleep(1)
    assert third.positions == [2, 1]
    first.leave.set()
    await wait_all_tasks_blocked()
    assert third.inside


async def test_one_who_comes_later_and_is_served_first_is_told(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    hog, waiting = Visit(gate), [Visit(gate) for _ in range(3)]
    await come(nursery, hog, *waiting)
    await come(nursery, Visit(gate, PeerKey(1001, "")))
    await trio.sleep(1)
    assert [visit.positions for visit in waiting] == [[1, 2], [2, 3], [3, 4]]


async def test_many_changes_at_once_are_one_word(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    visits = [Visit(gate) for _ in range(20)]
    await come(nursery, *visits)
    last = visits[-1]
    for visit in visits[1:15]:
        visit.scope.cancel()
        await trio.sleep(0.01)
    await trio.sleep(5)
    assert last.positions[0] == 19
    assert last.positions[-1] == 5
    assert len(last.positions) <= 3  # at the first change, and at the end of the interval
    gaps = [later - sooner for (sooner, _), (later, _) in zip(last.told[1:], last.told[2:])]  # noqa: B905
    assert all(gap >= ANNOUNCE_INTERVAL_S - 1e-6 for gap in gaps)


async def test_nothing_is_said_where_nothing_changed(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    await come(nursery, *(visits := [Visit(gate) for _ in range(3)]))
    for _ in range(5):  # they come and go behind
        behind = Visit(gate)
        await come(nursery, behind)
        behind.scope.cancel()
        await trio.sleep(1)
    assert [visit.positions for visit in visits] == [[], [1], [2]]


async def test_who_takes_words_in_slowly_gets_the_latest_and_holds_up_nobody(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    visits = [Visit(gate) for _ in range(6)]
    slow = Visit(gate, PEER, slow_s=100)
    await come(nursery, *visits, slow)
    for visit in visits[:4]:
        await trio.sleep(1)
        visit.leave.set()
    await trio.sleep(1)
    assert visits[5].positions == [5, 4, 3, 2, 1]
    assert slow.positions == [6]
    await trio.sleep(100)
    assert slow.positions == [6, 2]


async def test_a_turn_that_comes_while_a_word_is_said(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    first, slow = Visit(gate), Visit(gate, slow_s=3)
    await come(nursery, first, slow)
    first.leave.set()
    await trio.sleep(1)
    assert gate.admission.active == 1
    assert not slow.inside
    await trio.sleep(3)
    assert slow.inside
    assert slow.positions == [1]


async def test_more_permits_let_more_in(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    visits = [Visit(gate) for _ in range(4)]
    await come(nursery, *visits)
    gate.admission.permits = 3
    gate.let_in()
    await wait_all_tasks_blocked()
    assert [visit.inside for visit in visits] == [True, True, True, False]
    await trio.sleep(1)
    assert visits[3].positions == [3, 1]
    gate.admission.permits = 1
    visits[0].leave.set()
    await trio.sleep(1)
    assert not visits[3].inside
    for visit in visits[1:3]:
        visit.leave.set()
    await wait_all_tasks_blocked()
    assert visits[3].inside


async def test_nobody_who_left_is_remembered(
    nursery: trio.Nursery, gate: Gate, autojump_clock: MockClock
) -> None:
    with suppress(ConnectionResetError):
        first = Visit(gate)
        await come(nursery, first)

        async def gone(_place: Place) -> None:
            raise ConnectionResetError

        async with gate.admitted(PEER, gone):
            raise AssertionError
    assert (gate.admission.waiting, gate.admission.active) == (0, 1)
    first.leave.set()
    await wait_all_tasks_blocked()
    assert gate.admission.peers() == []
    assert not gate._listeners
