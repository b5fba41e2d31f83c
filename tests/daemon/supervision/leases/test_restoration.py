"""What is back after a crash, and what after an upgrade: hours by hand, and what always holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.restoration import RENEWAL_GRACE_S, Absence, returned
from inferd_daemon.supervision.leases.table import LeaseTable
from inferd_proto import Bind, LeaseEnsure


def lease(
    *, ttl_ms: int | None, bind: Bind = "connection", renewable: bool = True, granted: float = 0
) -> Lease:
    asked = LeaseEnsure(target="r", ttl_ms=ttl_ms, bind=bind, renewable=renewable)
    return LeaseTable().grant(granted, "l", "k", asked, Claimant(1000, 10, 1))


@pytest.mark.parametrize(
    ("unread_since", "left"),
    [(None, None), (7.0, None), (5.0, RENEWAL_GRACE_S)],
    ids=["after a crash", "it was over before nobody was heard", "nobody was heard"],
)
def test_time_in_which_nobody_is_heard_ends_no_lease(
    unread_since: float | None, left: float | None
) -> None:
    absence = Absence(30, frozenset({1}), unread_since)
    back = returned(20, lease(ttl_ms=6_000), absence, owner_ended=False)
    if left is None:
        assert back is None
    else:
        assert back is not None
        assert back.deadline == 20 + left
        assert back.connection == 1


def test_what_nobody_may_renew_ends_in_its_time_all_the_same() -> None:
    absence = Absence(30, frozenset({1}), 5.0)
    fixed = lease(ttl_ms=6_000, renewable=False)
    assert returned(20, fixed, absence, owner_ended=False) is None
    assert returned(5.5, fixed, absence, owner_ended=False) == fixed


def test_the_time_to_come_back_is_given_once() -> None:
    first = returned(100, lease(ttl_ms=None), Absence(30), owner_ended=False)
    assert first is not None
    assert first.deadline == 130
    second = returned(110, first, Absence(30), owner_ended=True)
    assert second == first
    assert returned(131, first, Absence(30), owner_ended=False) is None


@given(
    ttl_ms=st.none() | st.integers(1_000, 60_000),
    bind=st.sampled_from(["connection", "none"]),
    now=st.floats(0, 100),
    unread_since=st.none() | st.floats(0, 100),
    living=st.booleans(),
    ended=st.booleans(),
)
def test_nobody_loses_time_but_who_has_ended(
    ttl_ms: int | None,
    bind: Bind,
    now: float,
    unread_since: float | None,
    living: bool,
    ended: bool,
) -> None:
    if bind == "none" and ttl_ms is None:
        return
    had = lease(ttl_ms=ttl_ms, bind=bind)
    if unread_since is not None:
        unread_since = min(unread_since, now)
    absence = Absence(30, frozenset({1}) if living else (), unread_since)
    back = returned(now, had, absence, owner_ended=ended)
    heard_until = now if unread_since is None else unread_since
    assert (back is not None) == had.alive(heard_until)
    if back is None:
        return
    assert back.alive(now)
    assert replace(back, connection=1, deadline=None) == replace(had, connection=1, deadline=None)
    assert back.lost == (bind == "connection" and not living)
    if back.lost and (ended or ttl_ms is None):
        assert back.deadline is not None
        assert back.deadline <= now + 30
    elif had.deadline is None:
        assert back.deadline is None
    else:
        assert back.deadline is not None
        assert back.deadline >= had.deadline
