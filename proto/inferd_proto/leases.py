"""What the lease and runtime operations carry and answer (leases.md section 2).

Wire records only: times are relative (`ttl_ms`, `left_ms`), for clocks are not shared, and no
record but the endpoint ever holds a key.
"""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, json

from .contracts import (
    CapabilityMap,
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
)
from .messages import JsonObject
from .messages.limits import check_json

MIN_TTL_MS = 1_000
MAX_TTL_MS = 24 * 3_600 * 1_000
MAX_WAIT_MS = 3_600 * 1_000
MAX_OWNER_CHARS = 256
MAX_CONTEXT_BYTES = 4_096

TtlMs = Annotated[int, Meta(ge=MIN_TTL_MS, le=MAX_TTL_MS)]
"""From 1 s to 24 h."""
OwnerRef = Annotated[str, Meta(max_length=MAX_OWNER_CHARS)]
LeaseRef = Annotated[str, Meta(min_length=1, max_length=128)]
InstanceKey = Annotated[str, Meta(min_length=1, max_length=128)]
Transport = Literal["uds", "tcp"]
Bind = Literal["connection", "none"]
TargetKind = Literal["route", "boot", "attach", "agent"]


class RuntimeState(StrEnum):
    """Where a runtime is in its life."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    RESTARTING = "restarting"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    ADOPTED = "adopted"


class LeaseContext(Struct, frozen=True, omit_defaults=True):
    """What the owner wants kept beside the lease; the daemon only carries it."""

    run_id: Annotated[str, Meta(max_length=256)] | None = None
    boundary_ref: Annotated[str, Meta(max_length=256)] | None = None
    observability: JsonObject = {}

    def __post_init__(self) -> None:
        check_json(self.observability, "observability")
        # Kept for every lease: free-form data must not make a lease cost megabytes.
        if len(json.encode(self.observability)) > MAX_CONTEXT_BYTES:
            raise ValueError(f"`observability` is over {MAX_CONTEXT_BYTES} bytes")


class LeaseEnsure(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`lease.ensure`: have a runtime for `target` ready, and hold it.

    `target` is a route's name or a spec; `target_kind` tells which. `ttl_ms` null is for bound
    leases alone. `wait_ms` is how long to wait where memory or runtimes do not suffice. `plan`
    only tells what it would take, and changes nothing.
    """

    target: str | JsonObject
    consumer: ConsumerManifest = ConsumerManifest()
    transport: Transport = "uds"
    owner_ref: OwnerRef = ""
    ttl_ms: TtlMs | None = 60_000
    renewable: bool = True
    bind: Bind = "connection"
    context: LeaseContext = LeaseContext()
    wait_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0
    plan: bool = False

    def __post_init__(self) -> None:
        if self.ttl_ms is None and self.bind == "none":
            raise ValueError("`ttl_ms` may be null only with `bind` connection")
        target_kind(self.target)

    def __repr__(self) -> str:
        # A spec may hold a key.
        named = self.target if isinstance(self.target, str) else target_kind(self.target)
        return f"LeaseEnsure({named!r}, owner_ref={self.owner_ref!r})"


class LeaseRenew(Struct, frozen=True):
    """`lease.renew`: the time left becomes `ttl_ms`, counted from now."""

    lease_ref: LeaseRef
    ttl_ms: TtlMs


class LeaseRelease(Struct, frozen=True):
    """`lease.release`: succeeds as often as it is asked."""

    lease_ref: LeaseRef


class LeaseGet(Struct, frozen=True):
    """`lease.get`."""

    lease_ref: LeaseRef


class LeaseList(Struct, frozen=True, omit_defaults=True):
    """`lease.list`, with every filter given."""

    owner_ref: OwnerRef | None = None
    instance_key: InstanceKey | None = None
    uid: int | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """One owner's claim on one runtime. `left_ms` null: it lives as long as its connection."""

    lease_ref: str
    instance_key: str
    owner_ref: str
    uid: int
    pid: int | None
    transport: Transport
    bind: Bind
    renewable: bool
    ttl_ms: int | None
    left_ms: int | None
    age_ms: int
    context: LeaseContext


class LeaseEnsured(Struct, frozen=True):
    """The answer of `lease.ensure`."""

    lease: Lease
    endpoint: EndpointDescriptor
    compatibility: CompatibilityResult


class Holder(Struct, frozen=True):
    """Who holds a runtime that is in the way. A peer without the right to see it gets only the
    uid: `lease_ref` and `owner_ref` are "".
    """

    lease_ref: str
    owner_ref: str
    uid: int


class Obstacle(Struct, frozen=True):
    """A runtime that would have to go, and the leases that pin it (none: idle)."""

    instance_key: str
    name: str
    memory_bytes: int
    held_by: list[Holder] = []


class EnsurePlan(Struct, frozen=True, kw_only=True):
    """What an `ensure` takes: the answer of `plan: true`, and the details of a refusal.

    `verdict`: `running` (nothing to do), `fits`, `evicts` (idle runtimes in `evict` go first), or
    `refused`: even then not enough; `blocked_by` must be released as well, and where that is
    empty, the runtime is larger than the limits allow. Bytes are estimates.
    """

    verdict: Literal["running", "fits", "evicts", "refused"]
    needed_bytes: int
    free_bytes: int | None
    missing_bytes: int = 0
    missing_runtimes: int = 0
    evict: list[Obstacle] = []
    blocked_by: list[Obstacle] = []


class AgentStatus(Struct, frozen=True, kw_only=True):
    """One provider of CLI agents as `agent.list` shows it.

    `found` where its program is there; `logged_in` null where only a request could tell. `reason`
    says what keeps it from running. `models` are those that may be asked for, null: any.
    `upstream_protocol` is what a route must speak that it shall run on, null: it takes none.
    """

    provider: str
    found: bool
    version: str | None = None
    logged_in: bool | None = None
    reason: str = ""
    models: list[str] | None = None
    upstream_protocol: str | None = None
    max_runs: int = 0
    running: int = 0
    publication: dict[str, bool] = {}
    capabilities: CapabilityMap = {}


class RuntimeRef(Struct, frozen=True, omit_defaults=True):
    """`runtime.get`, `runtime.stop`, `runtime.restart`; `force` goes over living leases."""

    instance_key: InstanceKey
    force: bool = False


class Runtime(Struct, frozen=True, kw_only=True):
    """One runtime as `runtime.list` shows it. `endpoint` is its address, without a key."""

    instance_key: str
    name: str
    engine: str
    state: RuntimeState
    health: str
    pid: int | None = None
    memory_bytes: int | None = None
    estimated_bytes: int | None = None
    leases: int = 0
    idle_left_ms: int | None = None
    endpoint: str | None = None
    restarts: int = 0
    last_error: str | None = None
    model_identity: str = ""


def target_kind(target: str | JsonObject) -> TargetKind:
    """Which of the four a target is. Raises ValueError that names what is missing."""
    if isinstance(target, str):
        if not target:
            raise ValueError("`target` is empty: give a route's name or a spec")
        return "route"
    marks: tuple[tuple[str, TargetKind], ...] = (
        ("root_url", "attach"),
        ("agent", "agent"),
        ("provider", "agent"),
        ("model", "boot"),
    )
    for name, kind in marks:
        if name in target:
            return kind
    raise ValueError(
        "`target` is neither a boot spec (it has `model`), an attach spec (`root_url`), "
        "nor an agent spec (`agent`)"
    )
