"""Permits, turns and places, against a model that says the rules in the plainest way."""

import copy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd_daemon.routing.admission import UNBOUNDED, Admission, Entry, Full, Most, Place
from inferd_daemon.routing.shares import PeerKey, Share, Shares

ADMITTED, WAITING = Entry.ADMITTED, Entry.WAITING
LABELS = st.sampled_from(["anna", "bert", "cleo", "dora"])
UID = 1000
P, Q = PeerKey(UID, "p"), PeerKey(UID, "q")


class TurnTaking(RuleBasedStateMachine):
    """Comes, goes and gives up in any order; clients of one user with weights."""

    @initialize(
        permits=st.integers(1, 3),
        depth=st.integers(0, 8),
        weights=st.fixed_dictionaries({"anna": st.integers(1, 3), "bert": st.integers(1, 3)}),
    )
    def open(self, permits: int, depth: int, weights: dict[str, int]) -> None:
        shares = Shares(clients={label: Share(weight) for label, weight in weights.items()})
        self.admission = Admission(permits, depth, shares)
        self.permits, self.depth, self.weights = permits, depth, weights
        self.now = 0.0
        self.next_ticket = 0
        self.active: set[int] = set()
        self.lines: dict[str, list[int]] = {}  # label -> its tickets, labels in ring order
        self.turns: dict[str, int] = {}  # what each has left before the next one's
        self.rested: str | None = None  # the last of the lines, if it went most recently
        self.runs: dict[int, str] = {}  # of each active ticket its label
        self.passed_over: dict[int, int] = {}  # head of a line -> admissions of others since

    @property
    def waiting(self) -> list[int]:
        return [ticket for line in self.lines.values() for ticket in line]

    @rule(label=LABELS)
    def request(self, label: str) -> None:
        ticket, self.next_ticket = self.next_ticket, self.next_ticket + 1
        verdict = self.admission.request(ticket, PeerKey(UID, label), self.now)
        waiting = len(self.waiting)
        has_place = (
            waiting < self.depth
            or (self.depth > 0 and not waiting)
            or (label not in self.lines and waiting < self.depth + self.depth // 4)
        )
        if len(self.active) < self.permits:
            assert verdict is ADMITTED
            self.active.add(ticket)
            self.runs[ticket] = label
        elif not has_place:
            assert isinstance(verdict, Full)
            assert (verdict.whose, verdict.waiting) == ("route", waiting)
        else:
            assert verdict is WAITING
            if not self.lines and label in self.runs.values():
                self.rested = label
            self.lines.setdefault(label, []).append(ticket)
            if self.lines[label] == [ticket]:
                self.turns[label] = self.weights.get(label, 1)
                self.passed_over[ticket] = 0
                if self.rested is not None:
                    self.lines[self.rested] = self.lines.pop(self.rested)

    @precondition(lambda self: self.active)
    @rule(data=st.data(), took=st.floats(0, 60))
    def finish(self, data: st.DataObject, took: float) -> None:
        self.now += took
        ticket = data.draw(st.sampled_from(sorted(self.active)))
        self.active.remove(ticket)
        del self.runs[ticket]
        admitted = self.admission.release(ticket, self.now)
        is_free = len(self.active) < self.permits
        assert admitted == ([self.next_in_turn()] if self.lines and is_free else [])
        if admitted:
            self.admit(self.next_in_turn())

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.admission.withdraw(ticket)
        for label, line in list(self.lines.items()):
            if ticket in line:
                line.remove(ticket)
                self.head_changed(label)
        self.passed_over.pop(ticket, None)

    @rule(permits=st.integers(1, 3))
    def resize(self, permits: int) -> None:
        self.permits = self.admission.permits = permits
        for ticket in self.admission.admit(self.now):
            assert ticket == self.next_in_turn()
            self.admit(self.next_in_turn())

    def next_in_turn(self) -> int:
        return next(iter(self.lines.values()))[0]

    def admit(self, ticket: int) -> None:
        label, line = next(iter(self.lines.items()))
        assert line.pop(0) == ticket
        self.turns[label] -= 1
        self.rested = None
        if not line or not self.turns[label]:
            del self.lines[label]
            self.turns[label] = self.weights.get(label, 1)
            if line:
                self.lines[label] = line  # to the end of the ring
                self.rested = label
        self.active.add(ticket)
        self.runs[ticket] = label
        del self.passed_over[ticket]
        for head in self.passed_over:
            self.passed_over[head] += 1
        self.head_changed(label)

    def head_changed(self, label: str) -> None:
        line = self.lines.get(label)
        if not line:
            self.lines.pop(label, None)
            if self.rested == label:
                self.rested = None
        else:
            self.passed_over.setdefault(line[0], 0)

    def turns_until(self, ticket: int) -> int:
        """Lets the real thing run on in a copy where nobody else comes or goes."""
        quiet = copy.deepcopy(self.admission)
        running: list[object] = [*self.active]
        turn = 0
        while running:
            for admitted in quiet.release(running.pop(), self.now):
                turn += 1
                if admitted == ticket:
                    return turn
                running.append(admitted)
        raise AssertionError(f"{ticket} never had its turn")

    @invariant()
    def no_permit_is_lost(self) -> None:
        assert self.admission.active == len(self.active)
        assert self.admission.waiting == len(self.waiting) <= self.depth + self.depth // 4
        assert not self.waiting or len(self.active) >= self.permits

    @invariant()
    def positions_are_true(self) -> None:
        order = {ticket: position for position, ticket in enumerate(self.admission.order(), 1)}
        assert sorted(map(str, order)) == sorted(map(str, self.waiting))
        for ticket in self.waiting:
            position = self.admission.place(ticket).position
            assert position == order[ticket] == self.turns_until(ticket)

    @invariant()
    def nobody_starves(self) -> None:
        # at most one whole round of the three others, with at most three turns each
        assert all(count <= 9 for count in self.passed_over.values())

    @invariant()
    def who_has_nothing_here_is_forgotten(self) -> None:
        counts = self.admission.peers()
        assert all(peer.active or peer.waiting for peer in counts)
        assert sum(peer.active for peer in counts) == len(self.active)
        assert {peer.peer.client for peer in counts if peer.waiting} == set(self.lines)


TestTurnTaking = TurnTaking.TestCase
TestTurnTaking.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_peer_with_one_request_alternates_with_a_busy_one() -> None:
    admission = Admission(1, 100)
    busy, quiet = PeerKey(UID, "busy"), PeerKey(UID, "quiet")
    assert admission.request("running", busy, 0.0) is ADMITTED
    for index in range(50):
        admission.request(f"busy{index}", busy, 0.0)
    assert admission.request("single", quiet, 0.0) is WAITING
    assert admission.place("single").position == 1  # what runs was the busy one's turn
    assert admission.release("running", 1.0) == ["single"]
    assert admission.release("single", 2.0) == ["busy0"]
    assert admission.request("second", quiet, 2.0) is WAITING
    assert admission.release("busy0", 3.0) == ["second"]
    assert admission.request("third", quiet, 3.0) is WAITING
    assert admission.release("second", 4.0) == ["busy1"]


def test_estimates_follow_what_runs_took() -> None:
    admission = Admission(2, 3)
    admission.request("a", P, 0.0)
    admission.request("b", P, 0.0)
    for ticket in "cde":
        admission.request(ticket, P, 0.0)
    assert admission.place("c") == Place(1, None)
    assert admission.release("a", 4.0) == ["c"]
    assert admission.place("d") == Place(1, 2000)  # 4 s a run, two at once
    assert admission.release("b", 9.0) == ["d"]
    admission.request("f", P, 9.0)
    assert admission.place("f") == Place(2, 5000)  # 4 s and a fifth of the way to 9 s


def test_who_never_ran_says_nothing_of_how_long_runs_take() -> None:
    admission = Admission(1, 9)
    for ticket in "abcd":
        admission.request(ticket, P, 0.0)
    assert admission.release("a", 10.0) == ["b"]
    assert admission.hand_on("b", 10.0) == ["c"]
    assert admission.place("d") == Place(1, 10_000)


def test_estimates_and_bounds_are_those_that_the_waiter_has() -> None:
    shares = Shares(
        uids={7: Share(1, active=2)},
        clients={"batch": Share(1, active=1, queued=2)},
    )
    admission = Admission(8, 9, shares)
    batch, other = PeerKey(UID, "batch"), PeerKey(7, "")
    admission.request("first", Q, 0.0)
    admission.release("first", 8.0)
    verdicts = [admission.request(f"b{number}", batch, 8.0) for number in range(4)]
    assert verdicts[:3] == [ADMITTED, WAITING, WAITING]
    assert admission.place("b2") == Place(2, 16_000)  # one at once, whatever the route has
    assert admission.most("b2") == Most("client", 1)
    assert verdicts[3] == Full("client", 2, Place(3, 24_000), Most("client", 1))
    for number in range(5):
        admission.request(f"o{number}", other, 8.0)
    assert admission.place("o4") == Place(5, 12_000)  # third of its user, two at once
    assert admission.most("o4") == Most("uid", 2)


def test_full_says_how_many_wait_and_how_long() -> None:
    admission = Admission(1, 1)
    admission.request("a", P, 0.0)
    admission.request("b", P, 0.0)
    assert admission.request("c", Q, 0.0) == Full("route", 1, Place(2, None), Most("route", 1))
    assert admission.release("a", 3.0) == ["b"]
    admission.request("c", Q, 3.0)
    assert admission.request("d", Q, 3.0) == Full("route", 1, Place(2, 6000), Most("route", 1))


def test_depth_zero_never_queues() -> None:
    admission = Admission(1, 0)
    assert admission.request("a", P, 0.0) is ADMITTED
    assert isinstance(admission.request("b", P, 0.0), Full)
    assert isinstance(admission.request("b", PeerKey(2000, ""), 0.0), Full)
    assert admission.release("a", 1.0) == []
    assert admission.request("b", P, 1.0) is ADMITTED


def test_a_ticket_that_never_came_cannot_leave() -> None:
    admission = Admission(1, 1)
    with pytest.raises(KeyError):
        admission.release("nobody", 0.0)
    with pytest.raises(KeyError):
        admission.withdraw("nobody")
    with pytest.raises(KeyError):
        admission.place("nobody")
    with pytest.raises(KeyError):
        admission.most("nobody")
    assert repr(admission) == "<Admission 0 of 1 active, 0 of 1 waiting>"
    assert repr(Admission(UNBOUNDED, 1)) == "<Admission 0 active, 0 of 1 waiting>"
