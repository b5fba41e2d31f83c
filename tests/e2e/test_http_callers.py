"""Who asks over HTTP is told apart in the queues: by key, and over a Unix socket by user."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon, wait_until
from tests.support.http_client import MOCK, chat, connect, http_daemon, read_until
from tests.support.lease_client import ask as operate
from tests.support.wire_client import connected

KEYS = """
[http.clients.editor]
key = "a-key-of-the-editor-0123"
[http.clients.batch]
key = "a-key-of-the-batch-45678"
"""
CONFIG = f"""
[clients.editor]
weight = 4
{MOCK}
"""


def peers(daemon: RunningDaemon) -> set[tuple[int, str]]:
    """Who has something at the route "slow"."""
    with connected(daemon.socket) as client:
        listed = operate(client, "route.list")["routes"]
    (route,) = (route for route in listed if route["name"] == "slow")
    return {(peer["uid"], peer["client"]) for peer in route["peers"]}


def test_each_key_is_a_peer_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with http_daemon(f'unix = "{path}"\n{KEYS}', CONFIG) as daemon, ExitStack() as held:
        for key, local in (
            ("a-key-of-the-editor-0123", False),
            ("a-key-of-the-batch-45678", False),
            ("a-key-of-the-batch-45678", True),
        ):
            if local:
                sock = held.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(path))
            else:
                sock = held.enter_context(connect(daemon))
            sock.sendall(chat("slow", f"Authorization: Bearer {key}", stream=True))
            read_until(sock, b"tok0")
        assert peers(daemon) == {(-2, "editor"), (-3, "batch"), (os.getuid(), "batch")}


@pytest.mark.parametrize("local", [True, False])
def test_without_keys_all_are_one_but_for_their_user(tmp_path: Path, local: bool) -> None:
    path = tmp_path / "http.sock"
    with http_daemon(f'unix = "{path}"', CONFIG) as daemon:
        with socket.socket(socket.AF_UNIX) if local else connect(daemon) as sock:
            if local:
                sock.connect(str(path))
            sock.sendall(chat("slow", stream=True))
            read_until(sock, b"tok0")
            assert peers(daemon) == {(os.getuid() if local else -1, "http")}
        wait_until(lambda: not peers(daemon), 5, "the end of what nobody waits for")
