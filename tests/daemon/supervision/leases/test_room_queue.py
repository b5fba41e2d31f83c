"""Whose turn it is: cases by hand, and what holds for everybody who waits."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.supervision.leases.eviction import (
    Admit,
    AwaitStopping,
    Evict,
    Limits,
    Load,
    Refuse,
    plan,
)
from inferd_daemon.supervision.leases.lease import Claimant
from inferd_daemon.supervision.leases.room_queue import (
    Place,
    RoomQueue,
    Wants,
    plan_in_turn,
    whose_turn,
)
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_proto import LeaseEnsure

HELD = (
    LeaseTable().grant(0, "lease-a", "k", LeaseEnsure(target="r", bind="none"), Claimant(uid=1)),
)


def held(name: str, size: int) -> Load:
    return Load(name, name, size, 0.0, HELD)


def idle(name: str, size: int, used: float = 0.0) -> Load:
    return Load(name, name, size, used)


def test_the_room_that_an_earlier_one_waits_for_is_its_own() -> None:
    limits, loads = Limits(runtimes=1), [held("a", 1)]
    verdict = plan_in_turn(1, limits, loads, [held("first", 1)])
    assert isinstance(verdict, Refuse)
    # It is free now, and the first has not been woken yet.
    verdict = plan_in_turn(1, limits, [], [held("first", 1)])
    assert isinstance(verdict, Refuse)
    assert [load.instance_key for load in verdict.blocked_by] == ["first"]


def test_who_takes_nothing_from_the_earlier_ones_goes_ahead() -> None:
    # 10 in all: `a` leaves 6, the first waits for 8, which is there once `a` has gone.
    limits, loads, ahead = Limits(memory_bytes=10), [held("a", 4)], [held("first", 8)]
    assert plan_in_turn(2, limits, loads, ahead) == Admit()
    assert isinstance(plan_in_turn(3, limits, loads, ahead), Refuse)
    assert plan_in_turn(3, limits, loads, []) == Admit()


def test_what_stops_for_an_earlier_one_is_not_for_the_next() -> None:
    limits = Limits(memory_bytes=10)
    loads = [Load("old", "old", 6, 0.0, (), stopping=True), idle("warm", 4)]
    assert isinstance(plan(6, limits, loads), AwaitStopping)
    verdict = plan_in_turn(4, limits, loads, [held("first", 6)])
    assert isinstance(verdict, Evict)
    assert [load.name for load in verdict.loads] == ["warm"]
    assert isinstance(plan_in_turn(5, limits, loads, [held("first", 6)]), Refuse)


def test_who_is_ahead() -> None:
    queue = RoomQueue()
    a, b = Wants("a", "a", 1), Wants("b", "b", 2)
    with queue.joined(a) as first, queue.joined(b) as second, queue.joined(a) as third:
        assert queue.ahead_of(first) == []
        assert queue.ahead_of(second) == [a]
        assert queue.ahead_of(third) == [b]
        assert queue.ahead_of(None) == [a, b]
        assert queue.ahead_of(Place(0, b)) == []
    assert len(queue) == 0


sizes = st.integers(0, 50)
loads_of = st.lists(
    st.builds(
        Load,
        instance_key=st.uuids().map(str),
        name=st.just("n"),
        memory_bytes=sizes,
        last_used=st.integers(0, 5).map(float),
        leases=st.sampled_from([(), HELD]),
        stopping=st.booleans(),
    ),
    max_size=6,
)
ahead_of = st.lists(
    st.builds(held, st.uuids().map(str), sizes),
    max_size=3,
)
limits_any = st.builds(Limits, st.none() | st.integers(0, 120), st.none() | st.integers(0, 8))


@given(sizes, limits_any, loads_of, ahead_of)
def test_nobody_waits_for_more_because_a_later_one_was_let_in(
    needed: int, limits: Limits, loads: list[Load], ahead: list[Load]
) -> None:
    verdict = plan_in_turn(needed, limits, loads, ahead)
    if isinstance(verdict, Refuse):
        return
    if not ahead:
        assert verdict == plan(needed, limits, loads)
        return
    first = ahead[0]
    before = plan(first.memory_bytes, limits, loads)
    after = plan(first.memory_bytes, limits, [*_left(verdict, loads), held("later", needed)])
    if not isinstance(before, Refuse):
        assert not isinstance(after, Refuse)
    elif before.blocked_by:
        gone = {load.instance_key for load in before.blocked_by}
        staying = [load for load in _left(verdict, loads) if load.instance_key not in gone]
        once = plan(first.memory_bytes, limits, [*staying, held("later", needed)])
        assert not isinstance(once, Refuse)


@given(limits_any, loads_of, st.lists(sizes, max_size=6))
def test_those_are_woken_who_would_not_be_refused(
    limits: Limits, loads: list[Load], wanted: list[int]
) -> None:
    waiting = [held(f"w{number}", size) for number, size in enumerate(wanted)]
    queue = [
        (Place(number, Wants(load.instance_key, load.name, load.memory_bytes)), load)
        for number, load in enumerate(waiting)
    ]
    refused = {
        number
        for number, load in enumerate(waiting)
        if isinstance(plan_in_turn(load.memory_bytes, limits, loads, waiting[:number]), Refuse)
    }
    assert set(whose_turn(limits, loads, queue)) == set(range(len(waiting))) - refused


def test_the_first_of_those_who_want_one_runtime_speaks_for_all() -> None:
    wants = [Wants("b", "b", 1), Wants("c", "c", 1), Wants("b", "b", 1)]
    queue = [(Place(number, one), held(one.name, 1)) for number, one in enumerate(wants)]
    assert list(whose_turn(Limits(runtimes=1), [], queue)) == [0, 2]
    assert list(whose_turn(Limits(runtimes=1), [held("a", 1)], queue)) == []
    # It runs by now, whatever there is no room for.
    running = [(place, None if place.wants.name == "b" else load) for place, load in queue]
    assert list(whose_turn(Limits(runtimes=1), [held("b", 1)], running)) == [0, 2]


def _left(verdict: object, loads: Sequence[Load]) -> list[Load]:
    if isinstance(verdict, Admit):
        return list(loads)
    going = [load for load in loads if load.stopping]
    going += verdict.loads if isinstance(verdict, Evict) else []
    return [load for load in loads if load not in going]
