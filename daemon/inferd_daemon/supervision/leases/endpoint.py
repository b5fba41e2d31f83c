"""What a lease gives its owner: the endpoint descriptor (leases.md section 1). Pure.

Made only of a runtime that was seen ready. It bears the key, and belongs in no log.
"""

from typing import TypedDict

from inferd_proto import CompatibilityResult, EndpointDescriptor, EndpointProtocol, ManagementMode

from ...backends.runtime import Endpoint, ModelFacts
from ...engines.llama_server.address import base_url, headers, health_url
from ..runtimes.blueprint import Blueprint
from .front_door import Door
from .lease import Lease


class _Place(TypedDict):
    base_url: str
    health_ref: str
    headers: dict[str, str]
    uds: str | None


def describe_endpoint(
    lease: Lease,
    blueprint: Blueprint,
    endpoint: Endpoint,
    facts: ModelFacts | None,
    fits: CompatibilityResult,
    door: Door | None = None,
) -> EndpointDescriptor:
    """Where the owner of `lease` sends its requests: to the runtime, or to the front's `door`."""
    manifest = blueprint.manifest
    capabilities = dict(manifest.capabilities)
    if facts is not None:
        told: dict[str, bool] | None = facts.capabilities
        if told is None:
            told = {"vision": facts.vision, "audio": facts.audio}
        capabilities |= {
            name: value for name, value in told.items() if capabilities.get(name) == "unknown"
        }
    metadata = dict(blueprint.published or {})
    if facts is not None:
        known = {"n_ctx": facts.n_ctx, "slots": facts.slots}
        metadata |= {name: value for name, value in known.items() if value is not None}
    return EndpointDescriptor(
        endpoint_id=f"{lease.lease_ref}/endpoint",
        runtime_kind=manifest.runtime_kind,
        management_mode=fits.resolved_management_mode or ManagementMode.MANAGED,
        target_class=manifest.target_class,
        protocol=fits.resolved_protocol or EndpointProtocol.OPENAI_CHAT_COMPLETIONS,
        **_place(lease, endpoint, door),
        provider_identity=manifest.backend,
        model_identity=lease.model_identity or pinned_model(blueprint, facts),
        source_runtime=manifest.backend,
        source_runtime_ref=blueprint.instance_key,
        lease_ref=lease.lease_ref,
        boundary_ref=lease.context.boundary_ref,
        capabilities=capabilities,
        metadata=metadata,
    )


def pinned_model(blueprint: Blueprint, facts: ModelFacts | None) -> str:
    """The one model that the runtime serves, as who had it started calls it; "" where nothing is
    known of it."""
    return blueprint.model_identity or ("" if facts is None else facts.model)


def _place(lease: Lease, endpoint: Endpoint, door: Door | None) -> _Place:
    if door is not None:
        root = door.root_url(lease.lease_ref)
        bearer = {"Authorization": f"Bearer {door.token}"}
        return _Place(base_url=f"{root}/v1", health_ref=f"{root}/health", headers=bearer, uds=None)
    return _Place(
        base_url=base_url(endpoint),
        health_ref=health_url(endpoint),
        headers=headers(endpoint),
        uds=None if endpoint.uds is None else str(endpoint.uds),
    )
