"""Routes whose upstreams can do different things: each request waits for those that can do its."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.base import Capabilities, EmbedRequest, GenerateRequest, Readiness
from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.routing.dispatch import Dispatch
from inferd_daemon.routing.lanes import Lanes, UpstreamLane
from inferd_daemon.routing.router import LOOK_S, Route, Router
from inferd_daemon.routing.shares import PeerKey
from inferd_daemon.routing.upstream import Upstream
from inferd_proto import ErrorCode, Tool
from tests.daemon.routing.upstreams import BROKEN, COMING, READY, Told, route_of, said, upstream

PLAIN = said("hi")
TOOLS = GenerateRequest(PLAIN.messages, tools=[Tool("f", {"type": "object"})])
DOWN = BackendFault("upstream answered 502")


def with_tools(name: str, slots: int) -> Told:
    backend = Told(name, slots)
    backend.can = Capabilities(tools=True)
    return backend


def clocked(backend: Told) -> Upstream:
    return upstream(backend, trio.current_time)


class Caller:
    """Asks a route, and stays until told to go."""

    def __init__(self, route: Route, request: GenerateRequest) -> None:
        self.route = route
        self.request = request
        self.at: str | None = None
        self.code: ErrorCode | None = None
        self.dispatch = Dispatch(route, request, PeerKey(1000, ""))
        self.scope = trio.CancelScope()
        self.waits = False
        self._leave = trio.Event()

    async def run(self) -> None:
        self.waits = True
        try:
            with self.scope:
                async with self.dispatch as backend:
                    self.at = backend.name
                    self.waits = False
                    await self._leave.wait()
        except RequestError as error:
            self.code = error.code
        finally:
            self.at = None
            self.waits = False

    def leave(self) -> None:
        self._leave.set()


async def start(
    nursery: trio.Nursery, route: Route, request: GenerateRequest = PLAIN, count: int = 1
) -> list[Caller]:
    callers = [Caller(route, request) for _ in range(count)]
    for caller in callers:
        nursery.start_soon(caller.run)
        await wait_all_tasks_blocked()
    return callers


def inside(callers: list[Caller]) -> list[str | None]:
    return [caller.at for caller in callers]


@pytest.fixture
def asked() -> list[Upstream]:
    return [upstream(Told("chat", 8)), upstream(with_tools("tool", 1))]


def test_one_lane_for_all_who_can_go_to_the_same(asked: list[Upstream]) -> None:
    lanes = Lanes([[one] for one in asked])
    assert lanes.of(PLAIN) is lanes.of(said("other"))
    assert lanes.of(TOOLS) is lanes.of(TOOLS)
    assert repr(lanes.of(PLAIN)) == "<UpstreamLane [['chat'], ['tool']]>"
    assert repr(lanes.of(TOOLS)) == "<UpstreamLane [['tool']]>"
    nobody = lanes.of(EmbedRequest(["x"]))
    assert (nobody.tiers, nobody.has_room, nobody.slots) == ([], True, 1)


def test_what_an_upstream_learns_to_do_is_seen(asked: list[Upstream]) -> None:
    lanes = Lanes([asked])
    chat = asked[0].backend
    assert isinstance(chat, Told)
    assert lanes.of(TOOLS).tiers == [[asked[1]]]
    chat.can = Capabilities(tools=True)
    assert lanes.of(TOOLS) is lanes.of(PLAIN)


def test_those_who_are_in_charge_have_room_or_not(asked: list[Upstream]) -> None:
    chat, tool = asked
    lane = UpstreamLane([[chat], [tool]])
    for _ in range(8):
        chat.begin()
    assert (lane.has_room, lane.slots, lane.in_charge()) == (False, 8, [chat])
    assert isinstance(chat.backend, Told)
    assert isinstance(tool.backend, Told)
    chat.backend.told = COMING
    assert (lane.has_room, lane.slots, lane.in_charge()) == (True, 1, [tool])
    tool.backend.told = BROKEN
    assert (lane.has_room, lane.slots, lane.in_charge()) == (False, 8, (chat,))
    chat.backend.told = BROKEN
    assert lane.in_charge() == [chat]


async def test_who_waits_for_one_upstream_does_not_hold_back_from_another(
    nursery: trio.Nursery,
) -> None:
    route = route_of([upstream(Told("chat", 1))], [upstream(with_tools("tool", 4))])
    plain = await start(nursery, route, PLAIN, 3)
    tools = await start(nursery, route, TOOLS, 5)
    assert inside(plain) == ["chat", None, None]
    assert inside(tools) == ["tool"] * 4 + [None]
    assert route.permits == 5
    tools[0].leave()
    await wait_all_tasks_blocked()
    assert (tools[4].at, inside(plain)) == ("tool", ["chat", None, None])
    nursery.cancel_scope.cancel()


async def test_no_upstream_gets_more_than_it_has_slots_for(
    nursery: trio.Nursery, asked: list[Upstream]
) -> None:
    route = route_of([asked[0]], [asked[1]])
    tools = await start(nursery, route, TOOLS, 6)
    assert inside(tools) == ["tool"] + [None] * 5
    plain = await start(nursery, route, PLAIN, 4)
    assert inside(plain) == ["chat"] * 4
    assert (asked[0].in_flight, asked[1].in_flight) == (4, 1)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["able", "plain"])
async def test_a_group_of_unequals(nursery: trio.Nursery, first: str) -> None:
    able, plain = upstream(with_tools("able", 1)), upstream(Told("plain", 2))
    route = route_of([able, plain] if first == "able" else [plain, able])
    tools = await start(nursery, route, TOOLS, 3)
    assert inside(tools) == ["able", None, None]
    others = await start(nursery, route, PLAIN, 3)
    assert inside(others) == ["plain", "plain", None]
    tools[0].leave()
    await wait_all_tasks_blocked()
    assert (inside(tools), inside(others)) == ([None, "able", None], ["plain", "plain", None])
    others[0].leave()
    await wait_all_tasks_blocked()
    assert others[2].at == "plain"
    nursery.cancel_scope.cancel()


async def test_active_permits_bound_all_lanes_together(
    nursery: trio.Nursery, asked: list[Upstream]
) -> None:
    route = route_of([asked[0]], [asked[1]], permits=2)
    callers = await start(nursery, route, PLAIN, 2) + await start(nursery, route, TOOLS, 1)
    assert inside(callers) == ["chat", "chat", None]
    callers[0].leave()
    await wait_all_tasks_blocked()
    assert callers[2].at == "tool"
    assert route.permits == 2
    nursery.cancel_scope.cancel()


async def test_runs_of_a_tier_that_was_in_charge_take_no_room_of_the_one_that_is(
    nursery: trio.Nursery,
) -> None:
    first, second = Told("first", 2), Told("second", 2)
    first.told = BROKEN
    route = route_of([upstream(first)], [upstream(second)])
    before = await start(nursery, route, count=2)
    first.told = READY
    after = await start(nursery, route, count=3)
    assert inside(before + after) == ["second", "second", "first", "first", None]
    nursery.cancel_scope.cancel()


@settings(max_examples=60, deadline=None)
@given(
    grouped=st.booleans(),
    slots=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    permits=st.sampled_from([None, 2, 3]),
    steps=st.lists(st.tuples(st.sampled_from("ptxcbr"), st.integers(0, 9)), max_size=40),
)
def test_whatever_comes_and_goes(
    grouped: bool, slots: tuple[int, int], permits: int | None, steps: list[tuple[str, int]]
) -> None:
    """With tools or without they come, end, are cancelled; a backend is lost and comes back."""

    async def run() -> None:
        plain, able = Told("plain", slots[0]), with_tools("able", slots[1])
        asked = [upstream(plain), upstream(able)]
        tiers = [asked] if grouped else [[one] for one in asked]
        route = route_of(*tiers, permits=permits, queue_depth=99)
        callers: list[Caller] = []
        async with trio.open_nursery() as nursery:
            for step, which in steps:
                there = [caller for caller in callers if caller.at]
                if step in "pt":
                    callers += await start(nursery, route, PLAIN if step == "p" else TOOLS)
                elif step == "x" and there:
                    there[which % len(there)].leave()
                elif step == "c" and callers:
                    callers[which % len(callers)].scope.cancel()
                elif step in "br":
                    plain.told = BROKEN if step == "b" else READY
                    route.gate.let_in()
                await wait_all_tasks_blocked()
                assert all(one.in_flight <= one.backend.slots for one in asked)
                held = sum(caller.at is not None for caller in callers)
                assert held == sum(one.in_flight for one in asked) == route.gate.admission.active
                if permits is None or held < permits:
                    for caller in callers:
                        assert not (caller.waits and route.lanes.of(caller.request).has_room)
            for caller in callers:
                caller.leave()
        assert not any(one.in_flight for one in asked)
        assert (route.gate.admission.active, route.gate.admission.waiting) == (0, 0)
        assert not any(caller.code for caller in callers)

    trio.run(run)


async def test_who_waits_is_let_in_when_a_backend_is_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = Told("first", 4), Told("second", 1)
    first.told = BROKEN
    route = route_of([clocked(first)], [clocked(second)])
    nursery.start_soon(Router([route], None).run)
    callers = await start(nursery, route, count=4)
    await trio.sleep(100)
    assert inside(callers) == ["second", None, None, None]
    first.told = READY
    await trio.sleep(1.001 * LOOK_S)  # in one turn the two sleeps would end in any order
    assert inside(callers) == ["second", "first", "first", "first"]
    nursery.cancel_scope.cancel()


async def test_who_waits_is_let_in_when_a_breaker_lets_one_try(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = clocked(Told("first", 4)), clocked(Told("second", 1))
    route = route_of([first], [second])
    nursery.start_soon(Router([route], None).run)
    for _ in range(3):
        first.end(first.begin(), DOWN)
    opened = trio.current_time()
    await trio.sleep(0.3)
    callers = await start(nursery, route, count=4)
    assert inside(callers) == ["second", None, None, None]
    await trio.sleep_until(opened + 29.999)
    assert inside(callers) == ["second", None, None, None]
    await trio.sleep_until(opened + 30.001)
    assert inside(callers) == ["second", "first", None, None]
    callers[1].dispatch.answered()  # proof enough: nobody waits for the end of it
    await wait_all_tasks_blocked()
    assert inside(callers) == ["second", "first", "first", "first"]
    nursery.cancel_scope.cancel()


async def test_nothing_is_looked_at_while_nobody_waits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Counted(Told):
        looks = 0

        def readiness(self) -> Readiness:
            self.looks += 1
            return self.told

    backend = Counted("a", 1)
    route = route_of([clocked(backend)])
    nursery.start_soon(Router([route], None).run)
    first, second = await start(nursery, route, count=2)
    await trio.sleep(10)
    assert backend.looks >= 10
    first.leave()
    await wait_all_tasks_blocked()
    await trio.sleep(LOOK_S)
    backend.looks = 0
    await trio.sleep(1000)
    assert backend.looks == 0
    second.leave()


async def test_runs_that_never_were_leave_the_estimate_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    backend = Told("a", 1)
    route = route_of([clocked(backend)])
    callers = await start(nursery, route, count=6)
    await trio.sleep(10)
    backend.told = BROKEN
    callers[0].leave()
    await wait_all_tasks_blocked()
    assert {caller.code for caller in callers[1:]} == {ErrorCode.BACKEND_UNAVAILABLE}
    backend.told = READY
    _, waiting = await start(nursery, route, count=2)
    place = route.gate.admission.place(waiting.dispatch._permit)
    assert place == (1, 10_000)
    nursery.cancel_scope.cancel()
