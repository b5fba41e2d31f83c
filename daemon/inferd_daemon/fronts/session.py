"""One connection on `inferd.sock`: bytes to requests, each request a task of this session.

Nothing outlives the connection: when the client leaves, its requests are cancelled.
"""

import errno
import socket
from collections.abc import Callable
from math import inf

import structlog
import trio

from inferd_proto import (
    CancelReceived,
    Closed,
    Event,
    LineConnection,
    LineOp,
    MessageHeld,
    Refused,
    RequestReceived,
    ServerConnection,
    UploadCancelled,
    decode_held,
)

from ..backends.thread import in_thread
from ..control.call import Peer
from ..control.view import DaemonView
from .answering import Answering, Ender
from .byte_budget import ByteBudget, SessionAccount
from .last_door import last_door
from .waiting_message import Unread, take_short
from .writer import ClientGone, SocketWriter, WriteTimeout

RECEIVE_BYTES = 65_536
MAX_TASKS = 320
"""More than may be in flight (256): the rest have their last frame encoded and wait for the client
to read it. A client that goes on asking without reading is not listened to until it does."""
DECODED_APART_BYTES = 1024 * 1024
"""A longer message is decoded in a thread while the loop serves others: up to the cap, 0.3 s."""
LOOK_AGAIN_S = 0.05
"""For the rest of a short message, which stays in the socket: that it is readable tells nothing."""
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ECONNABORTED}
_log = structlog.get_logger(__name__)


class ReadTimeout(Exception):
    """The client began a message and sent nothing more of it."""


class Session:
    """Serves one connected client until it leaves."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        number: int,
        view: DaemonView,
        write_timeout_s: float,
        on_request_end: Callable[[], None],
        *,
        read_timeout_s: float,
        budget: ByteBudget,
        lines: LineOp | None = None,
        threads: trio.CapacityLimiter | None = None,
        starts: trio.Semaphore | None = None,
    ) -> None:
        """`lines` of this kind are spoken, not frames, and answered one by one. `threads` bounds
        how many long messages are decoded at a time, `starts` how many requests begin in one turn
        of the loop: of all sessions that share them.
        """
        self._on_request_end = on_request_end
        self._sock = sock
        self._peer = peer
        self.number = number
        self._view = view
        self._account = SessionAccount(budget)
        self.lines: LineOp | None = lines
        self._connection = (
            ServerConnection(account=self._account, hold_over=DECODED_APART_BYTES)
            if lines is None
            else LineConnection(lines, account=self._account)
        )
        self._threads = threads
        self._starts = starts if starts is not None else trio.Semaphore(1)
        self._max_tasks = MAX_TASKS if lines is None else 1
        self._read_timeout_s = read_timeout_s
        self._writer = SocketWriter(sock, write_timeout_s)
        self._running: dict[str, Answering] = {}
        self._tasks = 0
        self._long_tasks = 0
        self._task_ended = trio.Event()
        self._paused = False
        self._heard_out = False
        self._hushed = False
        self._resting = False
        self._wait = trio.CancelScope()

    @property
    def resting(self) -> bool:
        """True once it is paused and nothing is under way: its socket may go to another owner."""
        return self._resting and not self.busy and not self._writer.pending

    @property
    def settled(self) -> bool:
        """True once it is paused and of what was under way nothing is left but short work."""
        return self._heard_out and not self.working and not self._writer.pending

    def pause(self) -> None:
        """Receive no more once the message that is coming in is whole; what runs goes on.

        Nothing but short messages: who keeps a lease, or calls off what runs, is heard meanwhile.
        """
        self._paused = True
        self._wait.cancel()

    def hush(self) -> None:
        """Receive nothing more at all."""
        self._hushed = True
        self._wait.cancel()

    def hand_over(self) -> int:
        """The descriptor of the resting client's socket, which is its next owner's from here on."""
        self._hushed = True
        return self._sock.detach()

    @property
    def busy(self) -> bool:
        """True while a request has no terminal answer."""
        return self._tasks > 0

    @property
    def working(self) -> bool:
        """True while it has such a request that is not done in a moment."""
        return self._long_tasks > 0

    def end_requests(self, by: Ender) -> None:
        """End each running request with its terminal frame."""
        for answering in list(self._running.values()):
            answering.end(by)

    def end_streams(self) -> None:
        """End what would go on for ever, so that the rest can be waited for."""
        for answering in list(self._running.values()):
            if answering.streams:
                answering.end("shutdown")

    def abort(self) -> None:
        """Drop the client now: reads end, and writes that wait for it fail."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    async def run(self) -> None:
        """Serve until the client closes, breaks the protocol, or stops reading or writing half-way.

        Whatever fails in here ends this client's session alone.
        """
        with last_door("session", self._peer.pid):
            try:
                async with trio.open_nursery() as nursery:
                    await self._receive(nursery)
                    nursery.cancel_scope.cancel()
            except* WriteTimeout:
                _log.warning("client does not read, disconnected", pid=self._peer.pid)
            except* ReadTimeout:
                _log.warning("client stopped in mid-message, disconnected", pid=self._peer.pid)
            except* ClientGone:
                _log.debug("client left before its answers were out", pid=self._peer.pid)
            finally:
                self._connection.close()
                self._account.close()

    async def _receive(self, nursery: trio.Nursery) -> None:
        while True:
            self._connection.receive_data(await self._receive_some())
            while (event := self._connection.next_event()) is not None:
                if isinstance(event, MessageHeld):
                    event = await self._decode(event)
                if event is not None and not await self._handle(event, nursery):
                    return

    async def _decode(self, held: MessageHeld) -> Event | None:
        try:
            decoded = await in_thread(decode_held, self._threads, held.encoding, held.payload)
        except OSError:  # no thread: better slowly than not at all
            decoded = decode_held(held.encoding, held.payload)
        return self._connection.resume(decoded)

    async def _receive_some(self) -> bytes:
        while True:
            if self._paused and self._connection.at_rest:
                return await self._receive_short()
            # woken by `pause`, once
            with trio.CancelScope(deadline=self._read_deadline()) as self._wait:
                await trio.lowlevel.wait_readable(self._sock)
            if self._wait.cancelled_caught:
                if trio.current_time() >= self._wait.deadline:
                    raise ReadTimeout
                continue
            try:
                return self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone(error.strerror) from None

    def _read_deadline(self) -> float:
        """A message that has begun is held in memory; between two a client may take its time."""
        if self._connection.at_rest:
            return inf
        return trio.current_time() + self._read_timeout_s

    async def _receive_short(self) -> bytes:
        """A short message, whole, or b"" at the end of the stream; it rests until one is there."""
        self._resting = self._heard_out = True
        self._on_request_end()
        while self.lines is None and not self._hushed:
            # woken by `hush`, once
            with trio.CancelScope() as self._wait:
                await trio.lowlevel.wait_readable(self._sock)
            if self._hushed:
                break
            try:
                taken = take_short(self._sock)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone(error.strerror) from None
            if isinstance(taken, bytes):
                self._resting = False
                return taken
            if taken is Unread.LATER:
                break
            await trio.sleep(LOOK_AGAIN_S)
        return await trio.sleep_forever()

    async def _handle(self, event: Event, nursery: trio.Nursery) -> bool:
        """False where the connection must end."""
        match event:
            case RequestReceived():
                await self._room()
                # known before its task runs: a cancel may be next in the same bytes
                answering = Answering(
                    event, self._connection, self._writer, self._view, self._peer, self.number
                )
                self._running[event.id] = answering
                self._long_tasks += not answering.short
                await self._start(event, answering, nursery)
            case CancelReceived(request_id):
                if request_id in self._running:
                    self._running[request_id].end("caller")
            case UploadCancelled(_, data):
                await self._writer.write(data)
            case Refused(request_id, code, _, data, close):
                # the reason is the client's to know: it may quote what the client wrote
                log = _log.info if close else _log.debug
                log("refused", id=request_id[:80], code=code.value, pid=self._peer.pid)
                await self._writer.write(data)
                return not close
            case Closed():
                return False
        return True

    async def _start(
        self, event: RequestReceived, answering: Answering, nursery: trio.Nursery
    ) -> None:
        """Begin to answer, as soon as no more begin in this turn than running answers can bear."""
        starts = self._starts
        try:
            starts.acquire_nowait()
        except trio.WouldBlock:
            await starts.acquire()
        try:
            nursery.start_soon(self._answer, event, answering)
            # tasks that start in the same turn of the loop run in any order: requests of one
            # client must come to the queue in theirs
            await trio.lowlevel.checkpoint()
        finally:
            starts.release()

    async def _room(self) -> None:
        while self._tasks >= self._max_tasks:
            self._task_ended = trio.Event()
            await self._task_ended.wait()
        self._tasks += 1

    async def _answer(self, event: RequestReceived, answering: Answering) -> None:
        try:
            await answering.run()
        finally:
            # the id may be in use again: its terminal frame is out before this task ends
            if self._running.get(event.id) is answering:
                del self._running[event.id]
            if event.charged:
                self._account.give_back(event.charged)
            self._tasks -= 1
            self._long_tasks -= not answering.short
            self._task_ended.set()
            self._on_request_end()
