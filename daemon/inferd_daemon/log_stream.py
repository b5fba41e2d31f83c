"""Log lines to a descriptor that may not take them: never waits; what cannot go out is counted.

A pipe that nobody reads, or a terminal that is stopped, must not stop the daemon. The descriptor is
shared with others, whose writes may well block: its own mode stays as it is.
"""

import os
import select
import socket
import stat
from collections.abc import Callable

_PIECE_BYTES = 4096
"""A pipe that takes anything takes this much without blocking (PIPE_BUF)."""


class LogStream:
    """Whole lines, in order."""

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        """Lines that were dropped since the last one that was taken."""
        self._rest = b""
        self._send, self._close = _sender(descriptor)

    def write(self, line: str) -> None:
        """Take a line, its newline with it, or drop it."""
        data = line.encode(errors="backslashreplace")
        sent = 0
        try:
            self._rest = self._rest[self._send_all(self._rest) :]
            if not self._rest:  # an earlier line is out whole
                sent = self._send_all(data)
        except OSError:  # a closed pipe, a full disk
            self.lost += 1
            return
        if sent:
            self._rest = data[sent:]
            self.lost = 0
        else:
            self.lost += 1

    def close(self) -> None:
        """Nothing is written after that. The descriptor it was made with stays open."""
        self._close()

    def _send_all(self, data: bytes) -> int:
        """How many bytes were taken."""
        sent = 0
        while sent < len(data):
            try:
                taken = self._send(data[sent : sent + _PIECE_BYTES])
            except BlockingIOError:
                break
            if not taken:
                break
            sent += taken
        return sent


def _sender(descriptor: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """How to write to `descriptor` without ever waiting for who reads it, and how to end that."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(descriptor))
        return lambda data: sock.send(data, socket.MSG_DONTWAIT), sock.close
    if stat.S_ISREG(mode):
        return lambda data: os.write(descriptor, data), _nothing
    try:
        # Another opening of the same pipe or terminal has a mode of its own.
        again = _open_again(descriptor)
    except OSError:  # no /proc, nobody reads, or it belongs to another user
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return lambda data: os.write(descriptor, data) if poll.poll(0) else 0, _nothing
    return lambda data: os.write(again, data), lambda: os.close(again)


def _open_again(descriptor: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)


def _nothing() -> None:
    """What was not opened is not closed."""
