"""`infer.embed.sock` and `infer.rerank.sock`: JSON lines, for clients of another daemon."""

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import (
    RunningDaemon,
    running_daemon,
    temporary_directory,
    wait_until,
)
from tests.support.wire_client import connected

CONFIG = """
[daemon]
compat_sockets = ["embed", "rerank"]
drain_timeout_s = 0.2
read_timeout_s = 0.5

[backends.mock]
kind = "mock"

[backends.slow]
kind = "openai_compat"
rerank = true
uds = "NEVER_ANSWERS"
slots = 1

[routes.main]
backends = ["mock"]

[routes.slow]
backends = ["slow"]
queue_depth = 1
"""
DEFAULT = 'default_route = "main"\n'
WITHIN_S = 30


class LineClient:
    """One connection of lines."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WITHIN_S)
        self.sock.connect(str(path))
        self.answers = self.sock.makefile("rb")

    def say(self, **fields: object) -> None:
        self.sock.sendall(json.dumps(fields).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Raises EOFError where the daemon closed."""
        line = self.answers.readline()
        if not line:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def lines(daemon: RunningDaemon, op: str) -> Iterator[LineClient]:
    client = LineClient(daemon.socket.with_name(f"infer.{op}.sock"))
    try:
        yield client
    finally:
        client.answers.close()
        client.sock.close()


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as upstream:
        upstream.bind(str(directory / "s"))
        upstream.listen(16)
        config = DEFAULT + CONFIG.replace("NEVER_ANSWERS", str(directory / "s"))
        with running_daemon(config=config) as running:
            running.wait_for("listening")
            yield running
    assert not running.socket.with_name("infer.embed.sock").exists()


def counts(daemon: RunningDaemon) -> tuple[int, int]:
    """Of the slow route: how many run and how many wait."""
    with connected(daemon.socket) as client:
        client.say(id="r", op="route.list")
        found = client.hear_end("r")["value"]["routes"]
    (slow,) = (route for route in found if route["name"] == "slow")
    return slow["active"], slow["queued"]


def test_embeddings_and_rankings_as_on_the_main_socket(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        for number in range(2):  # the connection is reusable
            client.say(id=f"e{number}", input=["one", "two"], task="similarity")
            answer = client.hear()
            assert (answer["type"], answer["id"]) == ("embeddings", f"e{number}")
            assert [len(vector) for vector in answer["embeddings"]] == [8, 8]
            assert (answer["dimensions"], answer["backend"]) == (8, "mock")
    with lines(daemon, "rerank") as client:
        client.say(query="a cat", documents=["the dog", "a cat", "one cat"], top_n=2)
        answer = client.hear()
        assert (answer["type"], answer["id"]) == ("rerank", "")
        assert [one["index"] for one in answer["results"]] == [1, 2]
    with connected(daemon.socket) as framed, lines(daemon, "embed") as client:
        client.say(id="same", input=["one"])
        framed.say(id="same", op="embed", input=["one"])
        assert client.hear() == framed.hear()


def test_its_files_are_for_the_user_and_the_group(daemon: RunningDaemon) -> None:
    for op in ("embed", "rerank"):
        mode = os.stat(daemon.socket.with_name(f"infer.{op}.sock")).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660


def test_they_are_off_where_nobody_asked_for_them() -> None:
    with running_daemon("--backend", "mock") as daemon:
        assert not list(daemon.socket.parent.glob("infer.*"))


def test_mistakes_end_one_request(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        client.sock.sendall(b'not json\n{"id":"a"}\n')
        assert client.hear()["code"] == "invalid_request"
        assert (client.hear()["id"], client.sock.gettimeout()) == ("a", WITHIN_S)
        client.say(id="b", input=["x"], model="nowhere")
        assert "no route 'nowhere'" in client.hear()["message"]
        client.say(id="c", op="status", input=["x"])
        assert "this socket is for embed alone" in client.hear()["message"]
        client.say(id="d", input=["x"])
        assert client.hear()["type"] == "embeddings"


def test_requests_that_come_together_are_answered_in_order(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        for number in range(20):
            client.say(id=f"{number % 3}", input=[f"text {number}"])
        assert [client.hear()["id"] for _ in range(20)] == [f"{n % 3}" for n in range(20)]


def test_who_leaves_ends_the_request(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        client.say(input=["x"], model="slow")
        wait_until(lambda: counts(daemon) == (1, 0), 5, "the request at work")
    wait_until(lambda: counts(daemon) == (0, 0), 5, "its end")


def test_queues_are_shared_with_the_main_socket(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as framed, lines(daemon, "rerank") as client:
        framed.generate("1", model="slow")
        framed.generate("2", model="slow")
        wait_until(lambda: counts(daemon) == (1, 1), 5, "a full route")
        client.say(id="k", query="q", documents=["d"], model="slow")
        refused = client.hear()
        assert (refused["type"], refused["id"], refused["code"]) == ("error", "k", "queue_full")
        assert refused["details"]["position"] == 2


def test_half_a_line_is_not_waited_for_for_ever(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        client.sock.sendall(b'{"input":["x')
        with pytest.raises(EOFError):
            client.hear()


def test_a_stop_ends_what_runs_with_an_answer(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        client.say(id="e", input=["x"], model="slow")
        wait_until(lambda: counts(daemon) == (1, 0), 5, "the request at work")
        daemon.process.send_signal(signal.SIGTERM)
        ended = client.hear()
        assert (ended["id"], ended["code"]) == ("e", "backend_unavailable")
        assert daemon.process.wait(WITHIN_S) == 0


def test_an_upgrade_keeps_the_client_and_follows_the_configuration(daemon: RunningDaemon) -> None:
    with lines(daemon, "embed") as client:
        client.say(id="before", input=["x"])
        client.hear()
        config = daemon.directory / "config.toml"
        config.write_text(config.read_text().replace('"embed", "rerank"', '"embed"'))
        daemon.process.send_signal(signal.SIGUSR2)
        daemon.wait_for("upgraded", 10)
        client.say(id="after", input=["x"])
        assert client.hear()["id"] == "after"
    with lines(daemon, "embed") as client:
        client.say(id="new", input=["x"])
        assert client.hear()["id"] == "new"
    assert not daemon.socket.with_name("infer.rerank.sock").exists()
