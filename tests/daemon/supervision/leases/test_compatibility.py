"""The table of reasons, and what holds for every pair of manifests."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.supervision.leases.compatibility import explain, match
from inferd_proto import (
    BackendManifest,
    CompatibilityReason,
    Constraints,
    ConsumerManifest,
    EndpointProtocol,
    ManagementMode,
    RuntimeKind,
    StartupKind,
    TargetClass,
)

SERVER = BackendManifest(
    backend="llama_server",
    runtime_kind=RuntimeKind.SERVICE,
    management_modes=[ManagementMode.MANAGED],
    startup_kind=StartupKind.SPAWNED,
    protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
    capabilities={"streaming": True, "tool_calling": "unknown", "embeddings": False},
)


@pytest.mark.parametrize(
    ("consumer", "reason", "missing"),
    [
        ({}, "protocol_match", []),
        ({"accepted_runtime_kinds": ["task"]}, "runtime_kind_mismatch", ["runtime_kind"]),
        ({"accepted_runtime_kinds": []}, "runtime_kind_mismatch", ["runtime_kind"]),
        (
            {"accepted_management_modes": ["externally_managed"]},
            "management_mode_mismatch",
            ["management_mode"],
        ),
        ({"accepted_management_modes": ["jido_managed"]}, "protocol_match", []),
        ({"accepted_management_modes": ["by_hand", "managed"]}, "protocol_match", []),
        ({"accepted_protocols": ["inferd_v2", "grpc"]}, "unsupported_protocol", ["protocol"]),
        (
            {"constraints": {"startup_kind": "attach_existing_service"}},
            "startup_kind_mismatch",
            ["startup_kind"],
        ),
        ({"constraints": {"startup_kind": "spawned"}}, "protocol_match", []),
        (
            {"constraints": {"target_class": "cli_endpoint"}},
            "target_class_mismatch",
            ["target_class"],
        ),
        ({"required_capabilities": {"streaming?": True}}, "protocol_match", []),
        ({"required_capabilities": {"tool_calling": True}}, "missing_capability", ["tool_calling"]),
        ({"required_capabilities": {"tool_calling": "unknown"}}, "protocol_match", []),
        (
            {"required_capabilities": {"embeddings": "unknown"}},
            "missing_capability",
            ["embeddings"],
        ),
        ({"required_capabilities": {"embeddings": False, "new": False}}, "protocol_match", []),
        ({"required_capabilities": {"brand_new": True}}, "missing_capability", ["brand_new"]),
    ],
)
def test_reasons(consumer: dict[str, Any], reason: str, missing: list[str]) -> None:
    result = match(msgspec.convert(consumer, ConsumerManifest), SERVER)
    assert result.reason == reason
    assert result.compatible is (reason == "protocol_match")
    assert result.missing_requirements == missing


def test_resolved_is_what_both_have_and_the_backend_prefers() -> None:
    backend = msgspec.structs.replace(
        SERVER,
        protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS, EndpointProtocol.INFERD_V2],
    )
    consumer = ConsumerManifest(accepted_protocols=["inferd_v2", "openai_chat_completions"])
    result = match(consumer, backend)
    assert result.resolved_protocol is EndpointProtocol.OPENAI_CHAT_COMPLETIONS
    assert result.resolved_runtime_kind is RuntimeKind.SERVICE
    assert result.resolved_management_mode is ManagementMode.MANAGED


def test_no_streaming_is_its_own_reason_and_all_that_is_missing_is_listed() -> None:
    backend = msgspec.structs.replace(SERVER, capabilities={})
    consumer = ConsumerManifest(
        required_capabilities={"embeddings": True, "streaming": True},
        constraints=Constraints(),
    )
    result = match(consumer, backend)
    assert result.reason is CompatibilityReason.MISSING_STREAMING
    assert result.missing_requirements == ["streaming", "embeddings"]
    assert "streaming" in explain(result)
    assert "llama_server" in explain(result)


def test_optional_capabilities_only_warn() -> None:
    consumer = ConsumerManifest(optional_capabilities={"embeddings": True, "streaming": True})
    result = match(consumer, SERVER)
    assert result.compatible
    assert result.warnings == ["embeddings"]


capabilities = st.dictionaries(
    st.sampled_from(["streaming", "tool_calling", "embeddings", "vision"]),
    st.sampled_from([True, False, "unknown"]),
)
consumers = st.builds(
    ConsumerManifest,
    accepted_runtime_kinds=st.lists(st.sampled_from([*RuntimeKind, "other"]), max_size=8),
    accepted_management_modes=st.lists(
        st.sampled_from([*ManagementMode, "jido_managed", "x"]), max_size=8
    ),
    accepted_protocols=st.lists(st.sampled_from([*EndpointProtocol, "x"]), max_size=8),
    required_capabilities=capabilities,
    optional_capabilities=capabilities,
    constraints=st.builds(
        Constraints,
        startup_kind=st.none() | st.sampled_from(StartupKind),
        target_class=st.none() | st.sampled_from(TargetClass),
    ),
)
backends = st.builds(
    BackendManifest,
    backend=st.just("b"),
    runtime_kind=st.sampled_from(RuntimeKind),
    management_modes=st.lists(st.sampled_from(ManagementMode), unique=True),
    startup_kind=st.sampled_from(StartupKind),
    protocols=st.lists(st.sampled_from(EndpointProtocol), unique=True),
    target_class=st.sampled_from(TargetClass),
    capabilities=capabilities,
)


@given(consumers, backends)
def test_compatible_means_everything_resolved_and_nothing_missing(
    consumer: ConsumerManifest, backend: BackendManifest
) -> None:
    result = match(consumer, backend)
    resolved = (
        result.resolved_runtime_kind,
        result.resolved_management_mode,
        result.resolved_protocol,
    )
    assert result.compatible is (result.reason is CompatibilityReason.PROTOCOL_MATCH)
    assert result.compatible is (not result.missing_requirements)
    assert result.compatible is (None not in resolved)
    if result.compatible:
        assert resolved[2] in consumer.accepted_protocols
        assert resolved[2] in backend.protocols
        assert all(
            backend.capabilities.get(name) is True
            for name, value in consumer.required_capabilities.items()
            if value is True
        )


@given(consumers, backends)
def test_asking_for_less_never_hurts(consumer: ConsumerManifest, backend: BackendManifest) -> None:
    relaxed = msgspec.structs.replace(
        consumer, required_capabilities={}, constraints=Constraints(), optional_capabilities={}
    )
    if match(consumer, backend).compatible:
        assert match(relaxed, backend).compatible
