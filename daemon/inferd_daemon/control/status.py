"""`status`: whether the daemon serves, and what."""

import os

import trio

from inferd_proto import JsonObject

from .call import Call
from .route_list import describe_routes


async def status(call: Call) -> JsonObject:
    """The daemon's state with its routes."""
    view = call.view
    state = view.state
    return {
        "version": view.version,
        "pid": os.getpid(),
        "uptime_s": round(trio.current_time() - view.started_at, 3),
        "state": state,
        "ready": state == "ready",
        "socket": view.socket,
        "connections": view.connections,
        "http": [] if view.http is None else view.http.addresses,
        "upgrades": view.upgrades,
        "routes": describe_routes(view),
    }
