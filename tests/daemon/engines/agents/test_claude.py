"""How claude is started: what it is given, and above all what it is not."""

from pathlib import Path

import pytest

from inferd_daemon.engines.agents.claude import ClaudeProfile
from inferd_daemon.engines.agents.profile import LoginEvidence
from inferd_daemon.engines.agents.request import AgentRequest, AgentUpstream, Turn
from inferd_daemon.engines.secret import Secret

from .reading import PLACE

PROFILE = ClaudeProfile()
UPSTREAM = AgentUpstream("http://127.0.0.1:1", Secret("sk-lease"))


def request(text: str = "hi", **fields: object) -> AgentRequest:
    return AgentRequest("m", (Turn("user", text),), **fields)  # type: ignore[arg-type]


def test_an_upstream_gets_its_own_key_and_none_of_the_operators() -> None:
    given = {"ANTHROPIC_API_KEY": "sk-own", "HTTPS_PROXY": "http://p", "HOME": "/home/op"}
    plan = PROFILE.plan(request(upstream=UPSTREAM, environment=given), PLACE)
    assert plan.environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert plan.environment["ANTHROPIC_AUTH_TOKEN"] == "sk-lease"
    assert plan.environment["HOME"] == str(PLACE.home)
    assert not {"ANTHROPIC_API_KEY", "HTTPS_PROXY"} & plan.environment.keys()


def test_the_system_text_goes_by_a_file() -> None:
    plan = PROFILE.plan(request(system="Keep a secret.", upstream=UPSTREAM), PLACE)
    at = plan.arguments.index("--system-prompt-file")
    assert Path(plan.arguments[at + 1]) == PLACE.home / "system.md"
    assert plan.files == {"system.md": "Keep a secret."}


@pytest.mark.parametrize(
    ("text", "sent"),
    [("/help", b" /help"), ("say /help", b"say /help"), ("@/x", b"@/x"), ("\n/x", b"\n/x")],
)
def test_a_command_is_made_text(text: str, sent: bytes) -> None:
    assert PROFILE.dialogue(request(text), PLACE).take_input() == sent


@pytest.mark.parametrize(
    ("given", "home", "simple"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, PLACE.home, True),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "k"}, PLACE.home, False),
        # Its account is in its home, and is renewed there.
        ({}, Path("/home/op"), False),
    ],
)
def test_a_login_decides_where_it_lives(given: dict[str, str], home: Path, simple: bool) -> None:
    plan = PROFILE.plan(request(environment={"HOME": "/home/op", **given}), PLACE)
    assert Path(plan.environment["HOME"]) == home
    assert ("CLAUDE_CODE_SIMPLE" in plan.environment) is simple
    assert given.items() <= plan.environment.items()
    assert plan.environment["CLAUDE_CODE_DISABLE_ATTACHMENTS"] == "1"


def test_limits_go_by_the_environment() -> None:
    plan = PROFILE.plan(request(max_tokens=7, upstream=UPSTREAM), PLACE)
    assert plan.environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "7"
    assert plan.environment["CLAUDE_CODE_MAX_RETRIES"] == "0"
    assert plan.environment["CLAUDE_CODE_DISABLE_THINKING"] == "1"
    thinking = PROFILE.plan(request(thinking=True, upstream=UPSTREAM), PLACE)
    assert "CLAUDE_CODE_DISABLE_THINKING" not in thinking.environment


@pytest.mark.parametrize(
    ("output", "logged_in"),
    [
        ('{"loggedIn": true, "authMethod": "api_key"}', True),
        ('{"loggedIn": false, "authMethod": "none"}', False),
        ("error: unknown command", None),
    ],
)
def test_login_is_told_by_json(output: str, logged_in: bool | None) -> None:
    assert PROFILE.login_command({}) == ["auth", "status"]
    login = PROFILE.judge_login(LoginEvidence({}, 0, output))
    assert login.logged_in is logged_in
    assert bool(login.reason) is (logged_in is not True)
