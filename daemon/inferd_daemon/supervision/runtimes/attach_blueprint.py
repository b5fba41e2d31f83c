"""Blueprints of services that someone else runs, by attach spec: from a caller or the journal."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import trio
from msgspec.structs import replace

from inferd_proto import (
    BackendManifest,
    EndpointProtocol,
    JsonObject,
    ManagementMode,
    RuntimeKind,
    StartupKind,
    TargetClass,
)

from ...config import OpenAICompatConfig
from ...engines.attached.ollama import OllamaService
from ...engines.attached.openai_service import OpenAIService
from ...engines.attached.service import AttachedService
from ...engines.attached.spec import AttachSpec, AttachSpecError, normalise_attach
from ...engines.base import EngineFailure
from ..processes.logs import RuntimeLog
from .attachment import RETRIES, Attachment
from .blueprint import Blueprint, Former, Hooks
from .runtime_life import RuntimeLife

SERVICES: dict[str, type[AttachedService]] = {
    service.backend: service for service in (OllamaService, OpenAIService)
}


ASK_TIMEOUT_S = 2.0


class AttachBlueprint(Blueprint):
    """One service to attach to, for as long as somebody holds it.

    One that the operator configured is reached over the daemon's front alone: its key is not for
    the lease's owner.
    """

    kind = "attach"
    idle_ttl_s = 0.0
    transport = "tcp"
    weightless = True

    def __init__(
        self, spec: AttachSpec, environment: Mapping[str, str], *, route: str | None = None
    ) -> None:
        self.spec = spec
        self.instance_key = spec.instance_key()
        self.model_identity = spec.model_identity or ""
        self.name = route or spec.model_identity or urlsplit(spec.root_url).netloc
        self.route = route
        self.relayed = route is not None
        self.manifest = manifest(spec)
        self._environment = environment

    def make(self, hooks: Hooks, former: Former | None = None) -> RuntimeLife:
        """Its attachment; what a former run knew, the spec knows."""
        return Attachment(
            self._service(),
            # Nobody writes to it but the attachment, and that in memory.
            RuntimeLog(Path("/dev/null")),
            policy=RETRIES,
            held=hooks.held,
            on_change=hooks.on_change,
        )

    async def offer(self) -> BackendManifest:
        """With what the service says of its model, where it answers soon."""
        service = self._service()
        with trio.move_on_after(min(service.timing.ready_timeout_s, ASK_TIMEOUT_S)):
            try:
                await service.open()
            except EngineFailure:
                return self.manifest  # the attempt to attach tells it
            await service.look()
        told = None if service.facts is None else service.facts.capabilities
        return replace(self.manifest, capabilities=self.manifest.capabilities | (told or {}))

    async def estimate(self) -> int:
        """Nothing of ours."""
        return 0

    def to_json(self) -> JsonObject:
        """What `normalise_attach` makes the spec from again."""
        return self.spec.to_json()

    def _service(self) -> AttachedService:
        return SERVICES[self.spec.kind](self.name, self.spec, environment=self._environment)


def configured_service(
    name: str, table: OpenAICompatConfig, environment: Mapping[str, str]
) -> AttachBlueprint | None:
    """What leases on the backend `name` attach to; None where no attach spec says the same."""
    if table.uds is not None or table.tls_ca_file is not None:
        return None
    given = {
        "root_url": table.base_url,
        "model_identity": table.model,
        "api_key": table.api_key,
        "api_key_file": table.api_key_file,
        "api_key_env": table.api_key_env,
        "headers": table.headers,
    }
    try:
        # The operator has named it: where it is, is no question of who may.
        spec = normalise_attach(given, allow_remote=True)
    except AttachSpecError:
        return None
    return AttachBlueprint(spec, environment, route=name)


def manifest(spec: AttachSpec) -> BackendManifest:
    """What such a service offers, as far as that is known before it is asked."""
    return BackendManifest(
        backend=spec.kind,
        runtime_kind=RuntimeKind.SERVICE,
        management_modes=[ManagementMode.EXTERNALLY_MANAGED],
        startup_kind=StartupKind.ATTACH_EXISTING_SERVICE,
        protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
        target_class=_target_class(spec),
        capabilities={
            "streaming": True,
            "tool_calling": "unknown",
            "structured_output": "unknown",
            "embeddings": "unknown",
            "vision": "unknown",
            "audio": "unknown",
        },
    )


def _target_class(spec: AttachSpec) -> TargetClass:
    """One's own is what stands in one's own network, as far as an address tells."""
    host = urlsplit(spec.root_url).hostname or ""
    try:
        own = ipaddress.ip_address(host).is_private
    except ValueError:
        own = "." not in host or host.endswith((".local", ".lan", ".internal", ".home.arpa"))
    return TargetClass.SELF_HOSTED_ENDPOINT if own or spec.is_local else TargetClass.CLOUD_PROVIDER
