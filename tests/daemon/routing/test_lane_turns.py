"""Turns where not everybody can go everywhere: nobody starves, nobody is held back for nothing."""

import copy
import time
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd_daemon.routing.admission import Entry, Place
from inferd_daemon.routing.shares import PeerKey, Share, Shares
from tests.daemon.routing.rooms import Asked, House

X, Y, Z = PeerKey(1, "x"), PeerKey(2, "y"), PeerKey(1, "z")
PEERS = st.sampled_from([X, Y, Z, PeerKey(2, "w")])
LANES = st.sampled_from(["a", "b", "ab", "bc"])


class Lanes(RuleBasedStateMachine):
    """Comes, goes and gives up in any order, in rooms that differ."""

    @initialize(
        permits=st.sampled_from([1, 2, 4, 100]),
        places=st.fixed_dictionaries(dict.fromkeys("abc", st.integers(0, 2))),
        weight=st.integers(1, 3),
        most=st.sampled_from([None, 1, 2]),
    )
    def open(self, permits: int, places: dict[str, int], weight: int, most: int | None) -> None:
        shares = Shares(
            uids={1: Share(1, active=most)},
            clients={"x": Share(weight), "w": Share(1, active=most)},
        )
        self.permits = permits
        self.house = House(permits=permits, shares=shares, **places)
        self.most = most

    def at_limit(self, peer: PeerKey) -> bool:
        running = Counter(ticket.peer for ticket in self.house.where)
        of_one = running[X] + running[Z]
        if self.most is None:
            return False
        return (peer.uid == 1 and of_one >= self.most) or (
            peer.client == "w" and running[peer] >= self.most
        )

    @rule(peer=PEERS, lane=LANES)
    def ask(self, peer: PeerKey, lane: str) -> None:
        self.house.ask(peer, lane)

    @precondition(lambda self: self.house.where)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        before = list(self.house.waiting)
        ticket = data.draw(st.sampled_from(list(self.house.where)))
        self.house.choose = lambda free: data.draw(st.sampled_from(free))
        for admitted in self.house.end(ticket):
            alike = [t for t in before if (t.peer, t.lane) == (admitted.peer, admitted.lane)]
            assert admitted == alike[0]  # the order within a peer, in each lane
            before.remove(admitted)
        self.house.choose = lambda free: free[0]

    @precondition(lambda self: self.house.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.house.give_up(data.draw(st.sampled_from(self.house.waiting)))

    @rule(room=st.sampled_from("abc"), places=st.integers(0, 3))
    def change(self, room: str, places: int) -> None:
        self.house.rooms.places[room] = places
        self.house.let_in()

    @invariant()
    def nothing_is_lost(self) -> None:
        admission, house = self.house.admission, self.house
        assert (admission.active, admission.waiting) == (len(house.where), len(house.waiting))
        assert admission.active <= self.permits
        assert house.rooms.taken == Counter(house.where.values())
        assert sorted(admission.order()) == sorted(house.waiting)  # type: ignore[type-var]
        counts = {counts.peer: counts for counts in admission.peers()}
        for peer in {*counts, X, Y}:
            running = sum(ticket.peer == peer for ticket in house.where)
            waiting = sum(ticket.peer == peer for ticket in house.waiting)
            told = counts.get(peer)
            assert (told.active, told.waiting) == (running, waiting) if told else not running

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if self.house.admission.active < self.permits:
            for ticket in self.house.waiting:
                assert self.at_limit(ticket.peer) or not self.house.lane(ticket.lane).has_room

    @invariant()
    def claims_are_of_those_who_wait(self) -> None:
        everybody = self.house.admission._turns._everybody
        for node in (everybody, *everybody.children.values()):
            for child, lane in node.claims:  # type: ignore[attr-defined]
                assert child.lanes[lane]
                assert node.children[child.key] is child  # type: ignore[attr-defined]


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_who_finds_no_room_holds_back_nobody_who_does() -> None:
    house = House(a=1, b=1)
    first, second = house.ask(X, "a"), house.ask(X, "a")
    elsewhere = house.ask(X, "b")
    assert (list(house.where), house.waiting) == ([first, elsewhere], [second])
    house.ask(X, "b")
    assert house.free("a") == [second]


def test_who_is_passed_by_is_first_when_there_is_room() -> None:
    house = House(a=1, b=1)
    for lane in "ab":
        house.ask(Z, lane)
    head = house.ask(X, "a")
    others = [house.ask(Y, lane) for lane in ("b", "b", "ab", "ab")]
    assert house.free("b") == others[:1]
    assert house.free("b") == others[1:2]
    assert house.free("a") == [head]
    assert house.free("b") == others[2:3]


def test_a_limit_that_is_reached_in_one_lane_holds_in_the_others() -> None:
    house = House(shares=Shares(clients={"x": Share(1, active=1)}), a=1, b=1, c=1)
    house.ask(Y, "a")
    waiting = house.ask(X, "a")
    running = house.ask(X, "b")
    assert house.free("a") == []
    other = house.ask(Y, "a")
    assert list(house.where) == [running, other]
    assert house.end(running) == []
    assert house.free("a") == [waiting]


CROWDS = {
    # who has how many beside the one that waits for room a alone
    "its own client": {(X, "b"): 120, (Y, "ab"): 120},
    "its own client, for both": {(X, "ab"): 9, (Y, "ab"): 120},
    "another client of its user": {(Z, "b"): 120, (Y, "ab"): 120},
    "another, in its lane as well": {(Z, "a"): 120, (Z, "b"): 120, (X, "b"): 120, (Y, "ab"): 120},
    "a crowd": {(PeerKey(uid, label), "ab"): 30 for uid in (1, 2, 3) for label in "yzw"},
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_no_order_of_events_keeps_one_from_the_room_that_others_get(crowd: str) -> None:
    """Whoever decides which room gets free next may look ahead, and lets `a` get free only when it
    goes to another one. That works as often as the others have turns before, and then no more."""
    house = House(a=1, b=1)
    for room in "ab":
        house.ask(PeerKey(9, ""), room)
    others = CROWDS[crowd]
    for (peer, lane), count in others.items():
        for _ in range(count):
            house.ask(peer, lane)
    single = house.ask(X, "a")
    rivals = {peer for peer, lane in others if "a" in lane and peer != X}
    older = sum((ticket.peer, ticket.lane) == (X, "ab") for ticket in house.waiting)
    lost = 0
    for _ in range(60):
        if single in copy.deepcopy(house).free("a"):
            house.free("b")
        else:
            house.free("a")
            lost += 1
    while single not in house.free("a"):
        lost += 1
    assert lost <= older + (older + 2) * len(rivals)


def test_shares_are_even_though_one_can_go_to_fewer_rooms() -> None:
    """Two who can fill both rooms between them have one each, in whatever order these get free."""
    for order in ("ab", "ba", "aab", "bba", "abba"):
        house = House(a=1, b=1)
        for room in "ab":
            house.ask(Z, room)
        for _ in range(200):
            for peer, lane in ((X, "a"), (X, "b"), (Y, "ab")):
                house.ask(peer, lane)
        served: Counter[PeerKey] = Counter()
        for room in order * (120 // len(order)):
            served.update(ticket.peer for ticket in house.free(room))
        assert abs(served[X] - served[Y]) <= 6, order


def test_inventing_labels_wins_nothing_where_there_is_no_room() -> None:
    house = House(a=1, b=1)
    for room in "ab":
        house.ask(X, room)
    for number in range(200):
        house.ask(PeerKey(1, str(number)), "a")
        house.ask(PeerKey(2, str(number)), "b")
    for _ in range(100):
        house.free("b")  # at each a turn of the first user's is lost
    modest = house.ask(PeerKey(3, ""), "a")
    assert modest in house.free("a") + house.free("a") + house.free("a")


def test_a_claim_is_worth_one_turn() -> None:
    house = House(a=1, b=1)
    for room in "ab":
        house.ask(Z, room)
    greedy = [house.ask(X, "a") for _ in range(50)]
    for _ in range(50):
        house.ask(Y, "b")
    for _ in range(40):
        house.free("b")
    single = house.ask(Y, "a")
    served = [ticket for _ in range(4) for ticket in house.free("a")]
    assert single in served  # for 40 turns the greedy one lost it has one more
    assert [ticket for ticket in served if ticket.peer == X] == greedy[:3]


def test_a_claim_goes_with_the_last_who_waited() -> None:
    house = House(a=1, b=1)
    for room in "ab":
        house.ask(Z, room)
    gone = house.ask(X, "a")
    house.ask(Y, "b")
    house.ask(Y, "b")
    house.free("b")
    house.give_up(gone)
    late, later = house.ask(Y, "a"), house.ask(X, "a")
    assert [house.free("a"), house.free("a")] in ([[late], [later]], [[later], [late]])
    claimed = [str(lane) for _, lane in house.admission._turns._everybody.claims]
    assert "a" not in claimed


def test_the_estimate_is_of_the_lane() -> None:
    house = House(a=1, b=8)
    first = house.ask(X, "a")
    house.admission.release(first, 6.0, 0)
    house.where.clear()
    house.rooms.taken.clear()
    house.ask(X, "a")
    waiting = [house.ask(X, "a") for _ in range(3)]
    assert house.admission.place(waiting[2]) == Place(3, 18_000)
    assert house.admission.most(waiting[2]).at_once == 1


def test_a_long_queue_for_a_full_lane_costs_one_question() -> None:
    house = House(a=1, b=1)
    for number in range(10_000):
        verdict = house.admission.request(number, PeerKey(1, str(number)), 0.0, house.lane("a"))
        assert (verdict is Entry.ADMITTED) == (number == 0)
        house.rooms.taken["a"] = 1
    began = time.process_time()
    house.lane("a").asked = 0
    for number in range(1000):
        assert house.admission.admit(0.0, 1) == []
        verdict = house.admission.request(f"b{number}", X, 0.0, house.lane("b"))
        assert verdict is Entry.ADMITTED
    assert house.lane("a").asked <= 2000
    assert time.process_time() - began < 1  # a look at each would take a hundred times as long


def test_the_order_across_lanes_is_that_of_the_turns() -> None:
    house = House(a=0, b=0)
    tickets: list[Asked] = [house.ask(X, lane) for lane in "abba"]
    tickets += [house.ask(Y, lane) for lane in "ab"]
    order = list(house.admission.order())
    assert order == [tickets[0], tickets[4], tickets[1], tickets[5], tickets[2], tickets[3]]
