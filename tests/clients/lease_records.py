"""Leases and runtimes as the scripted daemon tells of them: plain JSON, as it crosses the wire."""

from inferd_proto import JsonObject

KEY = "k3y-0123456789"

LEASE: JsonObject = {
    "lease_ref": "lease-abc",
    "instance_key": "qwen3-8b-00112233445566778899aabbccddeeff",
    "owner_ref": "me",
    "uid": 1000,
    "pid": 4243,
    "transport": "uds",
    "bind": "connection",
    "renewable": True,
    "ttl_ms": 60_000,
    "left_ms": 60_000,
    "age_ms": 0,
    "context": {},
}
ENDPOINT: JsonObject = {
    "endpoint_id": "lease-abc/endpoint",
    "runtime_kind": "service",
    "management_mode": "managed",
    "target_class": "self_hosted_endpoint",
    "protocol": "openai_chat_completions",
    "base_url": "http://localhost/v1",
    "headers": {"Authorization": f"Bearer {KEY}"},
    "uds": "/run/inferd/r/qwen/server.sock",
    "provider_identity": "llama_server",
    "model_identity": "qwen3-8b",
    "source_runtime": "llama_server",
    "source_runtime_ref": LEASE["instance_key"],
    "lease_ref": "lease-abc",
    "health_ref": "http://localhost/health",
}
ENSURED: JsonObject = {
    "lease": LEASE,
    "endpoint": ENDPOINT,
    "compatibility": {"compatible": True, "reason": "protocol_match"},
}
RUNTIMES: list[JsonObject] = [
    {
        "instance_key": LEASE["instance_key"],
        "name": "qwen",
        "engine": "llama_server",
        "state": "ready",
        "health": "healthy",
        "pid": 4300,
        "memory_bytes": 6_442_450_944,
        "leases": 2,
        "endpoint": "unix:/run/inferd/r/qwen/server.sock",
        "restarts": 1,
        "model_identity": "qwen3-8b",
    },
    {
        "instance_key": "tiny-ffeeddccbbaa99887766554433221100",
        "name": "tiny",
        "engine": "llama_server",
        "state": "ready",
        "health": "healthy",
        "pid": 4301,
        "memory_bytes": 52_428_800,
        "idle_left_ms": 125_000,
        "endpoint": "127.0.0.1:8088",
        "model_identity": "tiny",
    },
    {
        "instance_key": "bad-00000000000000000000000000000000",
        "name": "bad",
        "engine": "llama_server",
        "state": "failed",
        "health": "unknown",
        "last_error": "the model is corrupt",
        "model_identity": "bad",
    },
    {
        "instance_key": "cold-11111111111111111111111111111111",
        "name": "cold",
        "engine": "llama_server",
        "state": "stopped",
        "health": "unknown",
        "model_identity": "cold",
    },
]
PLAN: JsonObject = {
    "verdict": "refused",
    "needed_bytes": 8_589_934_592,
    "free_bytes": 1_073_741_824,
    "missing_bytes": 2_147_483_648,
    "missing_runtimes": 0,
    "evict": [
        {
            "instance_key": RUNTIMES[1]["instance_key"],
            "name": "tiny",
            "memory_bytes": 52_428_800,
            "held_by": [],
        }
    ],
    "blocked_by": [
        {
            "instance_key": LEASE["instance_key"],
            "name": "qwen",
            "memory_bytes": 6_442_450_944,
            "held_by": [{"lease_ref": "lease-abc", "owner_ref": "me", "uid": 1000}],
        }
    ],
}
CHANGES: list[JsonObject] = [
    {
        "type": "snapshot",
        "state": "ready",
        "runtimes": RUNTIMES,
        "leases": [LEASE],
        "routes": [{"name": "demo"}],
    },
    {"type": "runtime", "runtime": RUNTIMES[0] | {"state": "restarting", "health": "unknown"}},
    {"type": "lease", "event": "expired", "lease": LEASE},
    {"type": "route", "route": {"name": "qwen3", "ready": False, "reason": "qwen is loading"}},
    {"type": "route", "route": {"name": "qwen3", "ready": True, "reason": ""}},
    {"type": "daemon", "state": "draining"},
    {"type": "weather", "sky": "blue"},
]
LOG: list[JsonObject] = [{"line": "loading"}, {"missed": 3}, {"line": "listening"}]
