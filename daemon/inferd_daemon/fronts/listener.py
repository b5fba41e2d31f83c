"""Accepts clients on a listening socket and owns their sessions."""

import socket
import time
from collections.abc import Callable, Mapping

import trio

from inferd_proto import Error, ErrorCode, FrameType, LineConnection, LineOp, encode, pack

from ..control.view import DaemonView
from ..supervision.succession.handover import HandedClient, Handover
from .accepting import Acceptor
from .byte_budget import ByteBudget
from .peer import peer_of
from .session import Session

DECODING_THREADS = 1
"""For the long messages of all clients: two threads would only take the interpreter from each other
and from the loop."""
STARTS_A_TURN = 16
"""Of all clients: some 2 ms. Many that begin at once must not make the running ones late; with few
in a turn, streams get out of step, and less is read of each at a time."""
HALF_MESSAGE_S = 1.0
"""A whole message of a client that means it is here by then; its next one waits."""


class Listener:
    """All sessions of `inferd.sock`, and of the sockets beside it that speak JSON lines."""

    def __init__(
        self,
        sock: socket.socket,
        view: DaemonView,
        *,
        max_connections: int,
        write_timeout_s: float,
        read_timeout_s: float,
        budget: ByteBudget,
        on_disconnect: Callable[[int], None] = lambda _number: None,
        handover: Handover | None = None,
        lines: Mapping[LineOp, socket.socket] | None = None,
    ) -> None:
        """`on_disconnect` is told the number of each connection that ended.

        The clients of a `handover` are served on. `lines` are listening sockets for JSON lines.
        """
        self._on_disconnect = on_disconnect
        self._handed = [] if handover is None else handover.clients
        self.accepted = 0 if handover is None else handover.accepted
        """How many connections there have been; each is named by its number."""
        self._accepting = trio.CancelScope()
        self.paused_at = 0.0
        """When it stopped accepting, on the monotonic clock."""
        self._doors: list[tuple[socket.socket, LineOp | None]] = [(sock, None)]
        self._doors += [(door, op) for op, door in (lines or {}).items()]
        self._view = view
        self._max_connections = max_connections
        self._write_timeout_s = write_timeout_s
        self._read_timeout_s = read_timeout_s
        self._budget = budget
        self._sessions: set[Session] = set()
        self._threads = trio.CapacityLimiter(DECODING_THREADS)
        self._starts = trio.Semaphore(STARTS_A_TURN)
        self._idle = trio.Event()

    async def run(self) -> None:
        """Accept and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            for client in self._handed:
                sock = socket.socket(fileno=client.descriptor)
                self._begin(nursery, sock, client.number, client.lines)
            with self._accepting:
                async with trio.open_nursery() as doors:
                    for door, lines in self._doors:
                        doors.start_soon(self._accept, nursery, Acceptor(door), lines)
            await trio.sleep_forever()

    def pause(self) -> None:
        """Accept nobody and read no further requests: they wait for the daemon's next self."""
        self._accepting.cancel()
        self.paused_at = time.monotonic()
        for session in list(self._sessions):
            session.pause()

    async def settled(self) -> None:
        """Returns once what was under way in the paused sessions has ended, but for short work.

        Who does not finish the message that it is sending keeps nobody waiting for long.
        """
        with trio.move_on_after(HALF_MESSAGE_S):
            while not all(session.settled for session in self._sessions):
                self._idle = trio.Event()
                await self._idle.wait()
            return
        while any(session.working for session in self._sessions):
            self._idle = trio.Event()
            await self._idle.wait()

    async def rested(self) -> None:
        """Hear nobody any more; returns once the settled sessions rest."""
        for session in list(self._sessions):
            session.hush()
        await self.drained()

    def hand_over(self) -> list[HandedClient]:
        """The clients of the sessions that rest; the others lose their connection."""
        return [
            HandedClient(session.number, session.hand_over(), session.lines)
            for session in self._sessions
            if session.resting
        ]

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
        """Drop every client now, except those that rest."""
        for session in list(self._sessions):
            if not session.resting:
                session.abort()

    async def _accept(
        self, nursery: trio.Nursery, acceptor: Acceptor, lines: LineOp | None
    ) -> None:
        while True:
            sock = await acceptor.accept()
            if len(self._sessions) >= self._max_connections:
                self._turn_away(sock, lines)
                continue
            self.accepted += 1
            self._begin(nursery, sock, self.accepted, lines)

    def _begin(
        self, nursery: trio.Nursery, sock: socket.socket, number: int, lines: LineOp | None
    ) -> None:
        sock.setblocking(False)
        session = Session(
            sock,
            peer_of(sock),
            number,
            self._view,
            self._write_timeout_s,
            self._on_request_end,
            read_timeout_s=self._read_timeout_s,
            budget=self._budget,
            lines=lines,
            threads=self._threads,
            starts=self._starts,
        )
        self._sessions.add(session)
        if self._accepting.cancel_called:  # it was accepted in the very turn of the pause
            session.pause()
        nursery.start_soon(self._serve, sock, session)

    def _turn_away(self, sock: socket.socket, lines: LineOp | None) -> None:
        """One frame, or line, into the empty send buffer of a new socket cannot block."""
        message = f"{self._max_connections} clients are connected; try again later"
        error = Error("", ErrorCode.QUEUE_FULL, message)
        with sock:
            sock.setblocking(False)
            try:
                if lines is None:
                    sock.send(pack(FrameType.JSON, encode(FrameType.JSON, error)))
                else:
                    sock.send(LineConnection(lines).send(error))
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
