"""A paced Chat Completions upstream whose every token is the moment at which it was sent.

    python tests/support/stamped_upstream.py PACE_MS

Prints its port, then serves until its standard input ends. A token is the reading of the monotonic
clock in microseconds, which all processes share: whoever receives it knows how long it took.
"""

import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HEALTH = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
FINISH = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)
MAX_TOKENS = re.compile(rb'"max_tokens":(\d+)')
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Stream:
    """One connection: the request that comes, and how many tokens of its answer are left."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.left = 0
        self._request = b""
        self._unsent = b""

    def receive(self) -> bool:
        """False where the client closed."""
        try:
            data = self.sock.recv(65_536)
            self._take(data)
        except ConnectionError:
            return False
        return bool(data)

    def _take(self, data: bytes) -> None:
        self._request += data
        head, found, body = self._request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and len(body) >= (int(length[1]) if length else 0):
            self._request = b""
            asked = MAX_TOKENS.search(body)
            self.left = int(asked[1]) if asked else 0
            self.send(HEAD if asked else HEALTH)

    def send(self, data: bytes) -> None:
        self._unsent += data
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return

    def tick(self, token: bytes) -> None:
        """The next token, and the end with the last one; nothing while the client does not read."""
        if self._unsent:
            self.send(b"")
        elif self.left:
            self.left -= 1
            self.send(token if self.left else token + chunk(FINISH) + b"0\r\n\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stamped() -> bytes:
    return chunk(
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%015d "},"finish_reason":null}]}\n\n'
        % (time.monotonic_ns() // 1000)
    )


def accept_all(listener: socket.socket) -> Iterator[Stream]:
    """Everyone who waits: a full backlog makes the others wait for a second or more."""
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Stream(sock)


def main(pace_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    streams: set[Stream] = set()
    due = time.monotonic()
    while True:
        for key, _ in ready.select(max(0.0, due - time.monotonic())):
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                for stream in accept_all(listener):
                    streams.add(stream)
                    ready.register(stream.sock, selectors.EVENT_READ, stream)
            elif not key.data.receive():
                streams.discard(key.data)
                ready.unregister(key.data.sock)
                key.data.sock.close()
        if time.monotonic() >= due:
            due = max(due + pace_s, time.monotonic())
            token = stamped()
            for stream in streams:
                try:
                    stream.tick(token)
                except ConnectionError:
                    stream.left = 0


@contextmanager
def stamped_upstream(pace_ms: float) -> Iterator[int]:
    """Its port, for the block."""
    command = [sys.executable, __file__, str(pace_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000)
