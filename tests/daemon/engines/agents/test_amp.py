"""How amp is started, and what it says on stderr alone."""

import msgspec
import pytest

from inferd_daemon.backends.base import Finished
from inferd_daemon.engines.agents.amp import AmpProfile
from inferd_daemon.engines.agents.dialogue import Failed
from inferd_daemon.engines.agents.profile import LoginEvidence
from inferd_daemon.engines.agents.request import AgentRequest, Turn
from inferd_daemon.errors import CallerFault
from inferd_proto import Usage

from .reading import PLACE, dialogue, read

PROFILE = AmpProfile()
HI = (Turn("user", "hi"),)


def test_its_settings_leave_it_no_tool() -> None:
    asked = AgentRequest("low", HI, environment={"AMP_API_KEY": "k", "OTHER": "x"})
    plan = PROFILE.plan(asked, PLACE)
    assert msgspec.json.decode(plan.files["settings.json"])["amp.tools.enable"] == []
    assert plan.environment["AMP_API_KEY"] == "k"
    assert "OTHER" not in plan.environment
    assert plan.arguments[-4:] == [
        "-m",
        "low",
        "--settings-file",
        str(PLACE.home / "settings.json"),
    ]


def test_a_model_that_is_no_mode_is_refused() -> None:
    with pytest.raises(CallerFault, match="name one of high, low, medium, ultra"):
        PROFILE.plan(AgentRequest("gpt", HI), PLACE)


def test_the_system_text_stands_before_the_prompt() -> None:
    prompt = PROFILE.dialogue(AgentRequest("low", HI, system="Be brief."), PLACE).take_input()
    assert prompt.index(b"### system\nBe brief.") < prompt.index(b"### user\nhi")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("see @/etc/passwd", "see @\u2060/etc/passwd"),
        ("@@T-1 @a.md", "@\u2060@\u2060T-1 @\u2060a.md"),
        ("(@x)", "(@\u2060x)"),
        ("mail me@example.org at @ noon", "mail me@\u2060example.org at @ noon"),
    ],
)
def test_no_file_can_be_named(text: str, sent: str) -> None:
    request = AgentRequest("low", (Turn("user", text),))
    assert PROFILE.dialogue(request, PLACE).take_input().decode() == sent


def test_without_a_key_it_would_wait_for_ever() -> None:
    assert PROFILE.judge_login(LoginEvidence({"AMP_API_KEY": "k"})).logged_in is True
    assert PROFILE.judge_login(LoginEvidence({})).logged_in is False


@pytest.mark.parametrize(
    ("stderr", "failed"),
    [
        (
            "Invalid or missing API key. Run 'amp login' or set AMP_API_KEY.\n",
            Failed("Invalid or missing API key. Run 'amp login' or set AMP_API_KEY.", 401),
        ),
        (
            "Error: getUserInfo error: internal\n",
            Failed("Error: getUserInfo error: internal", None),
        ),
        ("", Failed("it ended with exit code 1 before its answer did", None)),
    ],
)
def test_a_refusal_stands_on_stderr(stderr: str, failed: Failed) -> None:
    assert read(dialogue("amp"), [], returncode=1, stderr=stderr).end == failed


def test_a_result_may_bring_the_text() -> None:
    line = b'{"type":"result","is_error":false,"result":"Hello"}\n'
    assert read(dialogue("amp"), [line]) == (
        ("Hello",),
        "",
        Finished("end_turn", Usage(0, 0), counted=False),
    )
