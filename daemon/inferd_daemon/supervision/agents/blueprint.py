"""Blueprints of CLI agents, by agent spec: from a caller, a backend's table, or the journal."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from inferd_proto import (
    BackendManifest,
    EndpointProtocol,
    JsonObject,
    ManagementMode,
    RuntimeKind,
    StartupKind,
    TargetClass,
)

from ...engines.agents.profile import AgentProfile
from ...engines.agents.spec import AgentSpec, AgentSpecError, normalise_agent
from ..processes.logs import RuntimeLog
from ..runtimes.blueprint import Blueprint, Former, Hooks
from .life import RETRIES, AgentLife
from .probes import AgentProbes
from .service import AgentService

UpstreamOf = Callable[[str], Blueprint]
"""What answers a route, to run an agent on. Raises ValueError saying why there is none."""


class AgentBlueprint(Blueprint):
    """One agent with its model pinned, for as long as somebody holds it."""

    kind = "agent"
    transport = "tcp"
    relayed = True
    opens_front = True
    weightless = True

    def __init__(
        self,
        spec: AgentSpec,
        probes: AgentProbes,
        upstream: Blueprint | None,
        *,
        idle_ttl_s: float | None = 0.0,
        route: str | None = None,
    ) -> None:
        self.spec = spec
        self.profile = spec.profile
        self.needs = upstream
        speaks = self.profile.upstream_protocol
        self.asks_at = None if upstream is None or speaks is None else f"/v1/{speaks}"
        served = "" if upstream is None else upstream.model_identity
        self.model_identity = served or spec.model or ""
        self.instance_key = spec.instance_key()
        on = spec.model if upstream is None else f"on-{spec.upstream}"
        self.name = route or f"{spec.agent}/{on}"
        self.route = route
        self.idle_ttl_s = idle_ttl_s
        self.manifest = manifest(self.profile)
        self.published = {
            **self.manifest.metadata,
            "backend_manifest": msgspec.to_builtins(self.manifest),
        }
        self._probes = probes

    def make(self, hooks: Hooks, former: Former | None = None) -> AgentLife:
        """Its life; a former run left nothing to go on with."""
        service = AgentService(
            self.name,
            self.spec.agent,
            self.model_identity,
            self._probes,
            local=self.needs is not None,
        )
        # Nobody writes to it but the life itself, and that in memory.
        log = RuntimeLog(Path("/dev/null"))
        return AgentLife(service, log, policy=RETRIES, held=hooks.held, on_change=hooks.on_change)

    async def estimate(self) -> int:
        """Nothing while nobody asks."""
        return 0

    def to_json(self) -> JsonObject:
        """What `normalise_agent` makes the spec from again."""
        return self.spec.to_json()


def manifest(profile: AgentProfile) -> BackendManifest:
    """What such an agent offers: all of it by its profile."""
    return BackendManifest(
        backend=profile.name,
        runtime_kind=RuntimeKind.TASK,
        management_modes=[ManagementMode.MANAGED],
        startup_kind=StartupKind.SPAWNED,
        protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
        target_class=TargetClass.CLI_ENDPOINT,
        capabilities=profile.capability_map,
        supported_surfaces=["local_subprocess"],
        metadata={name: True for name, has in profile.publication.items() if has},
    )


def read_blueprint(
    spec: JsonObject,
    probes: AgentProbes,
    upstream_of: UpstreamOf,
    *,
    idle_ttl_s: float | None = 0.0,
    route: str | None = None,
) -> AgentBlueprint:
    """What an agent spec means. Raises AgentSpecError."""
    agent = str(spec.get("agent") or spec.get("provider"))
    right = normalise_agent(spec, {agent: probes.config(agent)})
    upstream = None
    if right.upstream is not None:
        try:
            upstream = upstream_of(right.upstream)
        except ValueError as error:
            raise AgentSpecError([("upstream", str(error))]) from error
        _require_same_model(right, upstream)
    return AgentBlueprint(right, probes, upstream, idle_ttl_s=idle_ttl_s, route=route)


def _require_same_model(spec: AgentSpec, upstream: Blueprint) -> None:
    """A lease pins one model: the upstream's, whatever the CLI would call it."""
    served = upstream.model_identity
    if not served:
        if spec.model is None:
            told = f"is missing: route {spec.upstream!r} does not say which model it serves"
            raise AgentSpecError([("model", told)])
        return
    if spec.model not in (None, served, spec.upstream, upstream.name):
        told = f"{spec.model!r} is not what route {spec.upstream!r} serves: {served!r}"
        raise AgentSpecError([("model", told)])
