"""The contracts between who uses a runtime and who offers one (leases.md section 1).

Plain records: what a consumer accepts, what a backend offers, whether they fit, and where the
requests go. Deciding whether they fit is the daemon's, not the wire's.
"""

from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct, field
from msgspec.structs import force_setattr

from .messages import JsonObject
from .messages.limits import check_json

CONTRACT_VERSION: Final = "inference.v1"

MAX_LISTED = 32
"""A manifest names a handful of things; a longer list is a mistake or an attack."""

CapabilityValue = bool | Literal["unknown"]
CapabilityMap = dict[str, CapabilityValue]
"""`streaming`, `tool_calling`, `embeddings`, … to true, false or "unknown"."""


class RuntimeKind(StrEnum):
    """What sort of thing answers: a library, a command run per request, or a server."""

    CLIENT = "client"
    TASK = "task"
    SERVICE = "service"


class ManagementMode(StrEnum):
    """Who starts and stops the runtime."""

    MANAGED = "managed"
    EXTERNALLY_MANAGED = "externally_managed"

    @classmethod
    def _missing_(cls, value: object) -> "ManagementMode | None":
        # The published contract's word for the same mode.
        return cls.MANAGED if value == "jido_managed" else None


class EndpointProtocol(StrEnum):
    """What is spoken at the endpoint."""

    OPENAI_CHAT_COMPLETIONS = "openai_chat_completions"
    INFERD_V2 = "inferd_v2"


class StartupKind(StrEnum):
    """How the runtime comes to be."""

    SPAWNED = "spawned"
    ATTACH_EXISTING_SERVICE = "attach_existing_service"


class TargetClass(StrEnum):
    """Where the work is done."""

    CLI_ENDPOINT = "cli_endpoint"
    SELF_HOSTED_ENDPOINT = "self_hosted_endpoint"
    CLOUD_PROVIDER = "cloud_provider"


class CompatibilityReason(StrEnum):
    """Why a consumer and a backend fit or, by the first mismatch, do not."""

    PROTOCOL_MATCH = "protocol_match"
    RUNTIME_KIND_MISMATCH = "runtime_kind_mismatch"
    MANAGEMENT_MODE_MISMATCH = "management_mode_mismatch"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    MISSING_STREAMING = "missing_streaming"
    MISSING_CAPABILITY = "missing_capability"
    STARTUP_KIND_MISMATCH = "startup_kind_mismatch"
    TARGET_CLASS_MISMATCH = "target_class_mismatch"


class Constraints(Struct, frozen=True, omit_defaults=True):
    """What else a consumer insists on; None leaves it open."""

    startup_kind: StartupKind | None = None
    target_class: TargetClass | None = None


class ConsumerManifest(Struct, frozen=True, omit_defaults=True):
    """What a consumer accepts. What it leaves out, it does not care about.

    The accepted lists may hold words that this version does not know; those match nothing. A
    capability's name may end in `?`, as in the published contract.
    """

    consumer: str = ""
    accepted_runtime_kinds: list[str] = field(default_factory=lambda: [*RuntimeKind])
    accepted_management_modes: list[str] = field(default_factory=lambda: [*ManagementMode])
    accepted_protocols: list[str] = field(default_factory=lambda: [*EndpointProtocol])
    required_capabilities: CapabilityMap = {}
    optional_capabilities: CapabilityMap = {}
    constraints: Constraints = Constraints()
    metadata: JsonObject = {}
    contract_version: Literal["inference.v1"] = CONTRACT_VERSION

    def __post_init__(self) -> None:
        for name in (
            "accepted_runtime_kinds",
            "accepted_management_modes",
            "accepted_protocols",
            "required_capabilities",
            "optional_capabilities",
        ):
            if len(getattr(self, name)) > MAX_LISTED:
                raise ValueError(f"`{name}` lists more than {MAX_LISTED}")
        for name in ("required_capabilities", "optional_capabilities"):
            given: CapabilityMap = getattr(self, name)
            if any(key.endswith("?") for key in given):
                plain = {key.removesuffix("?"): value for key, value in given.items()}
                force_setattr(self, name, plain)
        check_json(self.metadata, "metadata")


class BackendManifest(Struct, frozen=True, kw_only=True):
    """What a runtime offers. `target_class` is ours, additive to the published fields.

    `resource_profile` says what it costs: `memory_bytes`, `accelerator`, `n_ctx`, … as known.
    """

    backend: str
    runtime_kind: RuntimeKind
    management_modes: list[ManagementMode]
    startup_kind: StartupKind
    protocols: list[EndpointProtocol]
    target_class: TargetClass = TargetClass.SELF_HOSTED_ENDPOINT
    capabilities: CapabilityMap = {}
    supported_surfaces: list[str] = []
    resource_profile: JsonObject = {}
    metadata: JsonObject = {}
    contract_version: Literal["inference.v1"] = CONTRACT_VERSION


class CompatibilityResult(Struct, frozen=True, kw_only=True):
    """Whether they fit, by what, and what is missing.

    `warnings` names optional capabilities that are not met; `missing_requirements` everything
    that is in the way, not only what `reason` names.
    """

    compatible: bool
    reason: CompatibilityReason
    resolved_runtime_kind: RuntimeKind | None = None
    resolved_management_mode: ManagementMode | None = None
    resolved_protocol: EndpointProtocol | None = None
    warnings: list[str] = []
    missing_requirements: list[str] = []
    metadata: JsonObject = {}
    contract_version: Literal["inference.v1"] = CONTRACT_VERSION


class EndpointDescriptor(Struct, frozen=True, kw_only=True):
    """Where a lease's owner sends its requests, and with which headers.

    Post to `base_url + "/chat/completions"`; with `uds`, over that Unix socket. `headers` bear
    the key: this record belongs in no log. It exists only once the runtime was seen ready.
    """

    endpoint_id: str
    runtime_kind: RuntimeKind
    management_mode: ManagementMode
    target_class: TargetClass
    protocol: EndpointProtocol
    base_url: str
    headers: dict[str, str]
    uds: str | None = None
    provider_identity: str
    model_identity: str
    source_runtime: str
    source_runtime_ref: str
    lease_ref: str
    health_ref: str
    boundary_ref: str | None = None
    capabilities: CapabilityMap = {}
    metadata: JsonObject = {}
    contract_version: Literal["inference.v1"] = CONTRACT_VERSION

    def __repr__(self) -> str:
        # The headers hold the key.
        return f"EndpointDescriptor({self.endpoint_id!r}, {self.base_url!r})"
