"""One connection of a blocking client, shared by threads: the reading, writing and waiting.

Of the threads that wait for an answer, one reads for all; there is no thread behind the caller's
back. Decides nothing: see `switchboard`, which only the holder of the lock may touch.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from inferd_proto import Answer

from .connecting import attempt, find_socket, may_retry, pauses
from .errors import AnswerTimeout, ConnectError, ProtocolViolation
from .requests import Build
from .switchboard import Mailbox, Switchboard, Undo

T = TypeVar("T")

_READ_BYTES = 64 * 1024
_CATCH_UP_READS = 64
"""More than a socket's buffer holds; a flood must not keep a client from closing."""

END_TIMEOUT_S = 2.0
"""How long leaving a stream waits for the daemon's last word; a slot is freed within 50 ms."""


class BlockingLink:
    """A connected socket and the requests on it."""

    def __init__(self, sock: socket.socket, switchboard: Switchboard) -> None:
        self._socket = sock
        self._switchboard = switchboard
        self._changed = threading.Condition()
        self._reading = False
        self._writing = False
        self._closed = False

    @classmethod
    def connect(
        cls,
        path: str | os.PathLike[str] | None,
        switchboard: Switchboard,
        *,
        connect_timeout_s: float,
        wait_s: float,
    ) -> "BlockingLink":
        """Connect; retries for `wait_s` while no daemon listens. Raises ConnectError."""
        found = find_socket(path)
        start = time.monotonic()
        for pause in pauses():
            try:
                return cls(attempt(found), switchboard)
            except ConnectError as error:
                if not may_retry(error, time.monotonic() - start, connect_timeout_s, wait_s):
                    raise
            time.sleep(pause)
        raise AssertionError("pauses() never ends")

    @property
    def lost(self) -> bool:
        """True once no more requests can be made."""
        return self._switchboard.lost

    @property
    def closed(self) -> bool:
        """True once this program has closed it."""
        return self._closed

    def start(self, build: Build, timeout_s: float | None, undo: Undo | None = None) -> Mailbox:
        """Send a request. Raises AnswerTimeout where the daemon takes longer to read it."""
        with self._changed:
            mailbox = self._switchboard.open(build, undo)
        try:
            self._flush(_deadline(timeout_s))
        except BaseException:
            self.end(mailbox)
            raise
        return mailbox

    def ask(
        self, build: Build, kind: type[T], timeout_s: float | None, undo: Undo | None = None
    ) -> T:
        """Send a request that has one answer, of `kind`, and wait for it.

        Where the answer comes and is not returned, `undo` takes back what it granted: at once, or
        when the connection is next read.
        """
        mailbox = self.start(build, timeout_s, undo)
        try:
            answer = self.next(mailbox, timeout_s)
        finally:
            self.end(mailbox)
        if not isinstance(answer, kind):
            raise ProtocolViolation(f"{kind.__name__} was due, {type(answer).__name__} came")
        return answer

    def next(self, mailbox: Mailbox, timeout_s: float | None) -> Answer | None:
        """The next answer, None after the last. Raises InferdError for what ended it early,
        AnswerTimeout where nothing came within `timeout_s`."""
        with self._changed:
            if not mailbox.ready:
                self._read_until(lambda: mailbox.ready, _deadline(timeout_s))
            return mailbox.take()

    def end(self, mailbox: Mailbox) -> None:
        """Leave a request: cancel it unless it has ended, and read past what still comes.

        Not longer than `END_TIMEOUT_S`.
        """
        with self._changed:
            self._switchboard.abandon(mailbox)
            if mailbox.settled:
                return
        deadline = _deadline(END_TIMEOUT_S)
        with suppress(AnswerTimeout):
            self._settle(lambda: mailbox.ended, deadline)
            if not mailbox.settled:
                self._settle(lambda: mailbox.settled, deadline)

    def close(self) -> None:
        """End the connection and every request on it; a thread that waits gets ClientClosed."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if self._switchboard.owes and not self._reading:
                self._catch_up()
            self._switchboard.close()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the threads in poll()
            self._changed.notify_all()
            while self._reading or self._writing:
                self._changed.wait()
            self._socket.close()

    def _settle(self, done: Callable[[], bool], deadline: float | None) -> None:
        self._flush(deadline)
        with self._changed:
            self._read_until(done, deadline)

    # -- with the lock held ----------------------------------------------------------------

    def _catch_up(self) -> None:
        """Read and write what can be without a wait: nobody else would undo what came late."""
        with suppress(OSError):
            for _ in range(_CATCH_UP_READS):
                self._switchboard.receive(self._socket.recv(_READ_BYTES))
        self._send_at_once()

    def _read_until(self, done: Callable[[], bool], deadline: float | None) -> None:
        while not done():
            if self._reading:
                if not self._changed.wait(_left(deadline)):
                    raise _too_late()
                continue
            if self._closed:
                return
            data = self._receive(deadline)
            self._switchboard.receive(data)
            self._changed.notify_all()
            self._send_at_once()

    def _receive(self, deadline: float | None) -> bytes:
        """Read once. Gives the lock away while it waits."""
        self._reading = True
        try:
            self._wait(select.POLLIN, deadline)
            return self._recv()
        finally:
            self._reading = False
            self._changed.notify_all()  # another thread has to lead if this one leaves

    def _recv(self) -> bytes:
        with suppress(ConnectionError):
            return self._socket.recv(_READ_BYTES)
        return b""

    def _send_at_once(self) -> None:
        """A stream that overflowed is cancelled, a late grant undone; what does not fit now goes
        out later."""
        outbox = self._switchboard.outbox
        while outbox and not self._writing:
            try:
                self._switchboard.sent(self._socket.send(outbox[0]))
            except BlockingIOError:
                return
            except OSError:
                outbox.clear()

    def _wait(self, events: int, deadline: float | None) -> int:
        """Poll the socket with the lock given away. Raises AnswerTimeout."""
        poll = select.poll()
        poll.register(self._socket, events)
        self._changed.release()
        try:
            left = _left(deadline)
            ready = poll.poll(None if left is None else left * 1000)
        finally:
            self._changed.acquire()
        if not ready:
            raise _too_late()
        return ready[0][1]

    # -- writing ---------------------------------------------------------------------------

    def _flush(self, deadline: float | None) -> None:
        """Write the outbox, reading meanwhile, so that two full socket buffers cannot hold each
        other up. What is not written in time stays for the next one to write."""
        with self._changed:
            while self._writing:
                if not self._changed.wait(_left(deadline)):
                    raise _too_late()
            self._writing = True
            try:
                self._write(deadline)
            finally:
                self._writing = False
                self._changed.notify_all()

    def _write(self, deadline: float | None) -> None:
        outbox = self._switchboard.outbox
        while outbox:
            try:
                self._switchboard.sent(self._socket.send(outbox[0]))
            except BlockingIOError:
                self._wait_to_write(deadline)
            except OSError:
                outbox.clear()  # what the daemon said before it closed is still to be read

    def _wait_to_write(self, deadline: float | None) -> None:
        if self._reading:
            self._wait(select.POLLOUT, deadline)
            return
        self._reading = True
        try:
            ready = self._wait(select.POLLIN | select.POLLOUT, deadline)
            if ready & select.POLLIN:
                self._switchboard.receive(self._recv())
        finally:
            self._reading = False
            self._changed.notify_all()


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _too_late() -> AnswerTimeout:
    return AnswerTimeout("the daemon did not answer within the client's timeout")
