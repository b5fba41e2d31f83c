"""Configuration to objects: which class answers for which `kind`. The one place that knows all."""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from .backends.agent import AgentBackend
from .backends.base import Backend
from .backends.libllama import LibllamaBackend
from .backends.llama_server import LlamaServerBackend
from .backends.mock import MockBackend
from .backends.openai_compat import OpenAICompatBackend, unfit_keys
from .config import (
    AgentBackendConfig,
    BackendConfig,
    BootFields,
    Config,
    LibllamaConfig,
    LlamaServerConfig,
    MockConfig,
    OpenAICompatConfig,
    Places,
    group_id,
    idle_seconds,
)
from .config.lines import Path as KeyPath
from .engines.base import EngineFailure
from .engines.llama_server.binary import find_command
from .engines.llama_server.boot_spec import BootSpec, BootSpecError, normalise
from .engines.machine_memory import total_bytes
from .errors import CallerFault, OperatorError
from .fronts.http.needs import unmet_needs
from .models.demo import demo_model_path
from .routing.router import Router
from .routing.table import build_router
from .supervision.agent_room import AgentRoom, unfit_agent
from .supervision.kv.store import KvStore
from .supervision.leases.blueprints import Blueprints, SpecReaders, attach_reader, boot_reader
from .supervision.leases.eviction import Limits
from .supervision.leases.journal_file import look_at_journal, open_journal
from .supervision.leasing import Leasing
from .supervision.on_demand import OnDemand
from .supervision.runtimes.attach_blueprint import configured_service
from .supervision.runtimes.blueprint import Blueprint
from .supervision.runtimes.boot_blueprint import BootBlueprint, Site
from .supervision.runtimes.leftovers import Leftovers
from .supervision.runtimes.resident_blueprint import ResidentBlueprint
from .supervision.succession.handover import Handover


class Unmet(NamedTuple):
    """What the configuration names at `path` and this machine does not have.

    `stops`: nothing starts without it; else the backend says so until it is there.
    """

    path: KeyPath
    message: str
    stops: bool


class Assembly(Struct, frozen=True):
    """The daemon's parts; the app runs the leasing and the backends."""

    backends: dict[str, Backend]
    leasing: Leasing
    router: Router
    agents: AgentRoom


def assemble(
    config: Config,
    places: Places,
    handover: Handover | None = None,
    *,
    rehearsal: bool = False,
) -> Assembly:
    """Every part that `config` names. Raises OperatorError where one cannot be made.

    The runtimes of a `handover` are taken over. A `rehearsal` leaves all files as they are, for the
    daemon that runs on them.
    """
    configured: dict[str, Blueprint] = {}
    agents = _agents(config, places, configured)
    blueprints = _configure(config, places, configured, agents)
    if not rehearsal:
        _sweep_caches(config, places, configured)
    # The former self has left the journal whole, and the first entry has it written anew: an fsync
    # here would have every client wait for the disk.
    read = open_journal if handover is None and not rehearsal else look_at_journal
    leasing = Leasing(
        read(places.state / "journal"),
        blueprints,
        _limits(config),
        socket_group=group_id(config.daemon.socket_group, "socket_group"),
        handover=handover,
        leftovers=Leftovers(places.runtimes, places.state / "logs"),
    )
    agents.open(leasing)
    backends: dict[str, Backend] = {}
    for name, table in config.backends.items():
        match table:
            case MockConfig():
                backends[name] = MockBackend(name, table)
            case OpenAICompatConfig():
                backends[name] = OpenAICompatBackend(name, table)
            case LibllamaConfig():
                key = configured[name].instance_key
                runtime = leasing.runtimes.get(key)
                assert runtime is not None
                backends[name] = LibllamaBackend(name, table, runtime.supervisor)
            case LlamaServerConfig():
                on_demand = OnDemand(configured[name], leasing)
                backends[name] = LlamaServerBackend(name, table, on_demand)
            case AgentBackendConfig():
                backends[name] = AgentBackend(name, agents.route(configured[name]))
    return Assembly(backends, leasing, build_router(config, backends), agents)


def look_around(config: Config) -> Iterator[Unmet]:
    """Everything that `config` needs of this machine and that is not there now."""
    for key in ("socket_group", "admin_group"):
        try:
            group_id(getattr(config.daemon, key), key)
        except OperatorError as error:
            yield Unmet(("daemon", key), str(error).removeprefix(f"{key}: "), True)
    if config.http is not None:
        for path, message in unmet_needs(config.http, os.environ):
            yield Unmet(("http", *path), message, True)
    for name, table in config.backends.items():
        for path, message, stops in _unmet(table, config):
            yield Unmet(("backends", name, *path), message, stops)


def _unmet(table: BackendConfig, config: Config) -> Iterator[Unmet]:
    match table:
        case AgentBackendConfig():
            for key, why, stops in unfit_agent(table, config.agents, os.environ):
                yield Unmet((key,), why, stops)
        case OpenAICompatConfig():
            for path, why in unfit_keys(table):
                yield Unmet(path, why, True)
        case LibllamaConfig():
            yield from _missing("model", None if table.model == "demo" else table.model)
            yield from _missing("mmproj", table.mmproj)
        case LlamaServerConfig():
            try:
                spec = normalise(_given(table), allow_remote=config.daemon.allow_remote)
            except BootSpecError as error:
                for field, why in error.mistakes:
                    yield Unmet(_path(field), why, True)
                return
            for key in ("model", "mmproj", "api_key_file"):
                yield from _missing(key, getattr(spec, key))
            try:
                find_command(spec, os.environ)
            except EngineFailure as error:
                why = str(error).removeprefix("`binary_path`: ")
                yield Unmet(("binary_path",), why, False)


def _missing(key: str, named: str | None) -> Iterator[Unmet]:
    """Looks only: to open a pipe would wait, and take from it."""
    if named is None:
        return
    try:
        mode = os.stat(named).st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
    else:
        if stat.S_ISDIR(mode):
            why = "it is a directory"
        elif not os.access(named, os.R_OK):
            why = "Permission denied"
        else:
            return
    yield Unmet((key,), f"{named!r} cannot be read: {why}", False)


def _path(field: str) -> KeyPath:
    """`extra_args[0]` and `environment.NAME`, as boot specs name what is inside a field."""
    if field.endswith("]"):
        name, _, index = field[:-1].partition("[")
        return (name, int(index))
    return tuple(field.split(".", 1))


def _agents(config: Config, places: Places, configured: Mapping[str, Blueprint]) -> AgentRoom:
    """`configured` may be filled later."""

    def upstream_of(route: str) -> Blueprint:
        found = config.routes.get(route)
        if found is None:
            known = (table for table in config.routes.values() if route in table.aliases)
            found = next(known, None)
        if found is None:
            raise ValueError(f"names no route; there is {', '.join(config.routes) or 'none'}")
        names = [name for tier in found.tiers for name in tier]
        names = [name for name in names if name in configured and configured[name].kind != "agent"]
        models = [configured[name] for name in names if _generates(config.backends[name])]
        if names and not models:
            raise ValueError(f"must be a route whose model generates; that of {route!r} does not")
        # What the daemon runs itself can be held; a service may go at any time.
        models.sort(key=lambda one: one.kind == "attach")
        if models:
            return models[0]
        raise ValueError(f"must be a route that a model of this daemon answers; {route!r} is none")

    # Not beside the sockets: programs may not be run from there on every system.
    directory = places.state / "agents"
    # In memory on most systems; the name is none that a backend may have.
    scratch = places.runtimes / ".agents"
    tables = {str(provider): table for provider, table in config.agents.items()}
    return AgentRoom(tables, os.environ, directory, upstream_of, scratch)


def _generates(table: BackendConfig) -> bool:
    """As far as its table tells."""
    if not isinstance(table, LlamaServerConfig | LibllamaConfig):
        return True
    return not (table.embeddings or table.reranking or table.pooling == "rank")


def _configure(
    config: Config,
    places: Places,
    configured: dict[str, Blueprint],
    agents: AgentRoom,
) -> Blueprints:
    """Fills `configured`."""
    site = Site(places.runtimes, places.state / "logs", os.environ)
    idle_ttl_s = idle_seconds(config.limits.idle_ttl)
    kv_store = KvStore(places.state / "kv", config.limits.kv_bytes)
    for name, table in config.backends.items():
        if isinstance(table, LibllamaConfig):
            configured[name] = ResidentBlueprint(name, table, site)
        elif isinstance(table, LlamaServerConfig):
            own = table.idle_ttl
            configured[name] = BootBlueprint(
                _boot_spec(name, table, allow_remote=config.daemon.allow_remote),
                site,
                idle_ttl_s=idle_ttl_s if own is None else idle_seconds(own),
                route=name,
                kv_store=kv_store if table.keep_kv else None,
            )
    for name, table in config.backends.items():
        if isinstance(table, OpenAICompatConfig):
            service = configured_service(name, table, os.environ)
            if service is not None:
                configured[name] = service
        if isinstance(table, AgentBackendConfig):
            try:
                configured[name] = agents.configure(name, table, idle_ttl_s)
            except CallerFault as error:
                raise OperatorError(f"backend {name}: {error.message}") from error
    remote = config.daemon.allow_remote
    readers: SpecReaders = {
        "boot": boot_reader(site, idle_ttl_s=idle_ttl_s, allow_remote=remote),
        "attach": attach_reader(os.environ, allow_remote=remote),
        "agent": agents.read,
    }
    return Blueprints(readers, configured)


def _sweep_caches(config: Config, places: Places, configured: Mapping[str, Blueprint]) -> None:
    """Drop those of backends that are no more."""
    KvStore(places.state / "kv", config.limits.kv_bytes).sweep(
        configured[name].instance_key
        for name, table in config.backends.items()
        if isinstance(table, LlamaServerConfig) and table.keep_kv
    )


def _boot_spec(name: str, table: LlamaServerConfig, *, allow_remote: bool) -> BootSpec:
    try:
        return normalise(_given(table), allow_remote=allow_remote)
    except BootSpecError as error:
        raise OperatorError(f"backend {name}: {error.message}") from error


def _given(table: LlamaServerConfig) -> dict[str, object]:
    given = {
        field: getattr(table, field)
        for field in BootFields.__struct_fields__
        if getattr(table, field) not in (None, "", [], {})
    }
    if table.model == "demo":
        given["model"] = str(demo_model_path())
        given.setdefault("model_identity", "demo")
    return given


def _limits(config: Config) -> Limits:
    memory = config.limits.memory_bytes
    return Limits(
        memory_bytes=total_bytes() if memory is None else memory or None,
        runtimes=config.limits.max_runtimes,
    )
