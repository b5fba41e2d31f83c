"""The fields of a boot spec as they may be given: types and ranges only (leases.md section 3).

What they must be to each other, and what they mean, is the engine's to say.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from inferd_proto import JsonObject

LOCAL_SURFACE = "local_subprocess"
MAX_METADATA_BYTES = 4_096
"""As JSON: it is kept for every leased runtime, on disk too."""

Short = Annotated[str, Meta(max_length=256)]
PathText = Annotated[str, Meta(max_length=4096)]
Argument = Annotated[str, Meta(max_length=65_536)]
Arguments = Annotated[list[Argument], Meta(max_length=256)]
Threads = Annotated[int, Meta(ge=1, le=4096)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
GpuLayers = Annotated[int, Meta(ge=0, le=100_000)] | Literal["auto", "all"]
FlashAttention = Literal["on", "off", "auto"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]


class BootFields(Struct, frozen=True, kw_only=True):
    """The fields as they may be given; None and "" are the server's own default."""

    model: PathText
    binary_path: PathText | None = None
    launcher_args: Arguments = []
    mmproj: PathText | None = None
    alias: Short | None = None
    model_identity: Short | None = None
    host: Short | None = None
    port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    api_prefix: Short = ""
    ctx_size: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    gpu_layers: GpuLayers | None = None
    threads: Threads | None = None
    threads_batch: Threads | None = None
    threads_http: Threads | None = None
    parallel: Annotated[int, Meta(ge=1, le=256)] | None = None
    flash_attn: FlashAttention | None = None
    embeddings: bool = False
    reranking: bool = False
    pooling: Pooling | None = None
    api_key: Annotated[str, Meta(max_length=4096)] | None = None
    api_key_file: PathText | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    ready_timeout_ms: Milliseconds = 60_000
    readiness_interval_ms: Milliseconds = 3
    health_interval_ms: Milliseconds = 2_000
    stop_timeout_ms: Milliseconds = 5_000
    execution_surface: str | dict[str, object] = LOCAL_SURFACE
    environment: Annotated[dict[str, Argument], Meta(max_length=256)] = {}
    extra_args: Arguments = []
    metadata: JsonObject = {}


def metadata_mistake(value: object) -> str | None:
    """What is wrong with a caller's `metadata`, of any kind of spec; None where nothing is."""
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return "is no JSON"
    if size > MAX_METADATA_BYTES:
        return f"is over {MAX_METADATA_BYTES} bytes"
    return None
