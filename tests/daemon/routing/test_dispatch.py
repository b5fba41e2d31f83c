"""One request from its route to the end of its answer: chosen, admitted, counted, judged."""

from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.errors import BackendFault, CallerFault, RequestError
from inferd_daemon.routing.admission import Place
from inferd_daemon.routing.dispatch import Dispatch
from inferd_daemon.routing.router import Route
from inferd_daemon.routing.shares import PeerKey
from inferd_daemon.routing.upstream import Upstream
from inferd_proto import ErrorCode
from tests.daemon.routing.upstreams import BROKEN, Told, route_of, said, upstream

PEER = PeerKey(1000, "test")
DOWN = BackendFault("upstream answered 502")


def clocked(name: str, slots: int = 1) -> Upstream:
    return upstream(Told(name, slots), trio.current_time)


async def ask(route: Route, error: BaseException | None = None, answer: str = "hi") -> str:
    """Who answered."""
    async with Dispatch(route, said(answer), PEER) as backend:
        if error is not None:
            raise error
        return backend.name


async def refused(route: Route) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await ask(route)
    return caught.value


async def hold(route: Route, leave: trio.Event, served: list[str]) -> None:
    async with Dispatch(route, said("hold"), PEER) as backend:
        served.append(backend.name)
        await leave.wait()


async def test_three_failures_open_the_breaker_and_the_next_backend_takes_over(
    autojump_clock: MockClock,
) -> None:
    route = route_of([clocked("a")], [clocked("b")])
    for _ in range(3):
        with pytest.raises(BackendFault):
            await ask(route, DOWN)
    assert await ask(route) == "b"
    await trio.sleep(29.9)
    assert await ask(route) == "b"
    await trio.sleep(0.2)
    assert await ask(route) == "a"  # the trial, which goes well
    assert await ask(route) == "a"


async def test_without_another_backend_the_request_is_refused_with_the_reason(
    autojump_clock: MockClock,
) -> None:
    route = route_of([clocked("a")])
    for _ in range(3):
        with pytest.raises(BackendFault):
            await ask(route, DOWN)
    error = await refused(route)
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.message == (
        "route r: a is not ready: its breaker is open for another 30.0 s;"
        " its last failure: upstream answered 502"
    )
    assert error.details == {"estimate_ms": 30_000}
    await trio.sleep(30)
    with pytest.raises(BackendFault, match="502"):
        await ask(route, DOWN)
    assert "30.0 s" in (await refused(route)).message


@pytest.mark.parametrize("error", [CallerFault("context exceeded"), ZeroDivisionError()])
async def test_what_is_not_the_backends_fault_opens_nothing(error: Exception) -> None:
    route = route_of([clocked("a")])
    for _ in range(5):
        with pytest.raises(type(error)):
            await ask(route, error)
    assert await ask(route) == "a"


async def test_a_trial_is_alone_until_it_is_answered(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = clocked("a", slots=4)
    route = route_of([one])
    for _ in range(3):
        one.end(one.begin(), DOWN)
    await trio.sleep(30)
    trial = Dispatch(route, said("hi"), PEER)
    async with trial:
        assert "while one request tries it" in (await refused(route)).message
        trial.answered()
        assert await ask(route) == "a"


async def test_a_cancelled_trial_lets_another_try(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = clocked("a")
    route = route_of([one])
    for _ in range(3):
        one.end(one.begin(), DOWN)
    await trio.sleep(30)
    with trio.move_on_after(1):
        await hold(route, trio.Event(), [])
    assert await ask(route) == "a"
    assert (one.in_flight, route.gate.admission.active) == (0, 0)


async def test_what_cannot_be_answered_is_refused_before_it_waits(nursery: trio.Nursery) -> None:
    backend = Told("a", 1)
    route = route_of([upstream(backend)])
    leave = trio.Event()
    nursery.start_soon(hold, route, leave, [])
    await wait_all_tasks_blocked()
    backend.told = BROKEN
    assert (await refused(route)).code is ErrorCode.BACKEND_UNAVAILABLE
    leave.set()


async def test_a_backend_that_is_lost_during_the_wait_is_not_asked(nursery: trio.Nursery) -> None:
    first, second = Told("a", 1), Told("b", 1)
    route = route_of([upstream(first)], [upstream(second)])
    served: list[str] = []
    leave = trio.Event()
    for _ in range(2):
        nursery.start_soon(hold, route, leave, served)
        await wait_all_tasks_blocked()
    first.told = BROKEN
    leave.set()
    await wait_all_tasks_blocked()
    assert served == ["a", "b"]


async def test_who_finds_no_backend_after_the_wait_hands_the_permit_on(
    nursery: trio.Nursery,
) -> None:
    backend = Told("a", 1)
    route = route_of([upstream(backend)])
    leave = trio.Event()
    nursery.start_soon(hold, route, leave, [])
    await wait_all_tasks_blocked()
    errors: list[RequestError] = []

    async def wait() -> None:
        errors.append(await refused(route))

    for _ in range(3):
        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert route.gate.admission.waiting == 3
    backend.told = BROKEN
    leave.set()
    await wait_all_tasks_blocked()
    assert [error.code for error in errors] == [ErrorCode.BACKEND_UNAVAILABLE] * 3
    assert (route.gate.admission.active, route.gate.admission.waiting) == (0, 0)


async def test_as_many_run_as_the_upstreams_have_slots_each_where_there_is_room(
    nursery: trio.Nursery,
) -> None:
    route = route_of([clocked("a", 1), clocked("b", 2)])
    served: list[str] = []
    leave = trio.Event()
    for _ in range(5):
        nursery.start_soon(hold, route, leave, served)
        await wait_all_tasks_blocked()
    assert sorted(served) == ["a", "b", "b"]
    assert route.gate.admission.waiting == 2
    leave.set()


async def test_a_conversation_is_remembered_where_it_went_well(autojump_clock: MockClock) -> None:
    route = route_of([clocked("a"), clocked("b")])
    assert await ask(route, answer="one") == "a"
    await trio.sleep(1)
    with pytest.raises(BackendFault):
        await ask(route, DOWN, answer="two")  # at b, which never finished it
    await trio.sleep(1)
    assert await ask(route, answer="one") == "a"
    await trio.sleep(1)
    assert await ask(route, answer="two") == "b"  # idle for longest


async def test_where_it_stands_is_told_to_who_asked(nursery: trio.Nursery) -> None:
    route = route_of([clocked("a")])
    leave = trio.Event()
    nursery.start_soon(hold, route, leave, [])
    await wait_all_tasks_blocked()
    told: list[Place] = []

    async def on_queued(place: Place) -> None:
        told.append(place)
        leave.set()

    async with Dispatch(route, said("hi"), PEER, on_queued) as backend:
        assert backend.name == "a"
    assert told == [Place(1, None)]


@pytest.mark.parametrize("fails", [None, DOWN, CallerFault("no"), ZeroDivisionError()])
async def test_however_it_ends_nothing_is_left(fails: Exception | None) -> None:
    one = clocked("a")
    route = route_of([one])
    with nullcontext() if fails is None else pytest.raises(type(fails)):
        await ask(route, fails)
    assert (one.in_flight, route.gate.admission.active, route.gate.admission.peers()) == (0, 0, [])
