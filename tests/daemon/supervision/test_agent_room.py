"""Runs end with their room; what a killed daemon's left is gone before the first of the next."""

from pathlib import Path

import pytest
import trio
import trio.testing

from inferd_daemon.errors import BackendFault
from inferd_daemon.supervision.agent_room import AgentRoom
from inferd_daemon.supervision.runtimes.blueprint import Blueprint


def no_upstream(route: str) -> Blueprint:
    raise ValueError(route)


@pytest.mark.parametrize("there", ["", "disk", "memory", "disk memory"])
def test_what_was_left_is_cleared_away(there: str, tmp_path: Path) -> None:
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    for name in there.split():
        (tmp_path / name / "run-1/home").mkdir(parents=True)
        (tmp_path / name / "run-1/home/config.toml").write_text("x")
    AgentRoom({}, {}, disk, no_upstream, memory).clear_away()
    assert not list(tmp_path.glob("*/*"))


async def test_runs_are_the_rooms_own_and_end_with_it(tmp_path: Path) -> None:
    room = AgentRoom({}, {}, tmp_path, no_upstream)
    ended: list[int] = []

    async def run(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(number)

    with pytest.raises(BackendFault, match="stopping"):
        room.start(run, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(room.run)
        room.start(run, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended
        nursery.cancel_scope.cancel()
    assert ended == [1]
    with pytest.raises(BackendFault, match="stopping"):
        room.start(run, 2)
