"""Configuration to objects: which class answers for which `kind`. The one place that knows all."""

from msgspec import Struct

from .backends.base import Backend
from .backends.libllama import LibllamaBackend
from .backends.mock import MockBackend
from .backends.openai_compat import OpenAICompatBackend
from .config import Config, LibllamaConfig, MockConfig, OpenAICompatConfig, Places
from .engines.libllama import LibllamaEngine
from .routing.router import Router
from .routing.table import build_router
from .supervision.logs import RuntimeLog
from .supervision.supervisor import Supervisor

REVIVE_AFTER_S = 60.0
"""A worker that kept crashing is tried again now and then: no request would ask for it."""


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
                supervisors[name] = Supervisor(engine, log, revive_after_s=REVIVE_AFTER_S)
                backends[name] = LibllamaBackend(name, table, supervisors[name])
    return Assembly(backends, supervisors, build_router(config, backends))
