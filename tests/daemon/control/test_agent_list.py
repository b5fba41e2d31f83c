"""`agent.list`: what cannot be told is one error of the request, not a group of them."""

from pathlib import Path

import pytest

from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.control.agent_list import agent_list
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.view import DaemonView
from inferd_daemon.engines.agents.profile import AgentProbe
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.errors import BackendFault
from inferd_daemon.supervision.agent_room import AgentRoom
from inferd_daemon.supervision.runtimes.blueprint import Blueprint
from tests.daemon.fronts.conversation import view_of


def call(view: DaemonView) -> Call:
    return Call(view, Peer(1, 2, 3), 1, {})


def no_upstream(route: str) -> Blueprint:
    raise ValueError(route)


async def test_a_daemon_without_agents_says_so() -> None:
    with pytest.raises(BackendFault, match="runs no agents"):
        await agent_list(call(view_of(MockBackend("mock", MockConfig()))))


async def test_probes_that_cannot_be_made_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(MockBackend("mock", MockConfig()))
    view.agents = room = AgentRoom({}, {}, tmp_path, no_upstream)

    async def ask(provider: str, *, max_age_s: float) -> AgentProbe:
        raise BackendFault(f"{provider} cannot be asked")

    monkeypatch.setattr(room.probes, "ask", ask)
    with pytest.raises(BackendFault, match="cannot be asked") as failed:
        await agent_list(call(view))
    assert failed.value.message.split()[0] in PROFILES
