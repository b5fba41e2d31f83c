"""`inferdctl agent` against a scripted daemon: what is shown, and what is refused at once."""

import json

import pytest

from inferd_proto import Result
from tests.clients.ctl.running import Ctl
from tests.clients.lease_records import KEY
from tests.clients.lease_script import arguments, ops, when
from tests.clients.scripted_daemon import ScriptedDaemon
from tests.clients.test_agents import AGENTS


def test_ls(ctl: Ctl, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    daemon.script = when("agent.list", lambda asked: asked.send(Result(asked.id, AGENTS)))
    lines = [line.split() for line in ctl("agent", "ls").out.splitlines() if line.strip()]
    assert lines[0][:3] == ["AGENT", "FOUND", "VERSION"]
    assert lines[2] == [
        *("claude", "yes", "2.1.197", "no", "opus", "messages", "1/4", "cli_completion_v1"),
    ]
    assert lines[3][:3] == ["codex", "no", "any"]
    assert [" ".join(line) for line in lines[4:]] == [
        "claude: logged out: log in",
        "codex is not installed",
    ]
    assert json.loads(ctl("agent", "ls", "--json").out) == AGENTS


def test_endpoint(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    asked = ("agent", "endpoint", "claude", "--upstream", "qwen3", "--ttl", "10m")
    assert f"Bearer {KEY}" in ctl(*asked).out
    sent = arguments(daemon, "lease.ensure")
    assert sent["target"] == {"agent": "claude", "upstream": "qwen3"}
    assert (sent["ttl_ms"], sent["bind"]) == (600_000, "none")
    assert f"OPENAI_API_KEY={KEY}" in ctl(*asked, "--env").out
    assert json.loads(ctl(*asked, "--json").out)["endpoint"]["lease_ref"] == "lease-abc"


@pytest.mark.parametrize(
    "argv",
    [
        ("agent", "run", "claude"),
        ("agent", "endpoint", "claude", "--env", "--json"),
        ("run", "--agent", "claude", "--tools", "t.json", "hi"),
        ("run", "--agent", "claude", "--temperature", "0", "hi"),
        ("run", "--upstream", "qwen3", "hi"),
    ],
)
def test_usage(argv: tuple[str, ...], ctl: Ctl, daemon: ScriptedDaemon) -> None:
    assert ctl(*argv).code == 64
    assert ops(daemon) == []
