"""`[backends.<name>]`: one table for each kind of backend, told apart by `kind`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .agents import Provider
from .boot_fields import BootFields
from .breaker import BreakerConfig
from .idle_ttl import IdleTtl

Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
UpstreamKind = Literal[
    "generic",
    "llama_server",
    "vllm",
    "sglang",
    "lmstudio",
    "localai",
    "ollama",
    "openai",
    "openrouter",
]


class MockConfig(Struct, frozen=True, kw_only=True, tag_field="kind", tag="mock"):
    """Answers without a model: `tok0 tok1 …`, or the misbehaviour asked for.

    `error` fails every request before its stream; `drop_after` fails it after so many tokens;
    `not_ready` is the reason it gives for taking no requests; `tool_call` answers with a call of
    the first tool (also done where `tool_choice` is "required").
    """

    first_token_ms: Milliseconds = 0.0
    token_ms: Milliseconds = 0.0
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 16
    error: str | None = None
    drop_after: Count | None = None
    not_ready: str | None = None
    tool_call: bool = False
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] = 8
    slots: Annotated[int, Meta(ge=1, le=100_000)] = 64
    breaker: BreakerConfig = BreakerConfig()


class LibllamaConfig(Struct, frozen=True, kw_only=True, tag_field="kind", tag="libllama"):
    """llama.cpp in a worker process of the daemon.

    `model` and `mmproj` are GGUF files, or `model = "demo"` for the model that ships with inferd.
    `ctx_size` in tokens, for all `parallel` slots together (0: as the model was trained).
    """

    model: str
    mmproj: str | None = None
    alias: str | None = None
    ctx_size: Count = 0
    parallel: Annotated[int, Meta(ge=1, le=256)] = 4
    gpu_layers: Annotated[int, Meta(ge=0)] | Literal["auto", "all"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    threads_batch: Annotated[int, Meta(ge=1, le=1024)] | None = None
    embeddings: bool = False
    reranking: bool = False
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    ready_timeout_s: PositiveSeconds = 60.0
    stop_timeout_s: PositiveSeconds = 10.0
    health_interval_s: PositiveSeconds = 5.0
    breaker: BreakerConfig = BreakerConfig()


class OpenAICompatConfig(Struct, frozen=True, kw_only=True, tag_field="kind", tag="openai_compat"):
    """A server that someone else runs and that speaks Chat Completions.

    `base_url` without a path (a trailing `/v1`, OpenRouter's `/api/v1`, is dropped), or `uds`, the
    path of its Unix socket. `api_key_file`, or `api_key_env`, the name of a variable, is preferred
    to `api_key`: a configuration file is read by more eyes. An empty key sends no header.

    `tool_choice`, `response_format` and `grammar` tell what this server really enforces, where that
    is not what its kind (`upstream`) is known for; what it does not enforce is refused. `grammar`
    goes as llama.cpp takes it, unless the kind has a way of its own. `audio_sample_rate` in Hz is
    the one rate it takes; missing: any. `slots` is how many requests it gets at once; missing: as
    many as a llama-server says that it has, 32 of any other kind.
    """

    base_url: str = "http://localhost"
    uds: str | None = None
    upstream: UpstreamKind = "generic"
    model: str | None = None
    api_key: str | None = None
    api_key_file: str | None = None
    api_key_env: str | None = None
    headers: dict[str, str] = {}
    tls_ca_file: str | None = None
    timeout_s: PositiveSeconds = 300.0
    connect_timeout_s: PositiveSeconds = 5.0
    first_byte_timeout_s: PositiveSeconds = 120.0
    idle_timeout_s: PositiveSeconds = 60.0
    vision: bool = False
    audio: bool = False
    audio_sample_rate: Annotated[int, Meta(ge=1, le=768_000)] | None = None
    tools: bool = True
    tool_choice: bool | None = None
    response_format: bool | None = None
    grammar: bool | None = None
    embed: bool = True
    rerank: bool = False
    slots: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    breaker: BreakerConfig = BreakerConfig()


class LlamaServerConfig(
    BootFields, frozen=True, kw_only=True, tag_field="kind", tag="llama_server"
):
    """A llama-server that the daemon starts by this boot spec when it is first needed.

    `model = "demo"` is the model that ships with inferd. Without a lease and without requests it
    stays warm for `idle_ttl`; missing: that of `[limits]`. With `keep_kv` what its slots hold is
    saved to the state directory before it stops, and restored when it starts: prompts go on where
    they were.
    """

    idle_ttl: IdleTtl | None = None
    keep_kv: bool = False
    breaker: BreakerConfig = BreakerConfig()


class AgentBackendConfig(Struct, frozen=True, kw_only=True, tag_field="kind", tag="agent"):
    """Runs of a CLI agent, by the limits of its `[agents.<provider>]`.

    `upstream` is the route that it runs on, of a model of this daemon; missing: what it has its own
    login for, and then `model` says which.
    """

    agent: Provider
    model: str | None = None
    upstream: str | None = None
    breaker: BreakerConfig = BreakerConfig()


BackendConfig = (
    MockConfig | LibllamaConfig | LlamaServerConfig | OpenAICompatConfig | AgentBackendConfig
)
