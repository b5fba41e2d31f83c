"""Accepts clients on a listening socket and owns their sessions."""

import socket
from collections.abc import Callable

import trio

from inferd_proto import Error, ErrorCode, FrameType, encode, pack

from ..control.view import DaemonView
from .accepting import Acceptor
from .peer import peer_of
from .session import Session


class Listener:
    """All sessions of `inferd.sock`."""

    def __init__(
        self,
        sock: socket.socket,
        view: DaemonView,
        *,
        max_connections: int,
        write_timeout_s: float,
        on_disconnect: Callable[[int], None] = lambda _number: None,
    ) -> None:
        """`on_disconnect` is told the number of each connection that ended."""
        self._on_disconnect = on_disconnect
        self._accepted = 0
        self._acceptor = Acceptor(sock)
        self._view = view
        self._max_connections = max_connections
        self._write_timeout_s = write_timeout_s
        self._sessions: set[Session] = set()
        self._idle = trio.Event()

    async def run(self) -> None:
        """Accept and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                sock = await self._acceptor.accept()
                if len(self._sessions) >= self._max_connections:
                    self._turn_away(sock)
                    continue
                sock.setblocking(False)
                self._accepted += 1
                session = Session(
                    sock,
                    peer_of(sock),
                    self._accepted,
                    self._view,
                    self._write_timeout_s,
                    self._on_request_end,
                )
                self._sessions.add(session)
                nursery.start_soon(self._serve, sock, session)

    async def drained(self) -> None:
        """Returns once no session has a running request; the daemon takes no new ones by then."""
        while any(session.busy for session in self._sessions):
            self._idle = trio.Event()
            await self._idle.wait()

    def end_streams(self) -> None:
        """End every control stream: none of them ends by itself."""
        for session in list(self._sessions):
            session.end_streams()

    def end_requests(self) -> None:
        """End every running request with its terminal frame."""
        for session in list(self._sessions):
            session.end_requests("shutdown")

    def abort(self) -> None:
        """Drop every client now."""
        for session in list(self._sessions):
            session.abort()

    def _turn_away(self, sock: socket.socket) -> None:
        """One frame into the empty send buffer of a new socket cannot block."""
        message = f"{self._max_connections} clients are connected; try again later"
        error = Error("", ErrorCode.QUEUE_FULL, message)
        with sock:
            sock.setblocking(False)
            try:
                sock.send(pack(FrameType.JSON, encode(FrameType.JSON, error)))
            except OSError:
                return  # it is gone already

    async def _serve(self, sock: socket.socket, session: Session) -> None:
        with sock:
            self._view.connections = len(self._sessions)
            try:
                await session.run()
            finally:
                self._sessions.discard(session)
                self._on_disconnect(session.number)
                self._view.connections = len(self._sessions)
                self._on_request_end()

    def _on_request_end(self) -> None:
        self._idle.set()
