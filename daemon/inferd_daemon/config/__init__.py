"""What the daemon is told to do: typed, complete, and checked before anything starts."""

from .agents import AgentConfig, Provider
from .backends import (
    AgentBackendConfig,
    BackendConfig,
    LibllamaConfig,
    LlamaServerConfig,
    MockConfig,
    OpenAICompatConfig,
    UpstreamKind,
)
from .boot_fields import BootFields
from .breaker import BreakerConfig
from .checking import Mistake
from .groups import group_id
from .http import HttpClientConfig, HttpConfig
from .idle_ttl import IdleTtl, idle_seconds
from .loading import (
    ConfigError,
    Draft,
    draft_of,
    find_config_file,
    load_config,
    parse_config,
    parse_draft,
    read_draft,
    render_config,
)
from .places import Places, find_places
from .routes import RouteConfig, RouteDefaults, RouteLimits, ShareConfig
from .schema import Config, DaemonConfig, LimitsConfig

__all__ = [
    "AgentBackendConfig",
    "AgentConfig",
    "BackendConfig",
    "BootFields",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "DaemonConfig",
    "Draft",
    "HttpClientConfig",
    "HttpConfig",
    "IdleTtl",
    "LibllamaConfig",
    "LimitsConfig",
    "LlamaServerConfig",
    "Mistake",
    "MockConfig",
    "OpenAICompatConfig",
    "Places",
    "Provider",
    "RouteConfig",
    "RouteDefaults",
    "RouteLimits",
    "ShareConfig",
    "UpstreamKind",
    "draft_of",
    "find_config_file",
    "find_places",
    "group_id",
    "idle_seconds",
    "load_config",
    "parse_config",
    "parse_draft",
    "read_draft",
    "render_config",
]
