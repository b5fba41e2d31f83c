"""What the daemon is told to do: typed, complete, and checked before anything starts."""

from .backends import (
    BackendConfig,
    LibllamaConfig,
    MockConfig,
    OpenAICompatConfig,
    UpstreamKind,
)
from .checking import Mistake
from .loading import ConfigError, find_config_file, load_config, parse_config, render_config
from .schema import Config, DaemonConfig, RouteConfig

__all__ = [
    "BackendConfig",
    "Config",
    "ConfigError",
    "DaemonConfig",
    "LibllamaConfig",
    "Mistake",
    "MockConfig",
    "OpenAICompatConfig",
    "RouteConfig",
    "UpstreamKind",
    "find_config_file",
    "load_config",
    "parse_config",
    "render_config",
]
