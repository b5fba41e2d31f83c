"""`capabilities`: what each backend can do."""

import msgspec

from inferd_proto import JsonObject

from ..backends.base import Backend
from .call import Call
from .view import DaemonView


async def capabilities(call: Call) -> JsonObject:
    """`{"backends": [{"backend", "wire_version", …}]}`; an absent key means not supported."""
    return {"backends": describe_backends(call.view)}


def describe_backends(view: DaemonView) -> list[JsonObject]:
    """One plain object for each backend that a route names."""
    backends = {b.name: b for route in view.router.routes for b in route.backends}
    return [_describe(backend) for backend in backends.values()]


def _describe(backend: Backend) -> JsonObject:
    can: JsonObject = msgspec.to_builtins(backend.capabilities)
    known = {key: value for key, value in can.items() if value not in (False, None)}
    return {"backend": backend.name, "wire_version": 1, "v2": True} | known
