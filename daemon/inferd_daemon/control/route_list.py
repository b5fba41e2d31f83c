"""`route.list`: the routes with their backends, readiness, breakers and queues."""

import msgspec
import trio

from inferd_proto import JsonObject

from ..routing.gate import Gate
from ..routing.router import Route
from ..routing.upstream import Upstream
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
        "permits": route.permits,
        "queued": admission.waiting,
        "queue_depth": admission.queue_depth,
        "max_wait_ms": _milliseconds(route.gate),
        "peers": [
            {
                "uid": counts.peer.uid,
                "client": counts.peer.client,
                "active": counts.active,
                "queued": counts.waiting,
                "weight": counts.weight,
            }
            for counts in admission.peers()
        ],
        "backends": [
            _describe_upstream(upstream, priority)
            for priority, tier in enumerate(route.tiers, 1)
            for upstream in tier
        ],
    }


def _describe_upstream(upstream: Upstream, priority: int) -> JsonObject:
    """Backends of one `priority` share the load."""
    backend, breaker, now = upstream.backend, upstream.breaker, trio.current_time()
    readiness = upstream.readiness()
    return {
        "name": backend.name,
        "kind": backend.kind,
        "priority": priority,
        "ready": readiness.ready,
        "reason": readiness.reason,
        "in_flight": upstream.in_flight,
        "slots": backend.slots,
        "breaker": {
            "state": breaker.state(now).value,
            "failures": breaker.failures(now),
            "retry_in_ms": round(breaker.retry_in(now) * 1000),
        },
        "capabilities": msgspec.to_builtins(backend.capabilities),
    }


def _milliseconds(gate: Gate) -> int | None:
    return None if gate.max_wait_s == float("inf") else round(gate.max_wait_s * 1000)
