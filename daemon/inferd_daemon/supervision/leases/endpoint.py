"""What a lease gives its owner: the endpoint descriptor (leases.md section 1). Pure.

Made only of a runtime that was seen ready. It bears the key, and belongs in no log.
"""

from inferd_proto import CompatibilityResult, EndpointDescriptor, EndpointProtocol, ManagementMode

from ...backends.runtime import Endpoint, ModelFacts
from ...engines.address import base_url, headers, health_url
from ..runtimes.blueprint import Blueprint
from .lease import Lease


def describe_endpoint(
    lease: Lease,
    blueprint: Blueprint,
    endpoint: Endpoint,
    facts: ModelFacts | None,
    fits: CompatibilityResult,
) -> EndpointDescriptor:
    """Where the owner of `lease` sends its requests."""
    manifest = blueprint.manifest
    capabilities = dict(manifest.capabilities)
    if facts is not None:
        told: dict[str, bool] | None = facts.capabilities
        if told is None:
            told = {"vision": facts.vision, "audio": facts.audio}
        capabilities |= {
            name: value for name, value in told.items() if capabilities.get(name) == "unknown"
        }
    metadata: dict[str, object] = {}
    if facts is not None:
        known = {"n_ctx": facts.n_ctx, "slots": facts.slots}
        metadata = {name: value for name, value in known.items() if value is not None}
    return EndpointDescriptor(
        endpoint_id=f"{lease.lease_ref}/endpoint",
        runtime_kind=manifest.runtime_kind,
        management_mode=fits.resolved_management_mode or ManagementMode.MANAGED,
        target_class=manifest.target_class,
        protocol=fits.resolved_protocol or EndpointProtocol.OPENAI_CHAT_COMPLETIONS,
        base_url=base_url(endpoint),
        headers=headers(endpoint),
        uds=None if endpoint.uds is None else str(endpoint.uds),
        provider_identity=manifest.backend,
        model_identity=blueprint.model_identity or ("" if facts is None else facts.model),
        source_runtime=manifest.backend,
        source_runtime_ref=blueprint.instance_key,
        lease_ref=lease.lease_ref,
        health_ref=health_url(endpoint),
        boundary_ref=lease.context.boundary_ref,
        capabilities=capabilities,
        metadata=metadata,
    )
