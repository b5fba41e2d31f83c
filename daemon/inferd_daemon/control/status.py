"""`status`: whether the daemon serves, and what."""

import os

import trio

from inferd_proto import JsonObject

from .route_list import describe_routes
from .view import DaemonView


async def status(view: DaemonView, _arguments: JsonObject) -> JsonObject:
    """The daemon's state with its routes."""
    state = view.state
    return {
        "version": view.version,
        "pid": os.getpid(),
        "uptime_s": round(trio.current_time() - view.started_at, 3),
        "state": state,
        "ready": state == "ready",
        "socket": view.socket,
        "connections": view.connections,
        "routes": describe_routes(view),
    }
