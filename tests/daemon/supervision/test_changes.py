"""Changes go to every listener in order; one that sleeps is cut, and holds nobody up."""

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.supervision.changes import BURST_S, MAX_BURST, Changes, FellBehind


async def test_every_listener_gets_every_change_from_its_beginning() -> None:
    changes = Changes()
    changes.tell({"n": 0})
    with changes.subscribed() as early:
        changes.tell({"n": 1})
        with changes.subscribed() as late:
            changes.tell({"n": 2})
            assert [await early.next(), await early.next()] == [{"n": 1}, {"n": 2}]
            assert await late.next() == {"n": 2}
    assert not changes


async def test_one_that_sleeps_keeps_what_it_has_and_then_learns_of_its_loss(
    autojump_clock: MockClock,
) -> None:
    changes = Changes()
    with changes.subscribed(2) as sleeper, changes.subscribed() as awake:
        for number in range(4):
            changes.tell({"n": number})
            await trio.sleep(BURST_S)
        assert sleeper.behind.is_set()
        assert [await sleeper.next(), await sleeper.next()] == [{"n": 0}, {"n": 1}]
        with pytest.raises(FellBehind):
            await sleeper.next()
        assert [(await awake.next())["n"] for _ in range(4)] == [0, 1, 2, 3]


async def test_what_comes_at_once_is_kept_for_one_that_had_no_turn(
    autojump_clock: MockClock,
) -> None:
    changes = Changes()
    with changes.subscribed(2) as listener:
        for number in range(1000):
            changes.tell({"n": number})
        assert [(await listener.next())["n"] for _ in range(1000)] == list(range(1000))
        for number in range(MAX_BURST + 1):
            changes.tell({"n": number})
        assert listener.behind.is_set()


async def test_what_concerns_others_is_not_kept() -> None:
    changes = Changes()
    with changes.subscribed(1, lambda change: change["n"] == 2) as listener:
        for number in range(3):
            changes.tell({"n": number})
        assert await listener.next() == {"n": 2}
        assert not listener.behind.is_set()


async def test_nothing_is_described_for_nobody() -> None:
    changes = Changes()
    changes.publish(lambda: pytest.fail("described"))
    with changes.subscribed() as listener:
        changes.publish(lambda: {"n": 1})
        with trio.fail_after(10):
            assert await listener.next() == {"n": 1}
