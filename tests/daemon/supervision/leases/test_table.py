"""The lease table against a naive model, its rights, its limits, and what it costs."""

import time
import tracemalloc
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.leases.lease import Claimant, Lease
from inferd_daemon.supervision.leases.table import LeaseLimits, LeaseTable
from inferd_proto import Bind, LeaseContext, LeaseEnsure

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE = Claimant(uid=1000, pid=10, connection=1)
BOB = Claimant(uid=1001, pid=11, connection=2)
ROOT = Claimant(uid=0, pid=1, connection=3, admin=True)
_ASKED = LeaseEnsure(target="r", bind="none")


def _ensure(**fields: object) -> LeaseEnsure:
    return replace(_ASKED, **fields)


def _code(error: pytest.ExceptionInfo[RequestError]) -> str:
    return str(error.value.code)


def test_a_lease_lives_until_its_deadline_and_no_longer() -> None:
    table = LeaseTable()
    lease = table.grant(0, "l", "k", _ensure(ttl_ms=1000), ALICE)
    assert table.get(0.999, "l", ALICE) == lease
    assert table.held(0.999, "k")
    assert table.next_deadline() == 1.0
    # Nobody called expire, and still:
    assert not table.held(1.0, "k")
    assert table.visible(1.0, ALICE) == []
    with pytest.raises(RequestError) as caught:
        table.get(1.0, "l", ALICE)
    assert _code(caught) == "not_found"
    with pytest.raises(RequestError) as caught:
        table.renew(1.0, "l", 1000, ALICE)
    assert _code(caught) == "not_found"
    assert table.expire(1.0) == [lease]
    assert (len(table), table.next_deadline()) == (0, None)


def test_renewing_counts_from_now_and_may_shorten() -> None:
    table = LeaseTable()
    table.grant(0, "l", "k", _ensure(ttl_ms=60_000), ALICE)
    assert table.renew(10, "l", 1_000, ALICE).deadline == 11
    assert table.next_deadline() == 11
    assert table.renew(10.5, "l", 90_000, ALICE).deadline == 100.5
    assert table.expire(60) == []
    assert [lease.lease_ref for lease in table.expire(100.5)] == ["l"]


def test_not_renewable() -> None:
    table = LeaseTable()
    table.grant(0, "l", "k", _ensure(renewable=False), ALICE)
    with pytest.raises(RequestError) as caught:
        table.renew(1, "l", 1000, ALICE)
    assert _code(caught) == "conflict"


def test_releasing_twice_succeeds() -> None:
    table = LeaseTable()
    lease = table.grant(0, "l", "k", _ensure(), ALICE)
    assert table.release(1, "l", ALICE) == lease
    assert table.release(1, "l", ALICE) is None
    assert table.release(1, "never was", BOB) is None


def test_another_users_lease() -> None:
    table = LeaseTable()
    table.grant(0, "l", "k", _ensure(), ALICE)
    operations: list[Callable[[], object]] = [
        lambda: table.get(1, "l", BOB),
        lambda: table.renew(1, "l", 1000, BOB),
        lambda: table.release(1, "l", BOB),
    ]
    for operation in operations:
        with pytest.raises(RequestError) as caught:
            operation()
        assert _code(caught) == "permission_denied"
    assert table.visible(1, BOB) == []
    assert len(table.visible(1, ROOT)) == 1
    assert table.renew(1, "l", 1000, ROOT).uid == ALICE.uid
    assert table.release(1, "l", ROOT) is not None


def test_what_others_may_know_of_a_holder() -> None:
    lease = LeaseTable().grant(0, "l", "k", _ensure(owner_ref="me"), ALICE)
    assert lease.holder(ALICE).owner_ref == "me"
    assert lease.holder(ROOT).lease_ref == "l"
    stranger = lease.holder(BOB)
    assert (stranger.lease_ref, stranger.owner_ref, stranger.uid) == ("", "", 1000)


def test_a_bound_lease_ends_with_its_connection_and_only_then() -> None:
    table = LeaseTable()
    table.grant(0, "bound", "k", _ensure(bind="connection", ttl_ms=None), ALICE)
    table.grant(0, "free", "k", _ensure(), ALICE)
    table.grant(0, "other", "k", _ensure(bind="connection"), BOB)
    assert table.expire(1e9) != []
    assert table.held(1e9, "k")
    assert [lease.lease_ref for lease in table.connection_closed(1)] == ["bound"]
    assert table.connection_closed(1) == []
    assert not table.held(1e9, "k")


def test_wire_form() -> None:
    table = LeaseTable()
    context = LeaseContext(run_id="run")
    lease = table.grant(5, "l", "k", _ensure(ttl_ms=2000, owner_ref="o", context=context), ALICE)
    wire = lease.to_wire(5.5)
    assert (wire.age_ms, wire.left_ms, wire.ttl_ms, wire.pid) == (500, 1500, 2000, 10)
    assert wire.context.run_id == "run"
    assert lease.to_wire(99).left_ms == 0
    bound = table.grant(5, "b", "k", _ensure(bind="connection", ttl_ms=None), ALICE)
    assert bound.to_wire(9).left_ms is None


def test_filters() -> None:
    table = LeaseTable()
    table.grant(2, "b", "k2", _ensure(owner_ref="x"), ALICE)
    table.grant(1, "a", "k1", _ensure(owner_ref="x"), BOB)
    table.grant(3, "c", "k1", _ensure(owner_ref="y"), BOB)
    table.pin(3, "implicit", "k1", 1001)

    def refs(**filters: str | int) -> list[str]:
        return [lease.lease_ref for lease in table.visible(4, ROOT, **filters)]  # type: ignore[arg-type]

    assert refs() == ["a", "b", "c"]
    assert refs(owner_ref="x") == ["a", "b"]
    assert refs(instance_key="k1") == ["a", "c"]
    assert refs(instance_key="k1", owner_ref="x") == ["a"]
    assert refs(uid=1000) == ["b"]
    assert refs(instance_key="none") == []


def test_a_request_in_flight_pins_and_nobody_renews_it() -> None:
    table = LeaseTable()
    table.pin(0, "l", "k", 1000)
    assert table.held(1e9, "k")
    with pytest.raises(RequestError, match="not renewable"):
        table.renew(1, "l", 1000, ALICE)
    assert table.end("l") is not None
    assert table.end("l") is None
    assert not table.held(0, "k")


def test_a_forced_stop_ends_the_leases() -> None:
    table = LeaseTable()
    table.grant(0, "a", "k", _ensure(), ALICE)
    table.grant(0, "b", "k", _ensure(), BOB)
    table.pin(0, "request", "k", 1000)
    assert {lease.lease_ref for lease in table.runtime_gone("k")} == {"a", "b"}
    assert table.runtime_gone("k") == []
    assert [lease.lease_ref for lease in table] == ["request"]


def test_restored_leases_keep_reference_owner_and_time() -> None:
    former = LeaseTable()
    plain = former.grant(0, "plain", "k", _ensure(ttl_ms=10_000), ALICE)
    bound = former.grant(0, "bound", "k", _ensure(bind="connection", ttl_ms=None), ALICE)
    short = former.grant(0, "short", "k", _ensure(ttl_ms=1_000), ALICE)
    pin = former.pin(0, "pin", "k", 1000)

    table = LeaseTable()
    restored = [table.restore(4, lease, grace_s=2) for lease in (plain, bound, short, pin)]
    assert [lease is not None for lease in restored] == [True, True, False, False]
    assert table.get(4, "plain", ALICE).left_ms(4) == 6000
    assert table.get(4, "bound", ALICE).connection is None
    assert table.connection_closed(1) == []
    # The owner comes back on another connection, and the lease is bound to that one.
    renewed = table.renew(5, "bound", 60_000, ALICE._replace(connection=7))
    assert renewed.connection == 7
    assert [lease.lease_ref for lease in table.connection_closed(7)] == ["bound"]


def test_a_bound_owner_that_does_not_come_back_loses_it() -> None:
    bound = LeaseTable().grant(0, "b", "k", _ensure(bind="connection", ttl_ms=None), ALICE)
    table = LeaseTable()
    table.restore(4, bound, grace_s=2)
    assert [lease.lease_ref for lease in table.expire(6)] == ["b"]


def test_while_owners_are_not_heard_nothing_ends_that_they_would_have_renewed() -> None:
    table = LeaseTable()
    table.grant(0, "kept", "k", _ensure(ttl_ms=2_000), ALICE)
    table.grant(0, "fixed", "q", _ensure(ttl_ms=2_000, renewable=False), ALICE)
    table.stand_still()
    table.grant(1, "late", "k", _ensure(ttl_ms=1_000), ALICE)
    assert table.next_deadline() == 2
    assert [lease.lease_ref for lease in table.expire(50)] == ["fixed"]
    assert table.next_deadline() is None
    assert (table.held(50, "k"), table.held(50, "q")) == (True, False)
    assert {lease.lease_ref for lease in table.visible(50, ALICE)} == {"kept", "late"}
    assert table.renew(50, "kept", 1_000, ALICE).deadline == 51
    ended = table.release(60, "kept", ALICE)
    assert ended is not None
    assert ended.lease_ref == "kept"


def test_who_comes_back_is_the_owner_of_record() -> None:
    bound = LeaseTable().grant(0, "b", "k", _ensure(bind="connection"), ALICE, pid_started=5)
    table = LeaseTable()
    table.restore(1, bound, 30)
    back = table.renew(2, "b", 60_000, ALICE._replace(pid=77, connection=9), pid_started=8)
    assert (back.pid, back.pid_started, back.connection) == (77, 8, 9)
    # Another program of the same user may renew it, and it stays whose it is.
    again = table.renew(3, "b", 60_000, ALICE._replace(pid=78, connection=10), pid_started=9)
    assert (again.pid, again.pid_started, again.connection) == (77, 8, 9)


def test_a_bound_lease_outlives_its_program_by_the_grace_alone() -> None:
    former = LeaseTable()
    asked = _ensure(bind="connection", ttl_ms=60_000)
    for ref in ("ended", "lives", "kept", "back"):
        former.grant(0, ref, "k", asked, ALICE)
    former.grant(0, "short", "k", _ensure(bind="connection", ttl_ms=5_000), ALICE)
    former.grant(0, "free", "k", _ensure(bind="none", ttl_ms=60_000), ALICE)
    table = LeaseTable()
    for lease in former:
        gone = lease.lease_ref != "lives"
        living = [1] if lease.lease_ref == "kept" else []
        table.restore(4, lease, 2, living, owner_ended=gone)
    left = {lease.lease_ref: lease.left_ms(4) for lease in table}
    rest = dict.fromkeys(("lives", "kept", "free"), 56_000)
    assert left == {"ended": 2_000, "back": 2_000, "short": 1_000, **rest}
    table.renew(5, "back", 60_000, ALICE._replace(connection=9))
    assert {lease.lease_ref for lease in table.expire(7)} == {"ended", "short"}


def test_renewing_over_another_connection_does_not_move_a_bound_lease() -> None:
    table = LeaseTable()
    table.grant(0, "b", "k", _ensure(bind="connection"), ALICE)
    table.renew(1, "b", 5000, ALICE._replace(connection=9))
    assert table.connection_closed(9) == []
    assert len(table.connection_closed(1)) == 1


def test_limits() -> None:
    table = LeaseTable(LeaseLimits(total=4, per_uid=2))
    for number in range(2):
        table.grant(0, f"a{number}", "k", _ensure(), ALICE)
    with pytest.raises(RequestError, match="uid 1000") as caught:
        table.grant(0, "a2", "k", _ensure(), ALICE)
    assert _code(caught) == "queue_full"
    for number in range(2):
        table.grant(0, f"b{number}", "k", _ensure(), BOB)
    with pytest.raises(RequestError, match="limit"):
        table.grant(0, "r", "k", _ensure(), ROOT)
    table.release(0, "a0", ALICE)
    table.grant(0, "r", "k", _ensure(), ROOT)


def test_a_reference_is_never_used_twice() -> None:
    table = LeaseTable()
    table.grant(0, "l", "k", _ensure(), ALICE)
    with pytest.raises(ValueError, match="there already"):
        table.grant(0, "l", "k", _ensure(), ALICE)


def test_a_thousand_leases_cost_at_most_five_megabytes() -> None:
    tracemalloc.start()
    try:
        table = LeaseTable()
        for number in range(1000):
            context = LeaseContext(run_id=f"run-{number}", observability={"trace": f"t{number}"})
            asked = _ensure(owner_ref=f"owner-{number}", context=context, bind="connection")
            owner = ALICE._replace(uid=1000 + number % 7, connection=number)
            table.grant(0, f"lease-{number:024}", f"key-{number % 10}", asked, owner)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 5_000_000


def test_renewing_for_ever_does_not_grow_the_heap() -> None:
    table = LeaseTable()
    for number in range(10):
        table.grant(0, f"l{number}", "k", _ensure(ttl_ms=60_000), ALICE)
    for turn in range(5000):
        table.renew(turn / 1000, f"l{turn % 10}", 60_000, ALICE)
    assert len(table._heap) < 100
    assert len(table.expire(1000)) == 10


def test_operations_take_microseconds_with_ten_thousand_leases() -> None:
    table = LeaseTable(LeaseLimits(total=20_000, per_uid=20_000))
    for number in range(10_000):
        table.grant(0, f"l{number}", f"k{number % 50}", _ensure(), ALICE)
    asked = _ensure()
    began = time.process_time()
    for turn in range(2000):
        table.grant(1, "new", "k1", asked, ALICE)
        table.renew(1, "new", 1000, ALICE)
        table.held(1, "k1")
        table.expire(1)
        table.next_deadline()
        table.release(1, "new", ALICE)
        assert turn >= 0
    each_us = (time.process_time() - began) / 2000 / 6 * 1e6
    # About 2 on the machine where this was written; a linear scan would be over 500.
    assert each_us < 100


class TableMachine(RuleBasedStateMachine):
    """Every operation on the table and on a plain list, at random times."""

    refs: Any = Bundle("refs")

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.model: list[Lease] = []
        self.now = 0.0
        self.numbers = count()

    def _alive(self) -> list[Lease]:
        return [lease for lease in self.model if lease.alive(self.now)]

    def _find(self, ref: str) -> Lease | None:
        return next((lease for lease in self._alive() if lease.lease_ref == ref), None)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        target=refs,
        key=st.sampled_from("kq"),
        ttl=st.sampled_from([1000, 2000, 3000, None]),
        bind=st.sampled_from(["none", "connection"]),
        who=st.sampled_from([ALICE, BOB, ROOT]),
        renewable=st.booleans(),
    )
    def grant(self, key: str, ttl: int | None, bind: Bind, who: Claimant, renewable: bool) -> str:
        ref = f"l{next(self.numbers)}"
        if bind == "none" and ttl is None:
            ttl = 1000
        asked = _ensure(ttl_ms=ttl, bind=bind, renewable=renewable)
        self.model.append(self.table.grant(self.now, ref, key, asked, who))
        return ref

    @rule(ref=refs, ttl=st.sampled_from([1000, 2500]), who=st.sampled_from([ALICE, BOB, ROOT]))
    def renew(self, ref: str, ttl: int, who: Claimant) -> None:
        lease = self._find(ref)
        wanted = (
            "not_found"
            if lease is None
            else "permission_denied"
            if who.uid not in (lease.uid, 0)
            else None
            if lease.renewable
            else "conflict"
        )
        try:
            renewed = self.table.renew(self.now, ref, ttl, who)
        except RequestError as error:
            got: str | None = str(error.code)
        else:
            got = None
            assert lease is not None
            assert renewed.deadline == self.now + ttl / 1000
            self.model[self.model.index(lease)] = renewed
        assert got == wanted

    @rule(ref=refs, who=st.sampled_from([ALICE, BOB, ROOT]))
    def release(self, ref: str, who: Claimant) -> None:
        lease = self._find(ref)
        try:
            ended = self.table.release(self.now, ref, who)
        except RequestError as error:
            refused: str | None = str(error.code)
        else:
            refused = None
            assert ended == lease
            self.model = [one for one in self.model if one.lease_ref != ref]
        if lease is not None:
            mine = who.admin or who.uid == lease.uid
            assert refused == (None if mine else "permission_denied")

    @rule(connection=st.sampled_from([1, 2, 3]))
    def close(self, connection: int) -> None:
        ended = self.table.connection_closed(connection)
        gone = [lease for lease in self.model if lease.connection == connection]
        assert {lease.lease_ref for lease in ended} >= {
            lease.lease_ref for lease in gone if lease.alive(self.now)
        }
        self.model = [lease for lease in self.model if lease.connection != connection]

    @rule(key=st.sampled_from("kq"))
    def stop_by_force(self, key: str) -> None:
        self.table.runtime_gone(key)
        self.model = [lease for lease in self.model if lease.instance_key != key or lease.implicit]

    @rule()
    def expire(self) -> None:
        ended = {lease.lease_ref for lease in self.table.expire(self.now)}
        assert not ended & {lease.lease_ref for lease in self._alive()}
        self.model = self._alive()
        assert len(self.table) == len(self.model)

    @rule()
    def restart(self) -> None:
        former, self.table = list(self.table), LeaseTable()
        kept = [self.table.restore(self.now, lease, grace_s=1.0) for lease in former]
        self.model = [lease for lease in kept if lease is not None]

    @invariant()
    def both_know_the_same(self) -> None:
        alive = sorted(self._alive(), key=lambda lease: lease.lease_ref)
        seen = self.table.visible(self.now, ROOT)
        assert sorted(seen, key=lambda lease: lease.lease_ref) == alive
        for key in "kq":
            assert self.table.held(self.now, key) is any(
                lease.instance_key == key for lease in alive
            )
        deadlines = [lease.deadline for lease in self.table if lease.deadline is not None]
        assert self.table.next_deadline() == min(deadlines, default=None)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_lease_survives_the_journal_encoding() -> None:
    lease = LeaseTable().grant(0, "l", "k", _ensure(), ALICE)
    assert msgspec.json.decode(msgspec.json.encode(lease), type=Lease) == lease
