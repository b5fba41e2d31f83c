"""Leases on CLI agents by the client library: what is asked, and what is refused before."""

import pytest

from inferd_client import AgentStatus, Client
from inferd_client.blocking import Client as BlockingClient
from inferd_client.leases import EnsureOptions, ensure
from inferd_proto import Result
from tests.clients.lease_script import arguments, when
from tests.clients.scripted_daemon import ScriptedDaemon

AGENTS: dict[str, object] = {
    "agents": [
        {
            "provider": "claude",
            "found": True,
            "version": "2.1.197",
            "logged_in": False,
            "reason": "claude: logged out: log in",
            "models": ["opus"],
            "upstream_protocol": "messages",
            "max_runs": 4,
            "running": 1,
            "publication": {"cli_completion_v1": True, "cli_agent_v2": False},
            "capabilities": {"streaming": True},
        },
        {"provider": "codex", "found": False, "reason": "codex is not installed", "new": 1},
    ]
}


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"agent": "claude", "model": "opus"}, {"agent": "claude", "model": "opus"}),
        ({"agent": "codex", "upstream": "qwen3"}, {"agent": "codex", "upstream": "qwen3"}),
        ({"agent": "codex"}, {"agent": "codex"}),
    ],
)
def test_an_agent_stands_for_a_target(
    options: EnsureOptions, target: dict[str, str], daemon: ScriptedDaemon
) -> None:
    with BlockingClient(daemon.path, label="me") as client:
        asked: EnsureOptions = {**options, "ttl": 5}
        client.ensure(**asked)
        assert arguments(daemon, "lease.ensure")["target"] == target
        with client.lease(**options) as lease:
            assert lease.ref == "lease-abc"
        assert arguments(daemon, "lease.ensure")["target"] == target


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (None, {}),
        (None, {"model": "opus"}),
        ("qwen3", {"agent": "claude"}),
        ({"agent": "claude"}, {"model": "opus"}),
    ],
)
def test_half_a_target_or_two_are_none(target: object, options: EnsureOptions) -> None:
    with pytest.raises(ValueError, match="target"):
        ensure(target, options, owner="", bind="none")  # type: ignore[arg-type]


def test_a_spec_may_be_given_as_a_target(daemon: ScriptedDaemon) -> None:
    spec = {"agent": "claude", "model": "opus", "metadata": {"for": "tests"}}
    with BlockingClient(daemon.path) as client:
        client.plan(spec)
        assert arguments(daemon, "lease.ensure")["target"] == spec


async def test_the_providers_that_there_are(daemon: ScriptedDaemon) -> None:
    daemon.script = when("agent.list", lambda asked: asked.send(Result(asked.id, AGENTS)))
    with BlockingClient(daemon.path) as client:
        claude, codex = client.agents()
    assert isinstance(claude, AgentStatus)
    assert (claude.version, claude.logged_in, claude.models) == ("2.1.197", False, ["opus"])
    assert (codex.found, codex.logged_in, codex.models) == (False, None, None)
    async with Client(daemon.path) as asynchronous:
        assert await asynchronous.agents() == [claude, codex]
