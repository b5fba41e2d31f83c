"""`route.list`: the routes with their backends, readiness and queues."""

import msgspec

from inferd_proto import JsonObject

from ..routing.router import Route
from .call import Call
from .view import DaemonView


async def route_list(call: Call) -> JsonObject:
    """`{"routes": [...]}`."""
    return {"routes": describe_routes(call.view)}


def describe_routes(view: DaemonView) -> list[object]:
    """One plain object for each route, in the order of the configuration."""
    return [_describe(route, route is view.router.default) for route in view.router.routes]


def _describe(route: Route, default: bool) -> JsonObject:
    ready, reason = route.readiness()
    admission = route.gate.admission
    return {
        "name": route.name,
        "aliases": list(route.aliases),
        "default": default,
        "ready": ready,
        "reason": reason,
        "active": admission.active,
        "permits": admission.permits,
        "queued": admission.waiting,
        "queue_depth": admission.queue_depth,
        "backends": [
            {
                "name": backend.name,
                "kind": backend.kind,
                "ready": backend.readiness().ready,
                "reason": backend.readiness().reason,
                "capabilities": msgspec.to_builtins(backend.capabilities),
            }
            for backend in route.backends
        ],
    }
