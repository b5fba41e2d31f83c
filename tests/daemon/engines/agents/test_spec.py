"""Agent specs: what is right, and every mistake by its field."""

import pytest

from inferd_daemon.config import AgentConfig
from inferd_daemon.engines.agents.spec import AgentSpecError, normalise_agent

CONFIGURED = {
    "claude": AgentConfig(models=["opus", "haiku"]),
    "codex": AgentConfig(upstream="local"),
    "amp": AgentConfig(models=[]),
}


@pytest.mark.parametrize(
    ("raw", "model", "upstream"),
    [
        ({"agent": "gemini", "model": "pro"}, "pro", None),
        ({"provider": "gemini", "model": "pro", "metadata": {"a": 1}}, "pro", None),
        ({"agent": "claude"}, "opus", None),
        ({"agent": "claude", "model": "haiku"}, "haiku", None),
        ({"agent": "claude", "upstream": "r"}, None, "r"),
        ({"agent": "claude", "upstream": "r", "model": "m/q:4"}, "m/q:4", "r"),
        ({"agent": "codex"}, None, "local"),
        ({"agent": "codex", "model": "gpt"}, "gpt", None),
        ({"agent": "gemini"}, "default", None),
        ({"agent": "gemini", "model": "default"}, "default", None),
        ({"agent": "gemini", "tools": [], "tool_choice": "none"}, "default", None),
    ],
)
def test_right_specs(raw: dict[str, object], model: str | None, upstream: str | None) -> None:
    spec = normalise_agent(raw, CONFIGURED)
    assert (spec.model, spec.upstream) == (model, upstream)
    assert normalise_agent(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ({"agent": "clod", "model": "m"}, ["agent"]),
        ({"agent": "clod"}, ["agent"]),
        ({"agent": 3, "model": ""}, ["agent", "model"]),
        ({"model": "m"}, ["agent"]),
        ({"agent": "amp"}, ["model"]),
        ({"agent": "claude", "model": "sonnet"}, ["model"]),
        ({"agent": "gemini", "model": "--yolo"}, ["model"]),
        ({"agent": "gemini", "model": "a b"}, ["model"]),
        ({"agent": "gemini", "model": "a\nb"}, ["model"]),
        ({"agent": "gemini", "model": "a", "upstream": "r"}, ["upstream"]),
        ({"agent": "claude", "tools": [{}], "modell": 1}, ["modell", "tools"]),
        ({"agent": "claude", "tool_choice": "auto"}, ["tool_choice"]),
        ({"agent": "claude", "tools": [{}], "tool_choice": {}}, ["tool_choice", "tools"]),
        ({"agent": "claude", "upstream": []}, ["upstream"]),
    ],
)
def test_each_mistake_by_its_field(raw: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(AgentSpecError) as refused:
        normalise_agent(raw, CONFIGURED)
    assert sorted(field for field, _ in refused.value.mistakes) == fields
    for field in fields:
        assert f"`{field}`" in refused.value.message


@pytest.mark.parametrize(("model", "right"), [("low", True), (None, True), ("gpt", False)])
def test_amp_has_modes(model: str | None, right: bool) -> None:
    spec = {"agent": "amp", "model": model}
    if right:
        assert normalise_agent(spec).model == (model or "default")
    else:
        with pytest.raises(AgentSpecError, match="high, low, medium, ultra"):
            normalise_agent(spec)


def test_what_makes_two_specs_the_same() -> None:
    one = normalise_agent({"agent": "claude", "model": "opus"})
    assert one.instance_key().startswith("agent-")
    same = {"provider": "claude", "model": "opus", "metadata": {"for": "me"}}
    assert normalise_agent(same).instance_key() == one.instance_key()
    others = [
        {"agent": "codex", "model": "opus"},
        {"agent": "claude", "model": "haiku"},
        {"agent": "claude", "model": "opus", "upstream": "r"},
        {"agent": "claude", "upstream": "opus"},
    ]
    keys = {normalise_agent(other).instance_key() for other in others}
    assert len(keys | {one.instance_key()}) == 5
