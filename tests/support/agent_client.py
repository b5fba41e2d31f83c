"""A daemon with a scripted CLI agent, and what asks it over the HTTP route of a lease."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.daemon import RunningDaemon
from tests.support.lease_client import Json, leasing_daemon
from tests.support.scripted_agent_cli import write_cli

LOCAL_ROUTE = """
[backends.local]
kind = "llama_server"
model = "demo"
threads = 1
[routes.local]
backends = ["local"]
"""

WAIT_S = 60.0
"""Longer than a run takes to begin where nearly nothing gets a turn."""
HTTP = """
[http]
listen = "127.0.0.1:0"
"""


class Reply(NamedTuple):
    """What a route answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body as an object."""
        value: Json = json.loads(self.body)
        return value

    @property
    def text(self) -> str:
        """What a whole completion says."""
        said: str = self.json["choices"][0]["message"]["content"]
        return said

    @property
    def error(self) -> str:
        """Its code; the error has OpenAI's shape."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        code: str = error["code"]
        return code

    @property
    def events(self) -> list[Any]:
        """The server-sent events, `[DONE]` as it is."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        texts = [line.removeprefix("data: ") for line in lines]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]


@contextmanager
def agent_daemon(
    directory: Path,
    config: str = "",
    *,
    agents: str = "",
    logged_in: bool = True,
    server: str | Path = "",
) -> Iterator[RunningDaemon]:
    """A daemon whose `claude` is the scripted one; `agents` are more lines of its table."""
    cli = write_cli(directory, logged_in=logged_in)
    table = f'[agents.claude]\nbinary = "{cli}"\n{agents}\n'
    with leasing_daemon(config + table, server=server) as daemon:
        yield daemon


def ask_agent(
    endpoint: Json, prompt: str = "say hello", *, timeout_s: float = WAIT_S, **fields: object
) -> Reply:
    """One completion of `prompt`; `fields` go into the body, None takes one out."""
    body: Json = {
        "model": endpoint["model_identity"],
        "messages": [{"role": "user", "content": prompt}],
        **fields,
    }
    body = {name: value for name, value in body.items() if value is not None}
    return request(
        "POST",
        f"{endpoint['base_url']}/chat/completions",
        endpoint["headers"],
        json.dumps(body).encode(),
        timeout_s=timeout_s,
    )


def request(
    method: str, url: str, headers: Json | None = None, body: bytes = b"", timeout_s: float = WAIT_S
) -> Reply:
    """Any request."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
        connection.request(method, parts.path, body, headers or {})
        response = connection.getresponse()
        return Reply(response.status, dict(response.headers.items()), response.read())


def begin(endpoint: Json, prompt: str) -> socket.socket:
    """A streamed completion that was asked for; nothing of its answer is read."""
    parts = urlsplit(endpoint["base_url"])
    asked = {
        "model": endpoint["model_identity"],
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    body = json.dumps(asked)
    head = [
        f"POST {parts.path}/chat/completions HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Authorization: {endpoint['headers']['Authorization']}",
        f"Content-Length: {len(body)}",
    ]
    connection = socket.create_connection((parts.hostname or "", parts.port), timeout=WAIT_S)
    connection.sendall("\r\n".join([*head, "", body]).encode())
    return connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes, up to `mark` and some more. Raises AssertionError where it ends before."""
    got = b""
    while mark not in got:
        data = connection.recv(65536)
        assert data, got
        got += data
    return got
