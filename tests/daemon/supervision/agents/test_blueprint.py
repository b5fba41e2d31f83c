"""What an agent offers before it is looked at: all of it by its profile and its spec."""

import pytest

from inferd_daemon.config import AgentConfig
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.spec import AgentSpecError
from inferd_daemon.supervision.agents.blueprint import AgentBlueprint, manifest, read_blueprint
from inferd_daemon.supervision.agents.probes import AgentProbes
from inferd_daemon.supervision.leases.compatibility import match
from inferd_daemon.supervision.runtimes.blueprint import Blueprint
from inferd_proto import CompatibilityReason, ConsumerManifest, JsonObject, TargetClass
from tests.support.lone_runtimes import SleepBlueprint

BOTH = {"cli_completion_v1": True, "cli_streaming_v1": True}
ALL = {**BOTH, "cli_agent_v2": True}


def read(
    spec: JsonObject, served: str = "qwen", agents: dict[str, AgentConfig] | None = None
) -> AgentBlueprint:
    def upstream_of(route: str) -> Blueprint:
        if route != "local":
            raise ValueError(f"names no route {route}")
        upstream = SleepBlueprint.__new__(SleepBlueprint)
        upstream.model_identity, upstream.name = served, "backend"
        return upstream

    return read_blueprint(spec, AgentProbes(agents or {}, {}), upstream_of)


@pytest.mark.parametrize(
    ("provider", "published"),
    [("codex", ALL), ("claude", ALL), ("gemini", BOTH), ("amp", BOTH)],
)
def test_what_is_published_of_each_provider(provider: str, published: dict[str, bool]) -> None:
    offered = manifest(PROFILES[provider])
    assert offered.metadata == published
    assert offered.target_class is TargetClass.CLI_ENDPOINT
    assert offered.capabilities["streaming"] is True
    assert offered.capabilities["tool_calling"] is False
    fits = match(ConsumerManifest(), offered)
    assert fits.compatible
    wants = ConsumerManifest(required_capabilities={"tool_calling": True, "embeddings": True})
    refused = match(wants, offered)
    assert refused.reason is CompatibilityReason.MISSING_CAPABILITY
    assert refused.missing_requirements == ["embeddings", "tool_calling"]


def test_a_blueprint_on_its_own_login() -> None:
    blueprint = read({"agent": "claude", "model": "opus"})
    assert (blueprint.name, blueprint.model_identity) == ("claude/opus", "opus")
    assert blueprint.needs is None
    assert (blueprint.relayed, blueprint.weightless, blueprint.idle_ttl_s) == (True, True, 0.0)
    assert blueprint.published is not None
    assert blueprint.published["cli_agent_v2"] is True
    again = read(blueprint.to_json())
    assert again.instance_key == blueprint.instance_key


@pytest.mark.parametrize("model", [None, "qwen", "local", "backend"])
def test_a_blueprint_on_a_route_serves_the_routes_model(model: str | None) -> None:
    blueprint = read({"agent": "codex", "upstream": "local", "model": model})
    assert (blueprint.name, blueprint.model_identity) == ("codex/on-local", "qwen")
    assert blueprint.needs is not None
    assert blueprint.asks_at == "/v1/responses"


@pytest.mark.parametrize(
    ("spec", "served", "field"),
    [
        ({"agent": "codex", "upstream": "nowhere"}, "qwen", "upstream"),
        ({"agent": "codex", "upstream": "local", "model": "gpt"}, "qwen", "model"),
        ({"agent": "codex", "upstream": "local"}, "", "model"),
        ({"agent": "claude", "model": "sonnet"}, "", "model"),
    ],
)
def test_mistakes_that_only_the_daemon_can_see(spec: JsonObject, served: str, field: str) -> None:
    with pytest.raises(AgentSpecError) as refused:
        read(spec, served, {"claude": AgentConfig(models=["opus"])})
    assert [name for name, _ in refused.value.mistakes] == [field]


def test_a_route_that_does_not_say_its_model_takes_the_one_that_is_given() -> None:
    spec: JsonObject = {"agent": "codex", "upstream": "local", "model": "gpt"}
    assert read(spec, "").model_identity == "gpt"
