"""Many streams at once, read in one thread: what came of each, and how late its tokens were.

Tokens are those of `stamped_upstream`. The reader does little for each, so that what it measures is
the server's doing and not its own.
"""

import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from inferd_proto import FrameType, pack

STAMP = re.compile(rb'"(\d{15}) "')
ENDS = (b"\r\n0\r\n\r\n", b'"type":"done"')
ERROR = b'"type":"error"'
CARRY_BYTES = 96
"""A token or an end may be split between two receives."""


@dataclass
class Seen:
    """`late_us`: from the sending of a token to its coming; `first_us`: from request to first.

    Tokens without a stamp, those of a real engine, are in `deltas` alone.
    """

    requests: int = 0
    errors: int = 0
    deltas: int = 0
    late_us: list[int] = field(default_factory=list)
    first_us: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return len(self.late_us)


class OneStream:
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, address: Path | int, tokens: int, seen: Seen) -> None:
        self._seen = seen
        self._address = address
        self._mark = b'"delta":"' if isinstance(address, Path) else b'"content":"'
        if isinstance(address, Path):
            self._request = pack(
                FrameType.JSON,
                b'{"wire_version":1,"id":"1","messages":[{"role":"user","content":'
                b'[{"type":"text","text":"hi"}]}],"max_tokens":%d}' % tokens,
            )
        else:
            body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":%d}'
            body %= tokens
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            self._request = head % len(body) + body
        self._carry = b""
        self._asked_us = 0
        self.busy = False
        self.answering = False
        self.connect()

    def connect(self) -> None:
        if isinstance(self._address, Path):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(self._address))
        else:
            self.sock = socket.create_connection(("127.0.0.1", self._address))
        self.sock.setblocking(False)

    def ask(self) -> None:
        self.busy = True
        self.answering = False
        self._carry = b""
        self._asked_us = time.monotonic_ns() // 1000
        self.sock.sendall(self._request)

    def receive(self) -> None:
        """Raises EOFError where the server closed."""
        data = self.sock.recv(1 << 18)
        now_us = time.monotonic_ns() // 1000
        if not data:
            raise EOFError
        self.answering = True
        self._seen.deltas += (self._carry[1 - len(self._mark) :] + data).count(self._mark)
        data = self._carry + data
        end = 0
        for found in STAMP.finditer(data):
            end = found.end()
            self._seen.late_us.append(now_us - int(found[1]))
            if self._asked_us:
                self._seen.first_us.append(now_us - self._asked_us)
                self._asked_us = 0
        rest = data[end:]
        self._carry = rest[-CARRY_BYTES:]
        if ERROR in rest:
            self._seen.errors += 1
        if ERROR in rest or any(mark in rest for mark in ENDS):
            self._seen.requests += 1
            self.busy = False


class StreamCrowd:
    """`address` is the daemon's socket, or the port of a Chat Completions server."""

    def __init__(self, address: Path | int, streams: int, tokens: int) -> None:
        self.seen = Seen()
        self._ready = selectors.DefaultSelector()
        self._streams = [OneStream(address, tokens, self.seen) for _ in range(streams)]
        for stream in self._streams:
            self._ready.register(stream.sock, selectors.EVENT_READ, stream)

    def run(self, seconds: float, *, once: bool = False, within_s: float = 60.0) -> Seen:
        """All ask at once, and again for `seconds` unless `once`; until all are answered. To be
        called once.

        Raises TimeoutError.
        """
        started = time.monotonic()
        for stream in self._streams:
            self._ask(stream)
        busy = len(self._streams)
        while busy:
            for key, _ in self._ready.select(0.1):
                stream = key.data
                try:
                    stream.receive()
                except (EOFError, ConnectionResetError):
                    if stream.answering:
                        raise
                    self._ask_anew(stream)
                if not stream.busy:
                    if once or time.monotonic() - started > seconds:
                        busy -= 1
                        self._ready.unregister(stream.sock)
                    else:
                        self._ask(stream)
            if time.monotonic() - started > seconds + within_s:
                raise TimeoutError(f"{busy} streams have no end")
        return self.seen

    def ask_only(self) -> None:
        """All ask, and read nothing."""
        for stream in self._streams:
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.ask()

    def _ask(self, stream: OneStream) -> None:
        try:
            stream.ask()
        except ConnectionError:
            self._ask_anew(stream)

    def _ask_anew(self, stream: OneStream) -> None:
        """A server may close a connection after so many requests."""
        self._ready.unregister(stream.sock)
        stream.sock.close()
        stream.connect()
        self._ready.register(stream.sock, selectors.EVENT_READ, stream)
        stream.ask()

    def close(self) -> None:
        self._ready.close()
        for stream in self._streams:
            stream.sock.close()
