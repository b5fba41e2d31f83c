"""Who runs next at a provider's gate, and who has to give way."""

import random

import pytest

from inferd_daemon.supervision.agents.run_queue import Party, RunQueue, Ticket


def enter(queue: RunQueue, party: Party) -> Ticket:
    ticket, displaced = queue.enter(party)
    assert displaced is None
    return ticket


def test_one_party_alone_is_served_in_order() -> None:
    queue = RunQueue(2, 2)
    first, second, third, fourth = [enter(queue, 1) for _ in range(4)]
    assert [one.admitted for one in (first, second, third, fourth)] == [True, True, False, False]
    assert enter(queue, 1).refused
    assert (queue.running, queue.waiting) == (2, 2)
    assert queue.leave(second) is third
    assert queue.leave(first) is fourth
    assert queue.leave(third) is None
    assert queue.leave(fourth) is None
    assert (queue.running, queue.waiting) == (0, 0)


def test_parties_take_turns_however_many_requests_one_has() -> None:
    queue = RunQueue(1, 100)
    running = enter(queue, 1)
    many = [enter(queue, 1) for _ in range(50)]
    few = [enter(queue, party) for party in (2, 2, None)]
    served: list[Party] = []
    while (ticket := queue.leave(running)) is not None:
        served.append(ticket.party)
        running = ticket
    assert served[:5] == [2, None, 1, 2, 1]
    assert served[5:] == [1] * (len(many) + len(few) - 5)


def test_a_full_line_takes_in_who_has_less() -> None:
    queue = RunQueue(1, 2)
    running, older, newer = [enter(queue, 1) for _ in range(3)]
    mine, displaced = queue.enter(2)
    assert displaced is newer
    assert newer.refused
    assert [mine.refused, older.refused] == [False, False]
    assert queue.leave(newer) is None
    assert enter(queue, 1).refused
    assert enter(queue, 2).refused
    assert queue.leave(running) is mine


@pytest.mark.parametrize("limit", [0, 1])
def test_a_line_without_room(limit: int) -> None:
    queue = RunQueue(1, limit)
    running = enter(queue, 1)
    waiting = [enter(queue, 2) for _ in range(limit)]
    assert enter(queue, 3).refused
    assert queue.leave(running) is (waiting[0] if limit else None)


def test_who_leaves_the_line_is_not_served() -> None:
    queue = RunQueue(1, 3)
    running, gone, waits = [enter(queue, 1) for _ in range(3)]
    assert queue.leave(gone) is None
    assert queue.leave(running) is waits


def test_nothing_is_lost_and_no_bound_is_passed_whatever_happens() -> None:
    chance = random.Random(7)
    queue, here = RunQueue(3, 5), list[Ticket]()
    for _ in range(3000):
        if here and chance.random() < 0.5:
            admitted = queue.leave(here.pop(chance.randrange(len(here))))
            assert admitted is None or (admitted.admitted and admitted in here)
        else:
            ticket, displaced = queue.enter(chance.choice((1, 1, 1, 1, 2, 3, None)))
            if displaced is not None:
                here.remove(displaced)
                queue.leave(displaced)
            if ticket.refused:
                queue.leave(ticket)
            else:
                here.append(ticket)
        assert queue.running == sum(one.admitted for one in here) <= 3
        assert queue.waiting == sum(not one.admitted for one in here) <= 5
        assert queue.running == 3 or not queue.waiting
    for ticket in here:
        queue.leave(ticket)
    assert vars(queue)["_last"] == {}
