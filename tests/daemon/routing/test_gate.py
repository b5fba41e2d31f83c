"""Waiting at the door: in any order of leaving, no permit is lost."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.errors import RequestError
from inferd_daemon.routing.admission import Admission, Place
from inferd_daemon.routing.gate import Gate
from inferd_daemon.routing.shares import PeerKey, Share, Shares
from inferd_proto import ErrorCode

PEER = PeerKey(1000, "peer")


class Visitor:
    """Holds a permit until it is told to go."""

    def __init__(self, gate: Gate, peer: PeerKey = PEER) -> None:
        self.gate = gate
        self.peer = peer
        self.scope = trio.CancelScope()
        self.inside = False
        self.places: list[Place] = []
        self.error: RequestError | None = None
        self._leave = trio.Event()

    async def run(self) -> None:
        with self.scope:
            try:
                async with self.gate.admitted(self.peer, self._queued):
                    self.inside = True
                    await self._leave.wait()
            except RequestError as error:
                self.error = error
        self.inside = False

    def leave(self) -> None:
        self._leave.set()

    async def _queued(self, place: Place) -> None:
        self.places.append(place)
        await trio.lowlevel.checkpoint()


def gate_of(permits: int = 1, depth: int = 8, max_wait_ms: int | None = None) -> Gate:
    return Gate("r", Admission(permits, depth), max_wait_ms)


async def test_waits_for_its_turn_and_is_told_its_place_once(nursery: trio.Nursery) -> None:
    gate = gate_of()
    first, second, third = (Visitor(gate) for _ in range(3))
    for visitor in (first, second, third):
        nursery.start_soon(visitor.run)
        await wait_all_tasks_blocked()
    assert (first.inside, second.inside, third.inside) == (True, False, False)
    first.leave()
    await wait_all_tasks_blocked()
    assert (first.inside, second.inside, third.inside) == (False, True, False)
    second.leave()
    third.leave()
    await wait_all_tasks_blocked()
    assert [v.places for v in (first, second, third)] == [[], [Place(1, None)], [Place(2, None)]]
    assert (gate.admission.active, gate.admission.waiting) == (0, 0)


async def test_full_is_refused_at_once(nursery: trio.Nursery) -> None:
    gate = gate_of(depth=0)
    first, second = Visitor(gate), Visitor(gate)
    nursery.start_soon(first.run)
    await wait_all_tasks_blocked()
    await second.run()
    assert second.error is not None
    assert second.error.code is ErrorCode.QUEUE_FULL
    assert second.error.message == (
        "route r is full (0 waiting, 1 at once); position 1 would be next"
    )
    first.leave()


async def test_a_cancelled_wait_leaves_no_trace(nursery: trio.Nursery) -> None:
    gate = gate_of()
    first, second, third = (Visitor(gate) for _ in range(3))
    for visitor in (first, second, third):
        nursery.start_soon(visitor.run)
        await wait_all_tasks_blocked()
    second.scope.cancel()
    await wait_all_tasks_blocked()
    assert gate.admission.waiting == 1
    first.leave()
    await wait_all_tasks_blocked()
    assert third.inside
    third.leave()


async def test_waits_no_longer_than_max_wait(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gate = gate_of(max_wait_ms=1500)
    first, second = Visitor(gate), Visitor(gate)
    nursery.start_soon(first.run)
    await wait_all_tasks_blocked()
    before = trio.current_time()
    await second.run()
    assert trio.current_time() - before == pytest.approx(1.5)
    assert second.error is not None
    assert second.error.code is ErrorCode.TIMEOUT
    assert second.error.message == ("waited 1.5 s for route r and stood at position 1")
    assert (gate.admission.active, gate.admission.waiting) == (1, 0)
    first.leave()


async def test_the_bound_that_was_hit_is_told(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    shares = Shares(peer=Share(1, active=1, queued=1))
    gate = Gate("r", Admission(8, 8, shares), 4000)
    first, second, third = (Visitor(gate) for _ in range(3))
    await first_run(gate, 6.0)
    for visitor in (first, second):
        nursery.start_soon(visitor.run)
        await wait_all_tasks_blocked()
    await third.run()
    assert third.error is not None
    assert third.error.message == (
        "this client's share of route r is full (1 waiting, 1 of this client at once);"
        " position 2 would be next, in about 12000 ms"
    )
    assert third.error.details == {"position": 2, "estimate_ms": 12_000}
    await trio.sleep(5)
    assert second.error is not None
    assert second.error.message == (
        "waited 4 s for route r (1 of this client at once) and stood at position 1,"
        " in about 6000 ms"
    )
    first.leave()


async def first_run(gate: Gate, seconds: float) -> None:
    async with gate.admitted(PEER):
        await trio.sleep(seconds)


async def test_a_turn_that_nobody_takes_is_no_run(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gate = gate_of()
    first, second, third, fourth = visitors = [Visitor(gate) for _ in range(4)]
    for visitor in visitors:
        nursery.start_soon(visitor.run)
        await wait_all_tasks_blocked()
    await trio.sleep(10)
    first.leave()
    second.scope.cancel()
    await wait_all_tasks_blocked()
    assert third.inside
    late = Visitor(gate)
    nursery.start_soon(late.run)
    await wait_all_tasks_blocked()
    assert late.places == [Place(2, 20_000)]
    for visitor in (third, fourth, late):
        visitor.leave()


def by_cancel(visitor: Visitor) -> None:
    visitor.scope.cancel()


def not_at_all(_visitor: Visitor) -> None:
    return


@pytest.mark.parametrize("give_up", [by_cancel, not_at_all])
@pytest.mark.parametrize("turn_first", [True, False])
async def test_the_turn_and_the_end_of_the_wait_in_the_same_instant(
    nursery: trio.Nursery, give_up: Callable[[Visitor], None], turn_first: bool
) -> None:
    gate = gate_of()
    first, second, third = (Visitor(gate) for _ in range(3))
    for visitor in (first, second, third):
        nursery.start_soon(visitor.run)
        await wait_all_tasks_blocked()
    steps: list[Callable[[], None]] = [first.leave, lambda: give_up(second)]
    for step in steps if turn_first else reversed(steps):
        step()
    await wait_all_tasks_blocked()
    assert gate.admission.active == 1  # the permit is second's or third's, never nobody's
    assert second.inside is (give_up is not_at_all)
    assert third.inside is (give_up is by_cancel)
    second.leave()
    third.leave()
    await wait_all_tasks_blocked()
    assert (gate.admission.active, gate.admission.waiting) == (0, 0)


async def test_the_turn_comes_in_the_instant_of_the_deadline(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = gate_of(max_wait_ms=1000)
    first, second = Visitor(gate), Visitor(gate)
    nursery.start_soon(first.run)
    await wait_all_tasks_blocked()
    nursery.start_soon(second.run)
    await wait_all_tasks_blocked()
    first.leave()
    mock_clock.jump(1.0)
    await wait_all_tasks_blocked()
    assert second.inside or second.error is not None
    second.leave()
    await wait_all_tasks_blocked()
    assert (gate.admission.active, gate.admission.waiting) == (0, 0)


async def test_an_error_inside_gives_the_permit_back() -> None:
    gate = gate_of()
    with pytest.raises(ZeroDivisionError):
        async with gate.admitted(PEER):
            raise ZeroDivisionError
    assert gate.admission.active == 0


async def test_a_client_that_cannot_be_told_its_place_leaves_the_queue(
    nursery: trio.Nursery,
) -> None:
    gate = gate_of()
    first = Visitor(gate)
    nursery.start_soon(first.run)
    await wait_all_tasks_blocked()

    async def fails(_place: Place) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with gate.admitted(PEER, fails):
            pass
    assert gate.admission.waiting == 0
    first.leave()


async def test_many_come_and_go(autojump_clock: MockClock) -> None:
    gate = gate_of(permits=3, depth=1000, max_wait_ms=400)
    most = 0
    refusals: set[ErrorCode] = set()

    async def visit(number: int) -> None:
        nonlocal most
        with trio.move_on_after(0.05 * (number % 17)):
            try:
                async with gate.admitted(PeerKey(number % 5, "")):
                    most = max(most, gate.admission.active)
                    await trio.sleep(0.01 * (number % 7))
            except RequestError as error:
                refusals.add(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(visit, number)
    assert (most, refusals) == (3, {ErrorCode.TIMEOUT})
    assert (gate.admission.active, gate.admission.waiting) == (0, 0)
