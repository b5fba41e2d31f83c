"""The configured routes as objects."""

from collections.abc import Mapping

import trio

from ..backends.base import Backend
from ..config import Config, RouteConfig, ShareConfig
from .admission import UNBOUNDED, Admission
from .breaker import Breaker
from .gate import Gate
from .presets import Presets
from .router import Route, Router
from .shares import Share, Shares
from .upstream import Clock, Upstream


def build_router(
    config: Config, backends: Mapping[str, Backend], clock: Clock = trio.current_time
) -> Router:
    """The routes of `config` over `backends`, which holds every one that they name."""
    upstreams = {
        name: Upstream(backend, Breaker(config.backends[name].breaker), clock)
        for name, backend in backends.items()
    }
    routes = [_build_route(name, table, config, upstreams) for name, table in config.routes.items()]
    return Router(routes, config.default_route)


def _build_route(
    name: str, table: RouteConfig, config: Config, upstreams: Mapping[str, Upstream]
) -> Route:
    shares = Shares(
        uids={int(uid): _share(share) for uid, share in config.uids.items()},
        clients={label: _share(share) for label, share in config.clients.items()},
        peer=Share(1, table.limits.peer_active, table.limits.peer_queued),
    )
    tiers = [[upstreams[backend] for backend in tier] for tier in table.tiers]
    admission = Admission(table.active_permits or UNBOUNDED, table.queue_depth, shares)
    return Route(
        name,
        tiers,
        Gate(name, admission, table.max_wait_ms),
        aliases=table.aliases,
        presets=Presets(table.defaults, table.limits),
    )


def _share(table: ShareConfig) -> Share:
    return Share(table.weight, table.active, table.queued)
