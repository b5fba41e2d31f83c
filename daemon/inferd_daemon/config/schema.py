"""The shape of the configuration file, apart from the backends' own tables."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from inferd_proto import LineOp

from .agents import AgentConfig, Provider
from .backends import BackendConfig
from .http import HttpConfig
from .idle_ttl import IdleTtl
from .routes import Label, Name, RouteConfig, ShareConfig, Uid

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
BackendName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""Names the files of its runtime too: nothing that a path would read otherwise."""
LogFormat = Literal["auto", "json", "human"]
LogLevel = Literal["debug", "info", "warning", "error"]


class DaemonConfig(Struct, frozen=True, kw_only=True):
    """`[daemon]`: the process itself.

    `socket` is the full path of `inferd.sock`; without it the rule of wire.md section 1 decides.
    `state_dir` holds what outlives the daemon: the logs of runtimes and the journal.
    `socket_group` may connect besides the daemon's user. `log_format` "auto" writes for humans
    on a terminal and JSON elsewhere. A client that takes nothing for `write_timeout_s` while an
    answer waits for it is disconnected, and so is one that began a message and sends nothing of its
    rest for `read_timeout_s`. `max_request_bytes_in_memory` bounds what the requests of all clients
    take together, from the header that announces the bytes to the request's end (messages up to
    64 KiB are not counted); what has no room is refused with `queue_full`. Members of `admin_group`
    may do what the daemon's user may on `inferd.sock`. `compat_sockets` adds `infer.embed.sock` and
    `infer.rerank.sock` beside it: JSON lines, for clients of another daemon. Only with
    `allow_remote` may a boot spec listen where other machines reach it.
    """

    socket: str | None = None
    state_dir: str | None = None
    socket_group: str | None = None
    admin_group: str | None = None
    compat_sockets: list[LineOp] = []
    allow_remote: bool = False
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"
    drain_timeout_s: Seconds = 30.0
    write_timeout_s: PositiveSeconds = 30.0
    read_timeout_s: PositiveSeconds = 30.0
    max_request_bytes_in_memory: Annotated[int, Meta(ge=1)] = 512 * 1024 * 1024
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096


class LimitsConfig(Struct, frozen=True, kw_only=True):
    """`[limits]`: what the runtimes that are started on demand may use together.

    `memory_bytes` missing: all of the machine's, or of the cgroup's; 0: no limit. `idle_ttl` is for
    runtimes whose own table does not say. `kv_bytes` bounds what all backends with `keep_kv` keep
    on disk; what was saved longest ago goes first, and half of the free disk is never exceeded.
    """

    memory_bytes: Annotated[int, Meta(ge=0)] | None = None
    max_runtimes: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    idle_ttl: IdleTtl = "10m"
    kv_bytes: Annotated[int, Meta(ge=0)] = 8 * 1024**3


class Config(Struct, frozen=True, kw_only=True):
    """The whole file. Requests that name no route go to `default_route`; without `http` nobody may
    ask over HTTP."""

    daemon: DaemonConfig = DaemonConfig()
    limits: LimitsConfig = LimitsConfig()
    default_route: Name | None = None
    http: HttpConfig | None = None
    backends: dict[BackendName, BackendConfig] = {}
    routes: dict[Name, RouteConfig] = {}
    clients: dict[Label, ShareConfig] = {}
    uids: dict[Uid, ShareConfig] = {}
    agents: dict[Provider, AgentConfig] = {}
