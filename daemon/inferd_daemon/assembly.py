"""Configuration to objects: which class answers for which `kind`. The one place that knows all."""

from collections.abc import Mapping

from .backends.base import Backend
from .backends.mock import MockBackend
from .config import BackendConfig, Config, LibllamaConfig, MockConfig, OpenAICompatConfig
from .errors import OperatorError
from .routing.admission import Admission
from .routing.gate import Gate
from .routing.router import Route, Router


def build_backends(config: Config) -> dict[str, Backend]:
    """A backend for each `[backends.<name>]`. Raises OperatorError where one cannot be made."""
    return {name: build_backend(name, table) for name, table in config.backends.items()}


def build_backend(name: str, config: BackendConfig) -> Backend:
    """One backend by its kind."""
    match config:
        case MockConfig():
            return MockBackend(name, config)
        case LibllamaConfig() | OpenAICompatConfig():
            raise OperatorError(f"backend {name}: this kind of backend is not part of this version")


def build_router(config: Config, backends: Mapping[str, Backend]) -> Router:
    """The routes with their doors."""
    routes: list[Route] = []
    for name, table in config.routes.items():
        chosen = [backends[backend] for backend in table.backends]
        permits = table.active_permits or sum(backend.slots for backend in chosen)
        gate = Gate(name, Admission(permits, table.queue_depth), table.max_wait_ms)
        routes.append(Route(name, chosen, table.aliases, gate))
    return Router(routes, config.default_route)
