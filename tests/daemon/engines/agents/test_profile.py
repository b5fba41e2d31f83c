"""What holds for every provider, and what is published of each by what it can do."""

import pytest

from inferd_daemon.engines.agents.profile import AgentProfile, Feature
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import OWN_MODEL, AgentRequest, AgentUpstream, Turn
from inferd_daemon.engines.secret import Secret

from .reading import MODELS, PLACE

PROFILED = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
SECRETS = {
    "ANTHROPIC_API_KEY": "sk-1",
    "CODEX_API_KEY": "sk-2",
    "GEMINI_API_KEY": "sk-3",
    "AMP_API_KEY": "sk-4",
}


@pytest.mark.parametrize(
    ("provider", "agent"), [("codex", True), ("claude", True), ("gemini", False), ("amp", False)]
)
def test_publication(provider: str, agent: bool) -> None:
    assert PROFILES[provider].publication == {
        "cli_completion_v1": True,
        "cli_streaming_v1": True,
        "cli_agent_v2": agent,
    }


def test_publication_follows_the_features() -> None:
    class Mute(type(PROFILES["claude"])):  # type: ignore[misc]
        features = frozenset(Feature) - {Feature.STREAMING, Feature.STOP_REASONS}

    profile: AgentProfile = Mute()
    assert profile.publication == {
        "cli_completion_v1": True,
        "cli_streaming_v1": False,
        "cli_agent_v2": False,
    }
    assert profile.capability_map["streaming"] is False


@PROFILED
def test_no_provider_takes_tools(profile: AgentProfile) -> None:
    assert profile.capability_map["tool_calling"] is False
    capabilities = profile.capabilities
    assert (capabilities.generate, capabilities.tools, capabilities.embed) == (True, False, False)
    assert capabilities.thinking is (Feature.THINKING in profile.features)


@pytest.mark.parametrize(
    ("profile", "local"),
    [(profile, False) for profile in PROFILES.values()]
    + [(profile, True) for profile in PROFILES.values() if profile.upstream_protocol],
)
def test_no_prompt_and_no_secret_stands_in_an_argument(profile: AgentProfile, local: bool) -> None:
    upstream = AgentUpstream("http://127.0.0.1:1", Secret("sk-lease")) if local else None
    asked = AgentRequest(
        MODELS.get(profile.name, "m"),
        (Turn("user", "PROMPT"), Turn("assistant", "PROMPT"), Turn("user", "PROMPT")),
        system="PROMPT",
        upstream=upstream,
        environment={"PATH": "/bin", "HOME": "/home/op", "FOREIGN": "x", **SECRETS},
    )
    plan = profile.plan(asked, PLACE)
    arguments = " ".join(plan.arguments)
    assert "PROMPT" not in arguments
    assert "sk-" not in arguments
    own = {name for name in SECRETS if name in profile.login_variables}
    assert SECRETS.keys() & plan.environment.keys() == (set() if local else own)
    assert "FOREIGN" not in plan.environment
    assert "PROMPT" not in " ".join(plan.environment.values())
    assert plan.environment["TMPDIR"] == str(PLACE.tmp)


@pytest.mark.parametrize(
    ("provider", "flag"), [("claude", "--model"), ("gemini", "-m"), ("amp", "-m")]
)
def test_a_model_is_told_where_one_is_asked_for(provider: str, flag: str) -> None:
    profile, named = PROFILES[provider], MODELS.get(provider, "m")
    plan = profile.plan(AgentRequest(named, (Turn("user", "hi"),)), PLACE)
    assert plan.arguments[plan.arguments.index(flag) + 1] == named
    own = profile.plan(AgentRequest(OWN_MODEL, (Turn("user", "hi"),)), PLACE)
    assert flag not in own.arguments
    assert len(own.arguments) == len(plan.arguments) - 2


def test_an_upstreams_model_may_have_any_name() -> None:
    upstream = AgentUpstream("http://127.0.0.1:1", Secret("sk-lease"))
    asked = AgentRequest(OWN_MODEL, (Turn("user", "hi"),), upstream=upstream)
    assert asked.told_model == OWN_MODEL


@pytest.mark.parametrize(
    ("provider", "output", "version"),
    [
        ("codex", "codex-cli 0.169.0\n", "0.169.0"),
        ("claude", "2.1.197 (Claude Code)\n", "2.1.197"),
        ("gemini", "0.61.0\n", "0.61.0"),
        (
            "amp",
            "0.0.1790142911-g7618fb (released 2026-09-23T08:35:11Z, 1mo ago)",
            "0.0.1790142911-g7618fb",
        ),
        ("codex", "error: no such option", None),
    ],
)
def test_versions(provider: str, output: str, version: str | None) -> None:
    assert PROFILES[provider].read_version(output) == version
