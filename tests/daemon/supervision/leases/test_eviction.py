"""Plans to make room: cases by hand, and what holds for every set of runtimes."""

from collections.abc import Sequence

import pytest
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
    refusal,
    to_wire,
)
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_proto import LeaseEnsure

ALICE = Claimant(uid=1000)
BOB = Claimant(uid=1001)
MIB = 2**20


def _lease(owner: Claimant, name: str = "job") -> Lease:
    asked = LeaseEnsure(target="r", bind="none", owner_ref=name)
    return LeaseTable().grant(0, f"lease-of-{name}", "k", asked, owner)


def _load(
    name: str, mib: int, used: float, leases: Sequence[Lease] = (), *, stopping: bool = False
) -> Load:
    return Load(f"{name}-key", name, mib * MIB, used, leases, stopping)


def _names(loads: Sequence[Load]) -> list[str]:
    return [load.name for load in loads]


HELD = (_lease(ALICE),)


def test_without_limits_everything_fits() -> None:
    assert plan(2**50, Limits(), [_load("a", 1, 0)] * 99) == Admit()


def test_what_just_fits_fits() -> None:
    loads = [_load("a", 60, 0, HELD)]
    assert plan(40 * MIB, Limits(100 * MIB, 2), loads) == Admit()
    assert isinstance(plan(40 * MIB + 1, Limits(100 * MIB, 2), loads), Refuse)
    assert isinstance(plan(1, Limits(100 * MIB, 1), loads), Refuse)


def test_the_least_recently_used_idle_ones_go() -> None:
    loads = [_load("new", 30, 9), _load("held", 30, 0, HELD), _load("old", 30, 1)]
    verdict = plan(20 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, Evict)
    assert _names(verdict.loads) == ["old"]
    verdict = plan(60 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, Evict)
    assert _names(verdict.loads) == ["old", "new"]


def test_none_goes_that_could_stay() -> None:
    loads = [_load("small", 5, 0), _load("large", 80, 1)]
    verdict = plan(70 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, Evict)
    assert _names(verdict.loads) == ["large"]


def test_count_alone() -> None:
    loads = [_load("a", 0, 2), _load("b", 0, 1)]
    verdict = plan(0, Limits(None, 2), loads)
    assert isinstance(verdict, Evict)
    assert _names(verdict.loads) == ["b"]


def test_what_is_stopping_is_waited_for_before_anything_else_goes() -> None:
    loads = [_load("idle", 50, 0), _load("going", 50, 1, stopping=True)]
    verdict = plan(40 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, AwaitStopping)
    assert _names(verdict.loads) == ["going"]
    verdict = plan(60 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, Evict)
    assert _names(verdict.loads) == ["idle"]


def test_a_refusal_names_what_is_in_the_way_and_how_much_lacks() -> None:
    loads = [_load("idle", 20, 0), _load("a", 40, 1, HELD), _load("b", 40, 2, (_lease(BOB, "b"),))]
    verdict = plan(50 * MIB, Limits(100 * MIB), loads)
    assert isinstance(verdict, Refuse)
    assert verdict.missing_bytes == 30 * MIB
    assert (_names(verdict.evict), _names(verdict.blocked_by)) == (["idle"], ["a"])
    told = to_wire(verdict, 50 * MIB, Limits(100 * MIB), loads, ALICE)
    assert (told.verdict, told.free_bytes, told.missing_runtimes) == ("refused", 0, 0)
    assert told.blocked_by[0].held_by[0].owner_ref == "job"
    error = refusal(told)
    assert error.code == "conflict"
    assert "30 MiB" in error.message
    assert "leases on a" in error.message
    assert error.details is not None
    assert error.details["plan"]["blocked_by"][0]["instance_key"] == "a-key"  # type: ignore[index]


def test_a_stranger_sees_who_but_not_what() -> None:
    loads = [_load("a", 90, 1, HELD)]
    limits = Limits(100 * MIB)
    told = to_wire(plan(50 * MIB, limits, loads), 50 * MIB, limits, loads, BOB)
    holder = told.blocked_by[0].held_by[0]
    assert (holder.uid, holder.lease_ref, holder.owner_ref) == (1000, "", "")


def test_larger_than_the_limits_themselves() -> None:
    loads = [_load("a", 10, 1, HELD)]
    limits = Limits(100 * MIB)
    verdict = plan(101 * MIB, limits, loads)
    assert isinstance(verdict, Refuse)
    assert verdict.blocked_by == []
    told = to_wire(verdict, 101 * MIB, limits, loads, ALICE)
    assert "larger than the limits" in refusal(told).message


@pytest.mark.parametrize(
    ("loads", "said"),
    [([], "fits"), ([_load("a", 90, 0)], "evicts"), ([_load("a", 90, 0, HELD)], "refused")],
)
def test_wire_verdicts(loads: list[Load], said: str) -> None:
    limits = Limits(100 * MIB)
    told = to_wire(plan(50 * MIB, limits, loads), 50 * MIB, limits, loads, ALICE)
    assert told.verdict == said
    assert told.free_bytes == (100 if not loads else 10) * MIB


loads_lists = st.lists(
    st.builds(
        Load,
        instance_key=st.uuids().map(str),
        name=st.just("n"),
        memory_bytes=st.integers(0, 50),
        last_used=st.integers(0, 5).map(float),
        leases=st.sampled_from([(), HELD]),
        stopping=st.booleans(),
    ),
    max_size=8,
)
limits_any = st.builds(Limits, st.none() | st.integers(0, 120), st.none() | st.integers(0, 8))


def _fits(needed: int, limits: Limits, left: Sequence[Load]) -> bool:
    memory = sum(load.memory_bytes for load in left) + needed
    return (limits.memory_bytes is None or memory <= limits.memory_bytes) and (
        limits.runtimes is None or len(left) < limits.runtimes
    )


@given(st.integers(0, 130), limits_any, loads_lists)
def test_every_plan_is_right_and_least(needed: int, limits: Limits, loads: list[Load]) -> None:
    verdict = plan(needed, limits, loads)
    staying = [load for load in loads if not load.stopping]
    unpinned = [load for load in staying if not load.pinned]
    without_idle = [load for load in staying if load.pinned]
    match verdict:
        case Admit():
            assert _fits(needed, limits, loads)
        case AwaitStopping(going):
            assert not _fits(needed, limits, loads)
            assert all(load.stopping for load in going)
            assert _fits(needed, limits, staying)
        case Evict(going):
            assert not _fits(needed, limits, staying)
            assert all(load in unpinned for load in going)
            left = [load for load in staying if load not in going]
            assert _fits(needed, limits, left)
            assert not any(_fits(needed, limits, [*left, spared]) for spared in going)
            assert going == sorted(going, key=lambda load: (load.last_used, load.instance_key))
        case Refuse(missing_bytes, missing_runtimes, evict, blocked_by):
            assert not _fits(needed, limits, without_idle)
            assert missing_bytes or missing_runtimes
            assert len(evict) == len(unpinned)
            assert all(load.pinned and not load.stopping for load in blocked_by)
            left = [load for load in without_idle if load not in blocked_by]
            assert _fits(needed, limits, left) is (bool(blocked_by))
            if limits.memory_bytes is not None:
                memory = sum(load.memory_bytes for load in without_idle) + needed
                assert missing_bytes == max(0, memory - limits.memory_bytes)
