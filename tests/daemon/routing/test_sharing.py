"""Routes that name the same backend: together they never have more at it than it has slots."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.routing.admission import UNBOUNDED, Admission
from inferd_daemon.routing.dispatch import Dispatch
from inferd_daemon.routing.gate import Gate
from inferd_daemon.routing.router import Route
from inferd_daemon.routing.shares import PeerKey
from inferd_daemon.routing.upstream import Upstream
from inferd_proto import ErrorCode
from tests.daemon.routing.upstreams import BROKEN, Told, said, upstream

PEER = PeerKey(1000, "test")
DOWN = BackendFault("upstream answered 502")


def routes_over(
    *tiers: list[Upstream], names: str = "xy", max_wait_ms: int | None = None
) -> list[Route]:
    return [Route(name, tiers, Gate(name, Admission(UNBOUNDED, 99), max_wait_ms)) for name in names]


class Caller:
    """Asks one route, and stays until told to go."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.scope = trio.CancelScope()
        self.at: str | None = None
        self.error: RequestError | None = None
        self._leave = trio.Event()

    async def run(self) -> None:
        try:
            with self.scope:
                async with Dispatch(self.route, said("hi"), PEER) as backend:
                    self.at = backend.name
                    await self._leave.wait()
        except RequestError as error:
            self.error = error
        finally:
            self.at = None

    def leave(self) -> None:
        self._leave.set()


async def start(nursery: trio.Nursery, *routes: Route) -> list[Caller]:
    callers = [Caller(route) for route in routes]
    for caller in callers:
        nursery.start_soon(caller.run)
        await wait_all_tasks_blocked()
    return callers


def inside(callers: list[Caller]) -> str:
    return "".join(caller.route.name for caller in callers if caller.at)


async def test_two_routes_have_no_more_slots_than_one(nursery: trio.Nursery) -> None:
    one = upstream(Told("a", 2))
    x, y = routes_over([one])
    callers = await start(nursery, x, y, x, y)
    assert inside(callers) == "xy"
    assert (one.in_flight, x.gate.admission.waiting, y.gate.admission.waiting) == (2, 1, 1)
    nursery.cancel_scope.cancel()


async def test_a_slot_goes_to_the_routes_in_turn(nursery: trio.Nursery) -> None:
    x, y = routes_over([upstream(Told("a", 1))])
    (first,) = await start(nursery, x)
    waiting = await start(nursery, *[x] * 4, *[y] * 4)
    running, served = first, ""
    for _ in range(8):
        running.leave()
        await wait_all_tasks_blocked()
        (running,) = (caller for caller in waiting if caller.at)
        waiting.remove(running)
        served += running.route.name
    running.leave()
    assert served in ("xyxyxyxy", "yxyxyxyx")


async def test_who_leaves_the_other_routes_backend_lets_the_next_in(nursery: trio.Nursery) -> None:
    """x alone waits, and nothing of x's own runs: only y's end can tell it."""
    x, y = routes_over([upstream(Told("a", 1))])
    holder, waiter = await start(nursery, y, x)
    assert [holder.at, waiter.at] == ["a", None]
    holder.leave()
    await wait_all_tasks_blocked()
    assert [holder.at, waiter.at] == [None, "a"]
    waiter.leave()


async def test_a_wait_for_another_routes_request_ends_in_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    x, y = routes_over([upstream(Told("a", 1), trio.current_time)], max_wait_ms=300)
    holder, waiter = await start(nursery, y, x)
    await trio.sleep(0.31)
    assert waiter.error is not None
    assert waiter.error.code is ErrorCode.TIMEOUT
    assert waiter.error.message == "waited 0.3 s for route x and stood at position 1"
    holder.leave()


async def test_a_turn_is_taken_in_the_instant_it_comes(nursery: trio.Nursery) -> None:
    """Before the task that waited runs, others see its slot as taken."""
    one = upstream(Told("a", 1))
    x, y = routes_over([one])
    holder, waiter = await start(nursery, x, x)
    holder.leave()
    late = Caller(y)
    nursery.start_soon(late.run)
    await wait_all_tasks_blocked()
    assert [waiter.at, late.at, one.in_flight] == ["a", None, 1]
    waiter.leave()
    await wait_all_tasks_blocked()
    assert late.at == "a"
    late.leave()


async def test_a_turn_that_comes_to_one_who_gave_up_is_handed_on(nursery: trio.Nursery) -> None:
    one = upstream(Told("a", 1))
    x, y = routes_over([one])
    holder, waiter, other = await start(nursery, x, x, y)
    holder.leave()
    waiter.scope.cancel()
    await wait_all_tasks_blocked()
    assert (other.at, one.in_flight) == ("a", 1)
    other.leave()
    await wait_all_tasks_blocked()
    assert (one.in_flight, x.gate.admission.active, y.gate.admission.active) == (0, 0, 0)


async def test_a_backend_that_is_lost_frees_nobody_from_the_error(nursery: trio.Nursery) -> None:
    backend = Told("a", 1)
    one = upstream(backend)
    x, y = routes_over([one])
    holder, *waiters = await start(nursery, x, y, x, y)
    backend.told = BROKEN
    holder.leave()
    await wait_all_tasks_blocked()
    codes = [waiter.error and waiter.error.code for waiter in waiters]
    assert codes == [ErrorCode.BACKEND_UNAVAILABLE] * 3
    assert (one.in_flight, x.gate.admission.active, y.gate.admission.active) == (0, 0, 0)


async def test_one_tries_a_backend_whose_breaker_opened(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one, two = (
        upstream(Told(name, slots), trio.current_time) for name, slots in (("a", 4), ("b", 1))
    )
    (x,) = routes_over([one], [two], names="x")
    for _ in range(3):
        one.end(one.begin(), DOWN)
    callers = await start(nursery, *[x] * 3)
    assert [caller.at for caller in callers] == ["b", None, None]
    await trio.sleep(30)
    callers += await start(nursery, x)  # it sees that there is room again
    assert [caller.at for caller in callers] == ["b", "a", None, None]
    callers[1].leave()
    await wait_all_tasks_blocked()
    assert [caller.at for caller in callers] == ["b", None, "a", "a"]
    for caller in callers:
        caller.leave()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), min_size=1, max_size=40),
)
def test_no_slot_is_lost_and_none_is_invented(slots: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        one, two = upstream(Told("a", slots)), upstream(Told("b", 1))
        x, y = routes_over([one])
        z = Route("z", [[one, two]], Gate("z", Admission(UNBOUNDED, 99)))
        by_name = {"x": x, "y": y, "z": z}
        callers: list[Caller] = []
        async with trio.open_nursery() as nursery:
            for name, action in steps:
                there = [c for c in callers if c.at]
                if action == 0 or not there:
                    callers += await start(nursery, by_name[name])
                elif action == 1:
                    there[0].leave()
                else:
                    callers[-1].scope.cancel()
                await wait_all_tasks_blocked()
                assert one.in_flight <= slots
                assert two.in_flight <= 1
                x_or_y = x.gate.admission.waiting + y.gate.admission.waiting
                assert not x_or_y or one.in_flight == slots
                assert not z.gate.admission.waiting or two.in_flight == 1
            for caller in callers:
                caller.leave()
            await wait_all_tasks_blocked()
        assert (one.in_flight, two.in_flight) == (0, 0)
        assert not any(route.gate.admission.active for route in by_name.values())

    trio.run(run)
