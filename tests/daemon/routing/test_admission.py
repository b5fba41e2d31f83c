"""Permits, turns and places, against a model that says the rules in the plainest way."""

import copy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd_daemon.routing.admission import Admission, Admitted, Full, Queued

PEERS = st.sampled_from(["anna", "bert", "cleo", "dora"])


class TurnTaking(RuleBasedStateMachine):
    """Comes, goes and gives up in any order."""

    @initialize(permits=st.integers(1, 3), depth=st.integers(0, 8))
    def open(self, permits: int, depth: int) -> None:
        self.admission = Admission(permits, depth)
        self.permits, self.depth = permits, depth
        self.now = 0.0
        self.next_ticket = 0
        self.active: set[int] = set()
        self.lines: dict[str, list[int]] = {}  # peer -> its tickets in order, peers in ring order
        self.passed_over: dict[int, int] = {}  # head of a line -> admissions of others since

    @property
    def waiting(self) -> list[int]:
        return [ticket for line in self.lines.values() for ticket in line]

    @rule(peer=PEERS)
    def request(self, peer: str) -> None:
        ticket, self.next_ticket = self.next_ticket, self.next_ticket + 1
        verdict = self.admission.request(ticket, peer, self.now)
        if len(self.active) < self.permits:
            assert isinstance(verdict, Admitted)
            self.active.add(ticket)
        elif len(self.waiting) >= self.depth:
            assert isinstance(verdict, Full)
            assert (verdict.waiting, verdict.permits) == (len(self.waiting), self.permits)
        else:
            assert isinstance(verdict, Queued)
            self.lines.setdefault(peer, []).append(ticket)
            if self.lines[peer] == [ticket]:
                self.passed_over[ticket] = 0
            assert verdict.position == self.turns_until(ticket)

    @precondition(lambda self: self.active)
    @rule(data=st.data(), took=st.floats(0, 60))
    def finish(self, data: st.DataObject, took: float) -> None:
        self.now += took
        ticket = data.draw(st.sampled_from(sorted(self.active)))
        self.active.remove(ticket)
        admitted = self.admission.release(ticket, self.now)
        assert admitted == ([self.next_in_turn()] if self.lines else [])
        if admitted:
            self.admit(self.next_in_turn())

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.admission.withdraw(ticket)
        for peer, line in list(self.lines.items()):
            if ticket in line:
                line.remove(ticket)
                self.head_changed(peer)
        self.passed_over.pop(ticket, None)

    def next_in_turn(self) -> int:
        return next(iter(self.lines.values()))[0]

    def admit(self, ticket: int) -> None:
        peer, line = next(iter(self.lines.items()))
        assert line.pop(0) == ticket
        del self.lines[peer]
        if line:
            self.lines[peer] = line  # to the end of the ring
        self.active.add(ticket)
        del self.passed_over[ticket]
        for head in self.passed_over:
            self.passed_over[head] += 1
        self.head_changed(peer)

    def head_changed(self, peer: str) -> None:
        line = self.lines.get(peer)
        if not line:
            self.lines.pop(peer, None)
        else:
            self.passed_over.setdefault(line[0], 0)

    def turns_until(self, ticket: int) -> int:
        """Lets the real thing run on in a copy where nobody else comes or goes."""
        quiet = copy.deepcopy(self.admission)
        running: list[object] = [*self.active]
        for turn in range(1, len(self.waiting) + 1):
            (admitted,) = quiet.release(running.pop(), self.now)
            if admitted == ticket:
                return turn
            running.append(admitted)
        raise AssertionError(f"{ticket} never had its turn")

    @invariant()
    def no_permit_is_lost(self) -> None:
        assert self.admission.active == len(self.active) <= self.permits
        assert self.admission.waiting == len(self.waiting) <= self.depth
        assert not self.waiting or len(self.active) == self.permits

    @invariant()
    def positions_are_true(self) -> None:
        for ticket in self.waiting:
            assert self.admission.position(ticket) == self.turns_until(ticket)

    @invariant()
    def nobody_starves(self) -> None:
        assert all(count < 4 for count in self.passed_over.values())  # four peers take turns


TestTurnTaking = TurnTaking.TestCase
TestTurnTaking.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_peer_with_one_request_is_next_after_one_of_a_busy_peer() -> None:
    admission = Admission(1, 100)
    assert admission.request("running", "busy", 0.0) == Admitted()
    for index in range(50):
        admission.request(f"busy{index}", "busy", 0.0)
    assert admission.request("single", "quiet", 0.0) == Queued(2, None)
    assert admission.release("running", 1.0) == ["busy0"]
    assert admission.release("busy0", 2.0) == ["single"]
    assert admission.release("single", 3.0) == ["busy1"]


def test_estimates_follow_what_runs_took() -> None:
    admission = Admission(2, 3)
    admission.request("a", "p", 0.0)
    admission.request("b", "p", 0.0)
    assert admission.request("c", "p", 0.0) == Queued(1, None)
    assert admission.release("a", 4.0) == ["c"]
    assert admission.request("d", "p", 4.0) == Queued(1, 2000)  # 4 s a run, two at once
    assert admission.queued("d") == Queued(1, 2000)
    admission.release("b", 9.0)
    assert admission.request("e", "p", 9.0) == Queued(1, 2500)  # 4 s and a fifth of the way to 9 s


def test_full_says_how_many_wait_and_how_long() -> None:
    admission = Admission(1, 1)
    admission.request("a", "p", 0.0)
    admission.request("b", "p", 0.0)
    assert admission.request("c", "q", 0.0) == Full(1, 1, None)
    assert admission.release("a", 3.0) == ["b"]
    admission.request("c", "q", 3.0)
    assert admission.request("d", "q", 3.0) == Full(1, 1, 6000)


def test_depth_zero_never_queues() -> None:
    admission = Admission(1, 0)
    assert admission.request("a", "p", 0.0) == Admitted()
    assert isinstance(admission.request("b", "p", 0.0), Full)
    assert admission.release("a", 1.0) == []
    assert admission.request("b", "p", 1.0) == Admitted()


def test_a_ticket_that_never_came_cannot_leave() -> None:
    admission = Admission(1, 1)
    with pytest.raises(KeyError):
        admission.release("nobody", 0.0)
    with pytest.raises(KeyError):
        admission.withdraw("nobody")
    assert repr(admission) == "<Admission 0 of 1 active, 0 of 1 waiting>"
