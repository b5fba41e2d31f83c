"""One connection of an asynchronous client: the reading, writing and waiting, by anyio.

There is no task behind the caller's back: of the tasks that wait for an answer, one reads for
all, and hands that on when it leaves. So a client whose streams nobody takes from reads nothing,
which slows the engine down instead of filling memory. Decides nothing: see `switchboard`.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.lowlevel

from inferd_proto import Answer

from .connecting import attempt, find_socket, may_retry, pauses
from .errors import ConnectError, ProtocolViolation
from .requests import Build
from .switchboard import Mailbox, Switchboard, Undo
from .uncancelled import uncancelled

T = TypeVar("T")

_READ_BYTES = 64 * 1024
_CATCH_UP_READS = 64
"""More than a socket's buffer holds; a flood must not keep a client from closing."""

END_TIMEOUT_S = 2.0
"""How long leaving a stream waits for the daemon's last word; a slot is freed within 50 ms."""


class AsyncLink:
    """A connected socket and the requests on it."""

    def __init__(self, sock: socket.socket, switchboard: Switchboard) -> None:
        self._socket = sock
        self._switchboard = switchboard
        self._reading = False
        self._followers: dict[anyio.Event, Mailbox | None] = {}
        self._writing = anyio.Lock(fast_acquire=True)
        self._closed = False

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str] | None,
        switchboard: Switchboard,
        *,
        connect_timeout_s: float,
        wait_s: float,
    ) -> "AsyncLink":
        """Connect; retries for `wait_s` while no daemon listens. Raises ConnectError."""
        found = find_socket(path)
        start = anyio.current_time()
        for pause in pauses():
            await anyio.lowlevel.checkpoint()
            try:
                return cls(attempt(found), switchboard)
            except ConnectError as error:
                if not may_retry(error, anyio.current_time() - start, connect_timeout_s, wait_s):
                    raise
            await anyio.sleep(pause)
        raise AssertionError("pauses() never ends")

    @property
    def lost(self) -> bool:
        """True once no more requests can be made."""
        return self._switchboard.lost

    @property
    def closed(self) -> bool:
        """True once this program has closed it."""
        return self._closed

    async def start(self, build: Build, undo: Undo | None = None) -> Mailbox:
        """Send a request. Where this is cancelled the request is, too."""
        mailbox = self._switchboard.open(build, undo)
        try:
            await self._flush()
        except BaseException:
            await self.end(mailbox)
            raise
        return mailbox

    async def ask(self, build: Build, kind: type[T], undo: Undo | None = None) -> T:
        """Send a request that has one answer, of `kind`, and wait for it.

        Where the answer comes and is not returned, `undo` takes back what it granted: at once, or
        when the connection is next read.
        """
        mailbox = await self.start(build, undo)
        try:
            answer = await self.next(mailbox)
        finally:
            await self.end(mailbox)
        if not isinstance(answer, kind):
            raise ProtocolViolation(f"{kind.__name__} was due, {type(answer).__name__} came")
        return answer

    async def next(self, mailbox: Mailbox) -> Answer | None:
        """The next answer, None after the last. Raises InferdError for what ended it early."""
        if not mailbox.ready:
            await self._read_until(lambda: mailbox.ready, mailbox)
        return mailbox.take()

    async def end(self, mailbox: Mailbox) -> None:
        """Leave a request: cancel it unless it has ended, and read past what still comes.

        Not cancellable, and not longer than `END_TIMEOUT_S`.
        """
        self._switchboard.abandon(mailbox)
        if not mailbox.settled:
            await uncancelled(lambda: self._settle(mailbox), END_TIMEOUT_S)

    def close(self) -> None:
        """End the connection and every request on it; a task that waits gets ClientClosed."""
        if self._closed:
            return
        self._closed = True
        if self._switchboard.owes:
            self._catch_up()
        self._wake(self._switchboard.close())
        anyio.notify_closing(self._socket)
        self._socket.close()

    async def _settle(self, mailbox: Mailbox) -> None:
        await self._flush()
        await self._read_until(lambda: mailbox.ended, mailbox)
        if (undoing := mailbox.undoing) is not None:
            await self._flush()
            await self._read_until(lambda: undoing.ended, undoing)

    def _catch_up(self) -> None:
        """Read and write what can be without a wait: nobody else would undo what came late."""
        with suppress(OSError):
            for _ in range(_CATCH_UP_READS):
                self._switchboard.receive(self._socket.recv(_READ_BYTES))
        outbox = self._switchboard.outbox
        with suppress(OSError):
            while outbox:
                self._switchboard.sent(self._socket.send(outbox[0]))

    # -- reading: one task leads, the others follow ----------------------------------------

    async def _read_until(self, done: Callable[[], bool], mailbox: Mailbox | None = None) -> None:
        try:
            while not done():
                if self._reading:
                    await self._follow(mailbox)
                else:
                    await self._lead()
        finally:
            self._hand_over()

    async def _follow(self, mailbox: Mailbox | None) -> None:
        event = anyio.Event()
        self._followers[event] = mailbox
        try:
            await event.wait()
        finally:
            del self._followers[event]

    def _hand_over(self) -> None:
        """Wake one follower to lead. If it leaves instead, it hands on in its turn."""
        if not self._reading:
            for event in self._followers:
                event.set()
                return

    def _wake(self, mailboxes: list[Mailbox]) -> None:
        touched = set(mailboxes)
        for event, mailbox in self._followers.items():
            if mailbox in touched or self._switchboard.lost:
                event.set()

    async def _lead(self) -> None:
        self._reading = True
        try:
            data = await self._receive()
        finally:
            self._reading = False
        if data is None:
            return
        self._wake(self._switchboard.receive(data))
        if self._switchboard.outbox and not self._writing.locked():
            await self._flush()  # a stream that overflowed is cancelled, a late grant undone

    async def _receive(self) -> bytes | None:
        """What there is to read, b"" at the end, None where the client was closed meanwhile."""
        await anyio.lowlevel.checkpoint()  # before the read: a cancellation loses no byte
        while not self._closed:
            try:
                return self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                pass
            except ConnectionError:
                return b""
            with suppress(anyio.ClosedResourceError):
                await anyio.wait_readable(self._socket)
        return None

    # -- writing ---------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Write the outbox. Cancelled meanwhile, the rest stays for the next one to write."""
        outbox = self._switchboard.outbox
        async with self._writing:
            while outbox:
                try:
                    self._switchboard.sent(self._socket.send(outbox[0]))
                except BlockingIOError:
                    await self._wait_to_write()
                except OSError:
                    outbox.clear()  # what the daemon said before it closed is still to be read

    async def _wait_to_write(self) -> None:
        """Read meanwhile, so that two full socket buffers cannot hold each other up."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_until, lambda: self._switchboard.lost)
            with suppress(anyio.ClosedResourceError):
                await anyio.wait_writable(self._socket)
            group.cancel_scope.cancel()
