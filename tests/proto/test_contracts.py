"""The contracts on the wire: names, defaults, limits, and that they survive both encodings."""

from typing import Any

import msgspec
import pytest

from inferd_proto import (
    BackendManifest,
    CompatibilityReason,
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    EndpointProtocol,
    JsonObject,
    Lease,
    LeaseContext,
    LeaseEnsure,
    LeaseRenew,
    ManagementMode,
    RuntimeKind,
    StartupKind,
    TargetClass,
    target_kind,
)


def _json(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_published_manifest_is_taken_as_it_is() -> None:
    published = {
        "contract_version": "inference.v1",
        "consumer": "jido_integration",
        "accepted_runtime_kinds": ["service", "task"],
        "accepted_management_modes": ["jido_managed", "externally_managed"],
        "accepted_protocols": ["openai_chat_completions"],
        "required_capabilities": {"streaming?": True},
        "optional_capabilities": {"tool_calling?": "unknown"},
        "constraints": {"startup_kind": "spawned", "target_class": "self_hosted_endpoint"},
        "metadata": {"suite": [1, None, "x"]},
        "a_field_of_tomorrow": 1,
    }
    manifest = msgspec.convert(published, ConsumerManifest)
    assert manifest.required_capabilities == {"streaming": True}
    assert manifest.optional_capabilities == {"tool_calling": "unknown"}
    assert manifest.constraints.startup_kind is StartupKind.SPAWNED


def test_published_name_of_the_managed_mode() -> None:
    assert msgspec.json.decode(b'"jido_managed"', type=ManagementMode) is ManagementMode.MANAGED
    assert _json(ManagementMode.MANAGED) == "managed"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'"by_hand"', type=ManagementMode)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"contract_version": "inference.v2"}, "contract_version"),
        ({"constraints": {"startup_kind": "magic"}}, "constraints.startup_kind"),
        ({"required_capabilities": {"streaming": "maybe"}}, "required_capabilities"),
        ({"accepted_protocols": ["x"] * 33}, "accepted_protocols"),
    ],
)
def test_a_wrong_manifest_names_the_path(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named.replace(".", r"\.")):
        msgspec.convert(wrong, ConsumerManifest)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"target": "r", "ttl_ms": 999}, "ttl_ms"),
        ({"target": "r", "ttl_ms": 86_400_001}, "ttl_ms"),
        ({"target": "r", "ttl_ms": None, "bind": "none"}, "ttl_ms"),
        ({"target": "r", "ttl_ms": 1.5}, "ttl_ms"),
        ({"target": "r", "bind": "process"}, "bind"),
        ({"target": "r", "transport": "vsock"}, "transport"),
        ({"target": "r", "wait_ms": -1}, "wait_ms"),
        ({"target": "r", "owner_ref": "x" * 257}, "owner_ref"),
        ({"target": ""}, "target"),
        ({"target": {"port": 0}}, "target"),
        ({}, "target"),
        ({"target": "r", "context": {"observability": {"x": "y" * 5000}}}, "observability"),
        ({"target": "r", "context": {"observability": {"x": "\u2318" * 1400}}}, "bytes"),
    ],
)
def test_a_wrong_ensure_names_the_field(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.convert(wrong, LeaseEnsure)


def test_ttl_null_is_for_bound_leases() -> None:
    bound = msgspec.convert({"target": "r", "ttl_ms": None}, LeaseEnsure)
    assert (bound.bind, bound.ttl_ms) == ("connection", None)
    with pytest.raises(msgspec.ValidationError, match="ttl_ms"):
        msgspec.convert({"lease_ref": "l", "ttl_ms": None}, LeaseRenew)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("qwen3", "route"),
        ({"model": "/m.gguf", "port": 0}, "boot"),
        ({"root_url": "http://127.0.0.1:11434", "kind": "ollama"}, "attach"),
        ({"provider": "codex", "model": "gpt"}, "agent"),
        ({"agent": "codex", "model": "gpt"}, "agent"),
    ],
)
def test_target_kinds(target: str | JsonObject, kind: str) -> None:
    assert target_kind(target) == kind


RECORDS: list[msgspec.Struct] = [
    BackendManifest(
        backend="llama_server",
        runtime_kind=RuntimeKind.SERVICE,
        management_modes=[ManagementMode.MANAGED],
        startup_kind=StartupKind.SPAWNED,
        protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
        capabilities={"streaming": True, "vision": "unknown"},
        supported_surfaces=["local_subprocess"],
        resource_profile={"memory_bytes": 1},
    ),
    CompatibilityResult(compatible=False, reason=CompatibilityReason.MISSING_STREAMING),
    EndpointDescriptor(
        endpoint_id="e",
        runtime_kind=RuntimeKind.SERVICE,
        management_mode=ManagementMode.MANAGED,
        target_class=TargetClass.SELF_HOSTED_ENDPOINT,
        protocol=EndpointProtocol.OPENAI_CHAT_COMPLETIONS,
        base_url="http://localhost/v1",
        headers={"Authorization": "Bearer k"},
        uds="/run/inferd/rt/a.sock",
        provider_identity="llama_server",
        model_identity="m",
        source_runtime="llama_server",
        source_runtime_ref="k",
        lease_ref="l",
        health_ref="http://localhost/health",
    ),
    Lease(
        lease_ref="l",
        instance_key="k",
        owner_ref="o",
        uid=0,
        pid=None,
        transport="uds",
        bind="none",
        renewable=True,
        ttl_ms=1000,
        left_ms=10,
        age_ms=990,
        context=LeaseContext(run_id="r"),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_survive_both_encodings(record: msgspec.Struct) -> None:
    kind = type(record)
    assert msgspec.json.decode(msgspec.json.encode(record), type=kind) == record
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=kind) == record


def test_every_contract_says_its_version() -> None:
    for record in RECORDS[:3]:
        assert getattr(record, "contract_version", None) == "inference.v1"
        assert b"inference.v1" in msgspec.json.encode(record)


def test_keys_do_not_show() -> None:
    assert "Bearer" not in repr(RECORDS[2])
    ensure = LeaseEnsure(target={"model": "/m.gguf", "api_key": "sk-1"}, owner_ref="me")
    assert "sk-1" not in repr(ensure)
    assert "boot" in repr(ensure)
