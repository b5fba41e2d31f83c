"""Configuration to objects: which class answers for which `kind`. The one place that knows all."""

from collections.abc import Mapping

from msgspec import Struct

from .backends.base import Backend
from .backends.libllama import LibllamaBackend
from .backends.mock import MockBackend
from .backends.openai_compat import OpenAICompatBackend
from .config import Config, LibllamaConfig, MockConfig, OpenAICompatConfig, Places
from .engines.libllama import LibllamaEngine
from .routing.admission import Admission
from .routing.gate import Gate
from .routing.router import Route, Router
from .supervision.logs import RuntimeLog
from .supervision.supervisor import Supervisor


class Assembly(Struct, frozen=True):
    """The daemon's parts; the app runs the supervisors and the backends."""

    backends: dict[str, Backend]
    supervisors: dict[str, Supervisor]
    router: Router


def assemble(config: Config, places: Places) -> Assembly:
    """Every part that `config` names. Raises OperatorError where one cannot be made."""
    backends: dict[str, Backend] = {}
    supervisors: dict[str, Supervisor] = {}
    for name, table in config.backends.items():
        match table:
            case MockConfig():
                backends[name] = MockBackend(name, table)
            case OpenAICompatConfig():
                backends[name] = OpenAICompatBackend(name, table)
            case LibllamaConfig():
                engine = LibllamaEngine(name, table, places.runtimes / name)
                log = RuntimeLog(places.state / "logs" / f"{name}.log")
                supervisors[name] = Supervisor(engine, log)
                backends[name] = LibllamaBackend(name, table, supervisors[name])
    return Assembly(backends, supervisors, build_router(config, backends))


def build_router(config: Config, backends: Mapping[str, Backend]) -> Router:
    """The routes with their doors."""
    routes: list[Route] = []
    for name, table in config.routes.items():
        chosen = [backends[backend] for backend in table.backends]
        permits = table.active_permits or sum(backend.slots for backend in chosen)
        gate = Gate(name, Admission(permits, table.queue_depth), table.max_wait_ms)
        routes.append(Route(name, chosen, table.aliases, gate))
    return Router(routes, config.default_route)
