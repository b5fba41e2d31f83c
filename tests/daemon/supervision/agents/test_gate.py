"""Waiting at a provider's gate: turns, refusals, and callers that let go."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.agents.gate import Gate
from inferd_proto import ErrorCode


class Crowd:
    """Requests at one gate, each of which runs until it is told to end."""

    def __init__(self, gate: Gate, nursery: trio.Nursery) -> None:
        self.gate = gate
        self.ran: list[str] = []
        self.refused: list[str] = []
        self._nursery = nursery
        self._ends: dict[str, trio.Event] = {}

    async def comes(self, name: str, party: int, scope: trio.CancelScope | None = None) -> None:
        """As far as it gets."""
        self._ends[name] = trio.Event()
        self._nursery.start_soon(self._ask, name, party, scope or trio.CancelScope())
        await wait_all_tasks_blocked()

    async def ends(self, name: str) -> None:
        self._ends[name].set()
        await wait_all_tasks_blocked()

    async def _ask(self, name: str, party: int, scope: trio.CancelScope) -> None:
        with scope:
            try:
                async with self.gate.turn(party):
                    self.ran.append(name)
                    await self._ends[name].wait()
            except RequestError as error:
                if error.code is not ErrorCode.QUEUE_FULL:
                    raise
                self.refused.append(name)


async def test_another_user_does_not_wait_behind_a_whole_line() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate("claude", 1, 2), nursery)
        for name in ("a1", "a2", "a3"):
            await crowd.comes(name, 1)
        await crowd.comes("b1", 2)
        assert crowd.refused == ["a3"]
        await crowd.comes("a4", 1)
        assert crowd.refused == ["a3", "a4"]
        for name in ("a1", "b1", "a2"):
            assert crowd.gate.running == 1
            await crowd.ends(name)
        assert crowd.ran == ["a1", "b1", "a2"]
    assert crowd.gate.running == 0


async def test_who_lets_go_leaves_its_place_to_the_next() -> None:
    waiting, running = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate("claude", 1, 2), nursery)
        await crowd.comes("one", 1, running)
        await crowd.comes("two", 1, waiting)
        await crowd.comes("three", 1)
        waiting.cancel()
        running.cancel()
        await wait_all_tasks_blocked()
        assert crowd.ran == ["one", "three"]
        await crowd.ends("three")
    assert crowd.gate.running == 0


async def test_a_turn_that_comes_to_who_just_let_go_is_passed_on() -> None:
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate("claude", 1, 2), nursery)
        await crowd.comes("one", 1)
        await crowd.comes("two", 1, scope)
        await crowd.comes("three", 1)
        crowd._ends["one"].set()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert "three" in crowd.ran
        await crowd.ends("three")
    assert crowd.gate.running == 0


async def test_without_a_line_the_next_is_refused_at_once() -> None:
    gate = Gate("codex", 1, 0)
    async with gate.turn(1):
        with pytest.raises(RequestError, match="1 runs of codex are under way and 0 requests"):
            async with gate.turn(2):
                raise AssertionError("it had a turn")
    assert gate.running == 0
