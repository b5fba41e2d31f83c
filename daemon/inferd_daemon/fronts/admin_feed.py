"""`admin.sock`: what the daemon is and every change of it, one JSON object a line (wire.md
section 8). Read-only: what a client writes is thrown away, and no line ever holds a key.
"""

import os
import socket

import msgspec
import structlog
import trio

from inferd_proto import JsonObject

from ..control.call import Peer
from ..control.capabilities import describe_backends
from ..control.route_list import describe_routes
from ..control.view import DaemonView
from ..supervision.changes import FellBehind, Subscription
from .accepting import Acceptor
from .last_door import last_door
from .peer import peer_of
from .writer import ClientGone, SocketWriter

MAX_CLIENTS = 16
"""The feed is for a few watchers of the daemon's own user."""
WRITE_TIMEOUT_S = 30.0
RUNTIME_STATUS = {
    "starting": "loading_model",
    "ready": "ready",
    "degraded": "ready",
    "restarting": "restarting",
    "draining": "draining",
}
"""What a runtime's state is called on the feed; states without a word of their own come with the
daemon's."""
_log = structlog.get_logger(__name__)


class AdminFeed:
    """All clients of the feed."""

    def __init__(self, sock: socket.socket, view: DaemonView) -> None:
        self._acceptor = Acceptor(sock)
        self._view = view
        self._clients = 0

    async def run(self) -> None:
        """Accept and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                sock = await self._acceptor.accept()
                peer = peer_of(sock)
                if self._clients >= MAX_CLIENTS or peer.uid not in (0, os.geteuid()):
                    sock.close()
                    continue
                sock.setblocking(False)
                self._clients += 1
                nursery.start_soon(self._serve, sock, peer)

    async def _serve(self, sock: socket.socket, peer: Peer) -> None:
        with last_door("admin feed", peer.pid):
            await self._feed(sock)

    async def _feed(self, sock: socket.socket) -> None:
        try:
            with sock, self._view.leases.changes.subscribed() as subscription:
                async with trio.open_nursery() as nursery:

                    async def end_after(cause: trio.Event | None) -> None:
                        await (cause.wait() if cause is not None else _until_closed(sock))
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(end_after, subscription.behind)
                    nursery.start_soon(end_after, None)
                    await self._tell(SocketWriter(sock, WRITE_TIMEOUT_S), subscription)
        except* (ClientGone, FellBehind):
            _log.info("admin feed client dropped")
        finally:
            self._clients -= 1

    async def _tell(self, writer: SocketWriter, subscription: Subscription) -> None:
        known = describe_backends(self._view)
        await writer.write(b"".join(_capabilities(known)) + self._snapshot())
        while True:
            await writer.write(self._line(await subscription.next()))
            now = describe_backends(self._view)
            if now != known:
                await writer.write(
                    b"".join(_capabilities([one for one in now if one not in known]))
                )
                known = now

    def _snapshot(self) -> bytes:
        view = self._view
        keeper = view.leases.keeper
        now = keeper.now()
        return _line(
            view.state,
            version=view.version,
            pid=os.getpid(),
            runtimes=[view.leases.describe(runtime) for runtime in view.leases.runtimes],
            leases=[
                msgspec.to_builtins(lease.to_wire(now))
                for lease in keeper.table
                if not lease.implicit
            ],
            routes=describe_routes(view),
        )

    def _line(self, change: JsonObject) -> bytes:
        details = {key: value for key, value in change.items() if key not in ("type", "state")}
        match change:
            case {
                "type": "runtime",
                "runtime": {"state": str(state), "instance_key": str(key)},
            } if state in RUNTIME_STATUS:
                status = RUNTIME_STATUS[state]
                if status == "loading_model":
                    details |= self._loading(key)
                return _line(status, **details)
            case _:
                return _line(self._view.state, **details)

    def _loading(self, key: str) -> JsonObject:
        """The engine maps the file and builds its cache; it tells of no other phases."""
        runtime = self._view.leases.runtimes.get(key)
        details: JsonObject = {"phase": "mmap"}
        if runtime is not None and runtime.blueprint.files:
            details["path"] = runtime.blueprint.files[0]
            if n_ctx := runtime.blueprint.to_json().get("ctx_size"):
                details["n_ctx"] = n_ctx
        return details


def _capabilities(backends: list[JsonObject]) -> list[bytes]:
    return [_line("capabilities", **backend) for backend in backends]


def _line(status: str, **fields: object) -> bytes:
    return (
        msgspec.json.encode({"id": "admin", "type": "status", "status": status, **fields}) + b"\n"
    )


async def _until_closed(sock: socket.socket) -> None:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            if not sock.recv(65_536):
                return
        except BlockingIOError:
            continue
        except OSError:
            return
