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
from .places import Places, find_places
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
    "Places",
    "RouteConfig",
    "UpstreamKind",
    "find_config_file",
    "find_places",
    "load_config",
    "parse_config",
    "render_config",
]
