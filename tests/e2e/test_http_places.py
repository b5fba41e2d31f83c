"""Who gets a connection where there are too few: what others wait for, before who says nothing."""

import json
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.agent_client import LOCAL_ROUTE, Reply, agent_daemon, ask_agent, request
from tests.support.certificate import make_certificate
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.http_client import (
    WAIT_S,
    Answer,
    addresses,
    ask,
    chat,
    connect,
    ended,
    get,
    http_daemon,
    port_of,
    read_answer,
    read_until,
)
from tests.support.lease_client import Json, counted, ensure
from tests.support.llama_server import llama_server_path
from tests.support.wire_client import connected

SPARE = 32
ONE_PLACE = """
[http]
listen = "127.0.0.1:0"
max_connections = 1
"""
LOCAL = {"agent": "claude", "upstream": "local"}


def test_a_run_reaches_its_upstream_when_all_places_are_taken(tmp_path: Path) -> None:
    """By who asked for that run: else both would wait for each other."""
    with (
        agent_daemon(tmp_path, LOCAL_ROUTE + ONE_PLACE, server=llama_server_path()) as daemon,
        connected(daemon.socket) as client,
    ):
        endpoint = ensure(client, LOCAL)["endpoint"]
        for _ in range(3):
            seen = json.loads(_asked(endpoint).text)
            assert seen["status"] == 200, seen
            assert "demo model" in seen["body"]
        with _taken(daemon):
            unknown = f"{addresses(daemon)[-1]}/leases/run-nobody/v1/messages"
            assert request("POST", unknown, {"Authorization": "Bearer x"}, b"{}").status == 404
            assert (
                request("GET", f"{endpoint['base_url']}/models", endpoint["headers"]).status == 429
            )


def _taken(daemon: RunningDaemon) -> socket.socket:
    """A connection that has the place, and half a request on its way."""
    tried: list[socket.socket] = []

    def placed() -> bool:
        tried.append(connect(daemon))
        tried[-1].sendall(get("/v1/models"))
        if read_answer(tried[-1]).status == 429:
            tried[-1].close()
            return False
        return True

    wait_until(placed, 10, "a free place")
    tried[-1].sendall(b"GET /health HTTP/1.1\r\n")
    return tried[-1]


def _asked(endpoint: Json) -> Reply:
    """The one before may have to be seen leaving."""
    answers: list[Reply] = []

    def answered() -> bool:
        answers.append(ask_agent(endpoint, "upstream /v1/messages"))
        return answers[-1].status != 429

    wait_until(answered, 10, "a free place")
    return answers[-1]


def test_who_says_nothing_takes_no_spare_place_for_long() -> None:
    with http_daemon("max_connections = 1") as daemon, ExitStack() as held:
        busy = held.enter_context(connect(daemon))
        busy.sendall(chat("slow", stream=True, max_tokens=100_000))
        read_until(busy, b"tok0")
        silent = [held.enter_context(connect(daemon)) for _ in range(SPARE)]
        wait_until(lambda: _health(daemon) == 200, 10, "a place of one that says nothing")
        assert ended(silent[0])
        assert ask(daemon, chat()).status == 429


def _health(daemon: RunningDaemon) -> int:
    return ask(daemon, get("/health")).status


def test_a_handshake_that_does_not_end_makes_room(tmp_path: Path) -> None:
    """For the others at its door, and for those at the Unix socket."""
    certificate = make_certificate(tmp_path)
    path = tmp_path / "http.sock"
    config = f"""
max_connections = 3
unix = "{path}"
tls_cert_file = "{certificate.made}"
tls_key_file = "{certificate.key}"
"""
    with http_daemon(config) as daemon, ExitStack() as held:
        silent = [held.enter_context(connect(daemon)) for _ in range(3)]
        silent[0].sendall(b"\x16\x03\x01")  # the first bytes of one
        # else whoever comes at the other door finds a place that nobody had to leave
        wait_until(lambda: _connections(daemon) == 3, 5, "the three")
        wait_until(lambda: _over(path).status == 200, 5, "a place of one that says too little")
        assert ended(silent[0])
        time.sleep(1.1)
        silent[1].setblocking(False)
        with pytest.raises(BlockingIOError):  # it was no deadline, which all three would have met
            silent[1].recv(1)
        with (
            socket.create_connection(("127.0.0.1", port_of(daemon)), WAIT_S) as plain,
            certificate.client().wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(get("/health"))
            assert read_answer(secure).status == 200


def _connections(daemon: RunningDaemon) -> int:
    """How many clients the HTTP front has."""
    with connected(daemon.socket) as client:
        return counted(client, "inferd_connections")["http",]


def _over(path: Path) -> Answer:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(str(path))
        with suppress(BrokenPipeError):  # it may be turned away before it asks
            sock.sendall(get("/health"))
        return read_answer(sock)


def test_a_handshake_that_does_not_end_has_a_deadline(tmp_path: Path) -> None:
    """As short as that of an idle connection, and never long."""
    certificate = make_certificate(tmp_path)
    config = f"""
idle_timeout_s = 1.0
tls_cert_file = "{certificate.made}"
tls_key_file = "{certificate.key}"
"""
    with http_daemon(config) as daemon, connect(daemon) as silent:
        silent.sendall(b"\x16\x03\x01")
        assert ended(silent)
