"""Clients that break every rule, against the real daemon: it goes on serving the others."""

import json
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from inferd_proto import FrameType, pack
from tests.support.daemon import RunningDaemon, running_daemon, wait_until
from tests.support.wire_client import HELLO, WireClient, connected

CONFIG = """\
[daemon]
log_format = "json"
log_level = "debug"
[backends.mock]
kind = "mock"
token_ms = 1
[backends.quick]
kind = "mock"
[routes.mock]
backends = ["mock"]
[routes.quick]
backends = ["quick"]
"""
TEMPLATES: list[dict[str, object]] = [
    {"messages": HELLO, "max_tokens": 2, "model": "quick"},
    {"api_version": 1, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    {"op": "embed", "input": ["x"], "model": "quick"},
    {"op": "rerank", "query": "x", "documents": ["y"], "model": "quick"},
    {"op": "status"},
    {"op": "cancel"},
    {"messages": HELLO, "tools": [{"name": "t", "input_schema": {}}], "tool_choice": "required"},
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One daemon for all of them: none may harm it for the next."""
    with running_daemon(config=CONFIG) as running:
        yield running
        assert "unexpectedly" not in running.log


def still_serves(daemon: RunningDaemon) -> None:
    """A well-behaved client is answered, alone, and nothing runs on for those who left."""
    with connected(daemon.socket) as client:

        def alone() -> bool:
            client.say(op="status", id="s")
            status = client.hear()["value"]
            idle = all(route["active"] == 0 for route in status["routes"])
            return idle and status["connections"] == 1

        wait_until(alone, 5, "the end of all that hostile clients began")
        client.generate(max_tokens=2, model="quick")
        assert client.hear_end()["stop_reason"] == "max_tokens"


def tame_frame(rng: random.Random) -> bytes:
    """Wrong in what it says, mostly, but nothing that must end the connection."""
    fields = {"wire_version": 1, "id": str(rng.randrange(5)), **rng.choice(TEMPLATES)}
    encoding = rng.choice([FrameType.JSON, FrameType.JSON, FrameType.MSGPACK])
    text = encoding is FrameType.JSON
    payload = bytearray(json.dumps(fields).encode() if text else msgspec.msgpack.encode(fields))
    kind = rng.random()
    if kind < 0.7:
        for _ in range(rng.randrange(4)):  # never in the version, which stands first
            payload[rng.randrange(20, len(payload))] = rng.randrange(256)
    elif kind < 0.9:
        payload = payload[: rng.randrange(20, len(payload))]
    else:
        payload = bytearray(b"[" + rng.randbytes(rng.randrange(60)))
        encoding = FrameType.JSON
    return pack(encoding, bytes(payload))


def wild_bytes(rng: random.Random) -> bytes:
    """Anything at all."""
    return rng.choice(
        [
            rng.randbytes(rng.randrange(1, 20)),
            pack(FrameType.MSGPACK, rng.randbytes(rng.randrange(30))),
            pack(FrameType.BLOB, rng.randbytes(rng.randrange(30))),
            pack(FrameType.JSON, b'{"wire_version":' + rng.randbytes(1) + b"}"),
            exchange()[: rng.randrange(400)],
        ]
    )


def hears_the_last_answer(client: WireClient, within_s: float) -> bool:
    """False where the daemon closed instead, or waits for the rest of something."""
    client.sock.settimeout(within_s)
    try:
        client.say(op="status", id="last")
        while client.hear_in_any_encoding().get("id") != "last":
            pass
    except (EOFError, BrokenPipeError, ConnectionResetError, TimeoutError):
        return False
    return True


@pytest.mark.timeout(400)  # its work alone takes half a minute where others work as well
def test_a_hundred_thousand_random_frames(daemon: RunningDaemon) -> None:
    rng = random.Random(20261121)
    before = daemon.rss_kib
    sent = 0
    while sent < 100_000:
        with connected(daemon.socket) as client:
            while sent < 100_000:
                tame = 100
                client.sock.sendall(b"".join(tame_frame(rng) for _ in range(tame)))
                sent += tame
                assert hears_the_last_answer(client, 30)
                if rng.random() < 0.2:
                    client.sock.sendall(wild_bytes(rng))
                    sent += 1
                    if not hears_the_last_answer(client, 0.2):
                        break
    still_serves(daemon)
    assert daemon.rss_kib - before < 20_000
    answered = sum(event in ("request", "refused") for event in daemon.events())
    assert answered > 80_000  # cancels of what is over get no answer


def exchange() -> bytes:
    """A whole request with an attachment, and a second one that runs for long."""
    request = {
        "wire_version": 1,
        "id": "a",
        "messages": [{"role": "user", "content": [{"type": "image", "attachment_id": "i"}]}],
        "attachments": [{"kind": "image", "id": "i", "width": 2, "height": 2}],
        "max_tokens": 100_000,
        "model": "mock",
    }
    blob = {"type": "attachment_blob", "attachment_id": "i", "len": 12}
    cancel = {"wire_version": 1, "op": "cancel", "id": "a"}
    return b"".join(
        [
            pack(FrameType.JSON, json.dumps(request).encode()),
            pack(FrameType.JSON, json.dumps(blob).encode()),
            pack(FrameType.BLOB, bytes(12)),
            pack(FrameType.JSON, json.dumps(cancel).encode()),
        ]
    )


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_vanishes_after_any_byte(daemon: RunningDaemon, half: bool) -> None:
    data = exchange()
    for length in range(len(data) + 1):
        with connected(daemon.socket) as client:
            client.sock.sendall(data[:length])
            if half:
                client.sock.shutdown(socket.SHUT_WR)
    still_serves(daemon)


def test_a_client_that_vanishes_after_any_answer(daemon: RunningDaemon) -> None:
    for answers in range(12):
        with connected(daemon.socket) as client:
            client.generate(max_tokens=10, model="mock")
            for _ in range(answers):
                if client.hear()["type"] == "done":
                    break
    still_serves(daemon)


def test_a_crowd_that_never_reads() -> None:
    config = CONFIG.replace("[daemon]", "[daemon]\nwrite_timeout_s = 0.5")
    with running_daemon(config=config) as daemon:
        still_serves(daemon)
        before = daemon.rss_kib
        crowd = [WireClient(daemon.socket) for _ in range(50)]
        try:
            for client in crowd:
                client.generate(max_tokens=2_000_000, model="quick")
            time.sleep(0.2)
            assert daemon.rss_kib - before < 10_000
            wait_until(
                lambda: daemon.events().count("client does not read, disconnected") == 50,
                5,
                "the end of their connections",
            )
            still_serves(daemon)
        finally:
            for client in crowd:
                client.sock.close()


def test_a_frame_announced_with_the_cap_takes_no_memory_until_it_comes(
    daemon: RunningDaemon,
) -> None:
    before = daemon.rss_kib
    crowd = [WireClient(daemon.socket) for _ in range(50)]
    try:
        for client in crowd:
            client.sock.sendall(b"\x80\x80\x80\x20\x01{")  # 64 MiB are to follow
        time.sleep(0.1)
        assert daemon.rss_kib - before < 5_000
    finally:
        for client in crowd:
            client.sock.close()
    still_serves(daemon)


def test_an_unstreamed_flood_leaves_the_others_their_turn(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as greedy, connected(daemon.socket) as other:
        os.kill(daemon.pid, signal.SIGSTOP)  # all is there when it goes on
        try:
            wait_until(lambda: _state(daemon.pid) == "T", 5, "a daemon that stands still")
            greedy.generate(max_tokens=2**31 - 1, model="quick", stream=False)
            for number in range(50):
                other.say(op="status", id=str(number))
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        routes = [other.hear()["value"]["routes"] for _ in range(50)]
        (quick,) = (route for route in routes[-1] if route["name"] == "quick")
        assert quick["active"] == 1  # all were answered before the flood was over
        assert greedy.hear_end()["code"] == "frame_too_large"
    still_serves(daemon)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


STARVED = "cannot accept clients, trying on"


def test_without_descriptors_it_waits_for_some() -> None:
    with running_daemon(config=CONFIG) as daemon:
        with connected(daemon.socket) as first:
            first.say(op="status", id="s")
            first.hear()
            used = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
            limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 2, used + 2))
            assert limits[0] > used + 2
            crowd = [WireClient(daemon.socket) for _ in range(6)]
            for client in crowd:
                client.say(op="status", id="s")
            daemon.wait_for(STARVED)
            began, busy = time.monotonic(), _cpu_s(daemon.pid)
            time.sleep(0.5)
            spent = _cpu_s(daemon.pid) - busy
            assert spent < 0.2 * (time.monotonic() - began)  # it does not spin
            assert daemon.events().count(STARVED) <= 2  # it does not tell of each try
            first.say(op="status", id="s")
            assert first.hear()["type"] == "result"
        for client in crowd:  # each that leaves makes room for the next
            assert client.hear()["type"] == "result"
            client.sock.close()
        assert daemon.events().count(STARVED) <= len(crowd)  # once before each that was let in


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_more_clients_than_allowed_are_turned_away_with_a_reason() -> None:
    config = CONFIG.replace("[daemon]", "[daemon]\nmax_connections = 3")
    with running_daemon(config=config) as daemon:
        guests = [WireClient(daemon.socket) for _ in range(3)]
        try:
            for guest in guests:
                guest.say(op="status", id="s")
                guest.hear()
            with connected(daemon.socket) as fourth:
                answer = fourth.hear()
                assert (answer["type"], answer["code"]) == ("error", "queue_full")
                assert answer["message"] == "3 clients are connected; try again later"
                with pytest.raises((EOFError, ConnectionResetError)):
                    fourth.hear()
            guests.pop().sock.close()
            wait_until(lambda: _is_let_in(daemon), 2, "a free place")
        finally:
            for guest in guests:
                guest.sock.close()


def _is_let_in(daemon: RunningDaemon) -> object:
    with connected(daemon.socket) as client, suppress(ConnectionError):  # closed at once
        client.say(op="status", id="s")
        return client.hear()["id"] == "s"
    return False


FEW_BYTES = """\
[daemon]
log_format = "json"
read_timeout_s = 3
max_request_bytes_in_memory = 20_000_000
[backends.mock]
kind = "mock"
[routes.mock]
backends = ["mock"]
"""


def half_sent(name: str) -> bytes:
    """A request of 16 MiB without its end."""
    start = json.dumps({"wire_version": 1, "id": name})[:-1].encode() + b',"x":"'
    return b"\x80\x80\x80\x08\x01" + start + b"x" * (16 * 1024 * 1024 - 1000)


def test_a_crowd_of_half_sent_requests_is_bounded_and_given_up() -> None:
    with running_daemon(config=FEW_BYTES) as daemon:
        before = daemon.rss_kib
        crowd = [WireClient(daemon.socket) for _ in range(8)]
        try:
            for number, client in enumerate(crowd):
                # one that is held up in between is given up before the others: rightly
                with suppress(ConnectionError):
                    client.sock.sendall(half_sent(f"r{number}"))
            grown = daemon.rss_kib - before
            assert grown < 30_000  # one of them, and what its buffer grew by
            with connected(daemon.socket) as client:
                client.generate(max_tokens=1)
                assert client.hear_end()["type"] == "done"
            for client in crowd:
                with pytest.raises((EOFError, ConnectionResetError)):
                    client.hear()
        finally:
            for client in crowd:
                client.sock.close()
        assert daemon.events().count("client stopped in mid-message, disconnected") == 8
        wait_until(lambda: daemon.rss_kib - before < 10_000, 2, "its memory")
        with connected(daemon.socket) as client:  # there is room again, and a refusal names whose
            client.say(id="big", messages=HELLO, pad="x" * 19_000_000, max_tokens=1)
            assert client.hear_end("big")["type"] == "done"
            client.say(id="bigger", messages=HELLO, pad="x" * 21_000_000)
            assert client.hear_end("bigger")["code"] == "queue_full"
