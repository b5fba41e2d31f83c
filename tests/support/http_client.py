"""HTTP to the real daemon, byte by byte: what a client library would not send, and what it hides.

with http_daemon() as daemon:
    answer = ask(daemon, b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from .daemon import RunningDaemon, running_daemon, wait_until

MOCK = """
[backends.mock]
kind = "mock"
slots = 8
[backends.slow]
kind = "mock"
token_ms = 20
max_tokens = 100000
[routes.mock]
backends = ["mock"]
[routes.slow]
backends = ["slow"]
"""
WAIT_S = 30.0


class Answer(NamedTuple):
    """Of one request. `body` is decoded from chunks."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object. Raises where the answer is none in OpenAI's shape."""
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@contextmanager
def http_daemon(
    http: str = "",
    more: str = MOCK,
    daemon: str = "",
    environ: Mapping[str, str] | None = None,
) -> Iterator[RunningDaemon]:
    """A daemon that listens for HTTP on a free port, with `http` in its table."""
    config = f'[daemon]\n{daemon}\n[http]\nlisten = "127.0.0.1:0"\n{http}\n{more}'
    with running_daemon(config=config, environ=environ) as running:
        running.wait_for("listening for HTTP")
        yield running


def addresses(daemon: RunningDaemon) -> list[str]:
    """Where it listens for HTTP, newest last."""
    found = "listening for HTTP"
    return [line["address"] for line in daemon.log_lines() if line["event"].startswith(found)]


def port_of(daemon: RunningDaemon) -> int:
    """Its TCP port."""
    found = [address for address in addresses(daemon) if address.startswith("http")]
    return int(found[-1].rpartition(":")[2])


def connect(daemon: RunningDaemon) -> socket.socket:
    """A new connection."""
    sock = socket.create_connection(("127.0.0.1", port_of(daemon)), WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(daemon: RunningDaemon, request: bytes) -> Answer:
    """One request on a connection of its own."""
    with connect(daemon) as sock:
        sock.sendall(request)
        return read_answer(sock)


def get(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """A GET as bytes."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(path: str, body: object, *headers: str) -> bytes:
    """A POST of JSON as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(data)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data


def chat(model: str = "mock", *headers: str, **fields: object) -> bytes:
    """A chat completion as bytes."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    return post("/v1/chat/completions", body, *headers)


def read_answer(sock: socket.socket) -> Answer:
    """The next answer, whole. Raises AssertionError where the connection ends in it."""
    data = read_until(sock, b"\r\n\r\n")
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    status = int(lines[0].split(" ")[1])
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunk(
            rest if rest.endswith(b"0\r\n\r\n") else read_until(sock, b"0\r\n\r\n", rest)
        )
    else:
        body = rest
        while len(body) < int(headers.get("content-length", 0)):
            body += _some(sock)
    return Answer(status, headers, body)


def read_until(sock: socket.socket, end: bytes, data: bytes = b"") -> bytes:
    """At least up to and with `end`."""
    while end not in data:
        data += _some(sock)
    return data


def ended(sock: socket.socket) -> bool:
    """Whether the daemon closes the connection; reads what still comes before."""
    try:
        while sock.recv(65_536):
            continue
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def wait_unused(daemon: RunningDaemon) -> None:
    """Until nothing runs on any route."""
    wait_until(lambda: _active(daemon) == 0, 10, "the end of all requests")


def wait_used(daemon: RunningDaemon) -> None:
    """Until something runs on some route."""
    wait_until(lambda: _active(daemon) > 0, 10, "the begin of a request")


def _active(daemon: RunningDaemon) -> float:
    text = ask(daemon, get("/metrics")).body.decode()
    lines = (line for line in text.splitlines() if line.startswith("inferd_route_active{"))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65_536)
    assert data, "the connection ended in an answer"
    return data


def _dechunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + rest[:length], rest[length + 2 :]
        if not length:
            break
    return body
