"""What a killed daemon's runs left is gone before the first run of the next."""

from pathlib import Path

import pytest

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
