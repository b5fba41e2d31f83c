"""How gemini is started: its settings, and what it takes for a login."""

import re
from pathlib import Path

import msgspec
import pytest

from inferd_daemon.engines.agents.dialogue import Failed
from inferd_daemon.engines.agents.gemini import GeminiProfile
from inferd_daemon.engines.agents.profile import LoginEvidence
from inferd_daemon.engines.agents.request import AgentRequest, Turn
from inferd_daemon.supervision.agents.place import make_place

from .reading import PLACE, dialogue, read

PROFILE = GeminiProfile()


def plan_for(environment: dict[str, str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    asked = AgentRequest("m", (Turn("user", "hi"),), system="Be brief.", environment=environment)
    plan = PROFILE.plan(asked, PLACE)
    links = {name: str(target) for name, target in plan.links.items()}
    return plan.environment, {**plan.files, **links}, plan.arguments


def test_its_settings_leave_it_no_tool_and_one_try() -> None:
    environment, files, arguments = plan_for({"GEMINI_API_KEY": "k", "HOME": "/home/op"})
    settings = msgspec.json.decode(files[".gemini/settings.json"])
    assert settings["security"] == {"auth": {"selectedType": "gemini-api-key"}}
    assert settings["tools"] == {"core": []}
    assert settings["general"]["maxAttempts"] == 1
    assert files["system.md"] == "Be brief."
    assert environment["GEMINI_SYSTEM_MD"] == str(PLACE.home / "system.md")
    assert environment["GEMINI_CLI_HOME"] == str(PLACE.home)
    assert environment["GEMINI_CLI_NO_RELAUNCH"] == "true"
    assert arguments == ["-p", "", "-o", "stream-json", "-m", "m", "--skip-trust"]


def test_an_account_is_linked() -> None:
    _, files, _ = plan_for({"HOME": "/home/op"})
    settings = msgspec.json.decode(files[".gemini/settings.json"])
    assert settings["security"] == {"auth": {"selectedType": "oauth-personal"}}
    assert files[".gemini/oauth_creds.json"] == "/home/op/.gemini/oauth_creds.json"


def named(prompt: str, work: Path) -> list[Path]:
    """The files that it would put into its request: of an `@` anywhere, from where it runs."""
    paths = [work / name for name in re.findall(r"@([^\s,;!?()\[\]{}]+)", prompt)]
    return [path for path in paths if path.exists()]


@pytest.mark.parametrize("template", ["{}", "see {} now", "x{}", "@{}", "({})", "# {}\n"])
def test_a_prompt_names_no_file(template: str, tmp_path: Path) -> None:
    place = make_place(tmp_path / "run")
    planted = place.home / ".gemini/oauth_creds.json"
    planted.parent.mkdir()
    planted.write_text("a secret")
    for name in ("../home/.gemini/oauth_creds.json", str(planted)):
        prompt = template.format(f"@{name}")
        assert named(prompt, place.work) or template == "@{}"
        asked = AgentRequest("m", (Turn("user", prompt),))
        sent = PROFILE.dialogue(asked, place).take_input().decode()
        assert named(sent, place.work) == []
        assert sent.replace("\u2060", "") == prompt


@pytest.mark.parametrize(
    ("evidence", "logged_in"),
    [
        (LoginEvidence({"GEMINI_API_KEY": "k"}), True),
        (LoginEvidence({}, file_found=True), True),
        (LoginEvidence({}), False),
    ],
)
def test_login_is_told_by_key_or_file(evidence: LoginEvidence, logged_in: bool) -> None:
    assert PROFILE.judge_login(evidence).logged_in is logged_in


def test_no_login_is_told_by_the_exit_code() -> None:
    reading = read(dialogue("gemini"), [], returncode=41, stderr="Please set an Auth method")
    assert isinstance(reading.end, Failed)
    assert reading.end.status == 401
    assert reading.end.message.endswith(": Please set an Auth method")
