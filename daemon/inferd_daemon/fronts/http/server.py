"""Accepts HTTP clients and owns their connections; opens and loads nothing before it is wanted.

The connections are hypercorn's; accepting, pausing, draining and handing over are as on
`inferd.sock`. Imports nothing of the HTTP stack at its own import.
"""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import structlog
import trio

from inferd_proto import ErrorCode

from ...config import HttpConfig
from ...control.view import DaemonView
from ...errors import OperatorError, RequestError
from ...supervision.succession.handover import HandedHttpClient
from ..accepting import Acceptor
from ..byte_budget import ByteBudget
from ..last_door import last_door
from .doors import HttpDoor, HttpDoors
from .too_many import BUSY

if TYPE_CHECKING:
    from .connection import Connection
    from .stack import Stack

HALF_REQUEST_S = 1.0
"""A whole request of a client that means it is here by then; the next one waits."""
SPARE = 32
"""Connections beyond the limit, for what must not wait: agents' runs ask the daemon in their turn,
and would wait for those who wait for them. Only who is on this machine gets one; their descriptors
are of those that are kept from clients."""
RESTED_S = 1.0
"""Who has asked for nothing for so long may lose its connection to who comes when all are taken:
every HTTP client opens another one."""
_log = structlog.get_logger(__name__)


class HttpServer:
    """All HTTP connections of the daemon."""

    def __init__(
        self,
        doors: HttpDoors,
        config: HttpConfig | None,
        view: DaemonView,
        budget: ByteBudget,
        *,
        max_connections: int,
        handed: Sequence[HandedHttpClient] = (),
    ) -> None:
        """The clients that were `handed` over are served on."""
        self._doors = doors
        self._config = HttpConfig() if config is None else config
        self._tls = config is not None and config.tls_cert_file is not None
        self._view = view
        self._budget = budget
        self._max_connections = max_connections
        self._handed = list(handed)
        self.responses: Counter[int] = Counter()
        """How many answers had which status."""
        self._connections: dict[Connection, HttpDoor] = {}
        self._spare: set[Connection] = set()
        """Those of them that are beyond the limit."""
        self._stack: Stack | None = None
        self._loading = trio.Lock()
        self._opened, self._to_open = trio.open_memory_channel[HttpDoor](8)
        self._accepting = trio.CancelScope()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._doors.doors:
                await self._load()
            self._take_over(nursery)
            async with trio.open_nursery() as accepting:
                self._accepting = accepting.cancel_scope
                begun = list(self._doors.doors)
                for door in begun:
                    accepting.start_soon(self._accept, door, nursery)
                    _log.info("listening for HTTP", address=door.url(tls=self._has_tls(door)))
                async for door in self._to_open:
                    if door not in begun:  # one that a restored lease has opened before this ran
                        accepting.start_soon(self._accept, door, nursery)
            await trio.sleep_forever()

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [door.url(tls=self._has_tls(door)) for door in self._doors.doors]

    @property
    def stands(self) -> bool:
        """Whether there is a front: configured, or open for an agent's lease."""
        return self._doors.stand

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def address(self) -> str:
        """`http://127.0.0.1:PORT`, listening; opened where nothing of the kind is configured.

        Raises RequestError (`backend_unavailable`).
        """
        try:
            door, opened = self._doors.for_leases()
        except OperatorError as error:
            raise RequestError(ErrorCode.BACKEND_UNAVAILABLE, str(error)) from None
        if opened:
            _log.info("listening for HTTP, for leases", address=door.url(tls=False))
            self._opened.send_nowait(door)
        await self._load()
        return door.url(tls=False)

    def pause(self) -> None:
        """Accept nobody and read no further requests: they wait for the daemon's next self."""
        self._accepting.cancel()
        for connection in list(self._connections):
            connection.pause()

    async def rested(self) -> None:
        """Returns once what was under way on the paused connections has ended.

        Who does not finish the request that it is sending keeps nobody waiting for long.
        """
        with trio.move_on_after(HALF_REQUEST_S):
            while any(connection.under_way for connection in self._connections):
                await self._change()
            return
        await self.drained()

    async def drained(self) -> None:
        """Returns once no connection has a running request."""
        while any(connection.busy for connection in self._connections):
            await self._change()

    def hand_over(self) -> list[HandedHttpClient]:
        """The clients whose connections rest; the others lose theirs."""
        return [
            HandedHttpClient(door.name, connection.hand_over())
            for connection, door in self._connections.items()
            if connection.resting
        ]

    def end_requests(self) -> None:
        """End every running request with an error."""
        for connection in list(self._connections):
            connection.end_request("shutdown")

    def abort(self) -> None:
        """Drop every client now, except those that rest."""
        for connection in list(self._connections):
            if not connection.resting:
                connection.abort()

    def _has_tls(self, door: HttpDoor) -> bool:
        return self._tls and door.name == "listen"

    async def _load(self) -> "Stack":
        async with self._loading:
            if self._stack is None:
                # a third of a second, in which the frames' clients want to be served
                self._stack = await trio.to_thread.run_sync(self._make_stack)
            return self._stack

    def _make_stack(self) -> "Stack":
        from .context import HttpContext
        from .stack import Stack

        context = HttpContext(self._view, self._config, self.responses)
        return Stack(context, self._budget, os.environ)

    def _take_over(self, nursery: trio.Nursery) -> None:
        doors = {door.name: door for door in self._doors.doors}
        for client in self._handed:
            sock = socket.socket(fileno=client.descriptor)
            door = doors.get(client.door)
            if door is None or self._stack is None:
                sock.close()  # the front does not listen there any more
            else:
                self._begin(nursery, sock, door)
        self._handed.clear()

    async def _accept(self, door: HttpDoor, nursery: trio.Nursery) -> None:
        acceptor = Acceptor(door.socket)
        await self._load()
        while True:
            sock = await acceptor.accept()
            if self._has_room():
                self._begin(nursery, sock, door)
            elif self._may_spare(door) and _make_room(self._spare, SPARE):
                self._begin(nursery, sock, door, spare=True)
            else:
                self._turn_away(sock, door)

    def _has_room(self) -> bool:
        taken = len(self._connections) - len(self._spare)
        if taken < self._max_connections:
            return True
        return _make_room(self._connections.keys() - self._spare, self._max_connections)

    def _may_spare(self, door: HttpDoor) -> bool:
        """Where agents' runs come in; without TLS it is loopback."""
        return door.name != "unix" and not self._has_tls(door)

    def _begin(
        self, nursery: trio.Nursery, sock: socket.socket, door: HttpDoor, *, spare: bool = False
    ) -> None:
        from .client_stream import ClientStream

        assert self._stack is not None
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = ClientStream(sock, self._config.idle_timeout_s)
        connection = self._stack.connect(client, door, self._on_change, spare=spare)
        self._connections[connection] = door
        if spare:
            self._spare.add(connection)
        if self._accepting.cancel_called:  # it was accepted in the very turn of the pause
            connection.pause()
        nursery.start_soon(self._serve, sock, connection)

    async def _serve(self, sock: socket.socket, connection: "Connection") -> None:
        with sock, last_door("HTTP connection", 0):
            try:
                await connection.run()
            finally:
                del self._connections[connection]
                self._spare.discard(connection)
                self._on_change()

    def _turn_away(self, sock: socket.socket, door: HttpDoor) -> None:
        """A few bytes into the empty send buffer of a new socket cannot block."""
        with sock:
            if not self._has_tls(door):
                sock.setblocking(False)
                try:
                    sock.send(BUSY)
                except OSError:
                    return  # it is gone already

    def _on_change(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()


def _make_room(connections: AbstractSet["Connection"], limit: int) -> bool:
    """Whether there is a place for one more, or could be had of one that rests: of the longest."""
    leaving = sum(connection.retired for connection in connections)
    if len(connections) - leaving < limit:
        return True
    rested = min(connections, key=lambda connection: connection.idle_since)
    if rested.idle_since > trio.current_time() - RESTED_S:
        return False
    rested.retire()
    return True
