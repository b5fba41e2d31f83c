"""What nobody should send over HTTP: each gets an error in OpenAI's shape, or its connection ends,
and the others are served on."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from inferd_daemon.fronts.http.server import RESTED_S
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.http_client import (
    ask,
    chat,
    connect,
    ended,
    get,
    http_daemon,
    post,
    read_answer,
    read_until,
    wait_unused,
    wait_used,
)

KEY = "a-key-of-the-editor-0123"
OTHER = "a-key-of-the-notebook-45"
KEYS = f"""
[http.clients.editor]
key = "{KEY}"
[http.clients.notebook]
key_env = "NOTEBOOK_KEY"
"""

NOTEBOOK = {"NOTEBOOK_KEY": OTHER}


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """Open to all on loopback."""
    with http_daemon("max_body_bytes = 65536\nmax_head_bytes = 8192") as one:
        yield one
        assert "failed unexpectedly" not in one.log


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningDaemon]:
    """For those alone who are meant to be too slow for it: anybody may be late by a second."""
    with http_daemon("idle_timeout_s = 2.0") as one:
        yield one
        assert "failed unexpectedly" not in one.log


def serves(daemon: RunningDaemon) -> bool:
    return ask(daemon, chat()).status == 200


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get("/nothing"), 404, "not_found"),
        (get("/v1/models/nothing"), 404, "model_not_found"),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (get("/health", host="evil.example"), 403, "invalid_host"),
        (get("/health", host="127.0.0.1.evil.example:80"), 403, "invalid_host"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "invalid_host"),
        (get("/health", "Host: localhost"), 400, "invalid_host"),
        (chat("mock", "Origin: https://evil.example"), 403, "origin_refused"),
        (chat("mock", "Origin: null"), 403, "origin_refused"),
        (get("/metrics", "Sec-Fetch-Site: cross-site"), 403, "origin_refused"),
        (get("/health", "Sec-Fetch-Site: same-site"), 403, "origin_refused"),
        (chat("nothing"), 404, "model_not_found"),
        (post("/v1/chat/completions", b"{"), 400, "invalid_request"),
        (post("/v1/chat/completions", b"x" * 65_537), 413, "frame_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 403, "invalid_host"),
    ],
)
def test_refused_in_openais_shape(
    daemon: RunningDaemon, request_: bytes, status: int, code: str
) -> None:
    answer = ask(daemon, request_)
    assert (answer.status, answer.error["code"]) == (status, code)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, 400),
        (b"gibberish\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"CONNECT evil:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: a miracle\r\n\r\n", 417),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_told_so_and_dropped(
    daemon: RunningDaemon, request_: bytes, status: int
) -> None:
    with connect(daemon) as sock:
        sock.sendall(request_)
        answer = read_answer(sock)
        assert answer.status == status
        assert answer.error["message"]
        assert answer.error["code"]
        assert ended(sock)
    assert serves(daemon)


def test_a_head_without_end_is_cut_off(daemon: RunningDaemon) -> None:
    with connect(daemon) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        # what still comes is read for a while, that the answer is not lost; who is late is cut off
        with suppress(ConnectionError):
            for _ in range(20):
                sock.sendall(b"a" * 1000)
                time.sleep(0.001)
        assert sock.recv(13) == b"HTTP/1.1 431 "
        with suppress(OSError):
            for _ in range(20):
                sock.sendall(b"a" * 1000)
            sock.shutdown(socket.SHUT_WR)
        assert ended(sock)


def test_a_body_without_end_is_cut_off(daemon: RunningDaemon) -> None:
    before = daemon.rss_kib
    with connect(daemon) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(2000):
                sock.sendall(b"4000\r\n" + b"a" * 0x4000 + b"\r\n")
        except (ConnectionError, TimeoutError):
            pass
        else:
            pytest.fail("32 MB of a body were taken")
        assert sock.recv(13) == b"HTTP/1.1 413 "
    assert daemon.rss_kib - before < 8000
    assert serves(daemon)


@pytest.mark.parametrize("begins", [b"0\r\nx", b"0\r\nx: ", b"1;", b"1;a="])
def test_framing_without_end_is_cut_off(daemon: RunningDaemon, begins: bytes) -> None:
    """A trailer's name or value, a chunk's extension: for each the parser has no limit."""
    before = daemon.rss_kib
    with connect(daemon) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + begins
        )
        slowest = 0.0
        try:
            for _ in range(200):
                sock.sendall(b"a" * 0x40000)
                started = time.monotonic()
                assert ask(daemon, get("/health")).status == 200
                slowest = max(slowest, time.monotonic() - started)
        except (ConnectionError, TimeoutError):
            pass
        else:
            pytest.fail("50 MB of framing were taken")
        assert sock.recv(13) == b"HTTP/1.1 431 "
    assert slowest < 10
    assert daemon.rss_kib - before < 8000
    assert serves(daemon)


def test_a_body_that_breaks_its_framing_is_told_so(daemon: RunningDaemon) -> None:
    with connect(daemon) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        time.sleep(0.05)  # its head is a request of its own by then
        sock.sendall(b"gibberish\r\n")
        answer = read_answer(sock)
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert ended(sock)


def test_a_huge_body_is_refused_before_it_is_sent(daemon: RunningDaemon) -> None:
    with connect(daemon) as sock:
        sock.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        )
        answer = read_answer(sock)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


def test_a_body_that_waits_for_leave_gets_it(daemon: RunningDaemon) -> None:
    head, _, body = chat("mock", "Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(daemon) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_answer(sock).status == 200


@pytest.mark.parametrize(
    ("begins", "status"),
    [
        (b"GET /health HT", 408),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
            408,
        ),
    ],
)
def test_who_stops_half_way_is_dropped(
    impatient: RunningDaemon, begins: bytes, status: int
) -> None:
    with connect(impatient) as sock:
        sock.sendall(begins)
        answer = read_answer(sock)
        assert answer.status == status
        assert answer.error["type"] == "timeout_error"
        assert ended(sock)


def test_who_drips_is_dropped(impatient: RunningDaemon) -> None:
    with connect(impatient) as sock:
        try:
            for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)
        except ConnectionError:
            pass
        else:
            pytest.fail("all of it was taken, in 17 s or more")


def test_an_idle_connection_is_closed(impatient: RunningDaemon) -> None:
    with connect(impatient) as sock:
        sock.sendall(get("/health"))
        assert read_answer(sock).status == 200
        assert sock.recv(1) == b""


def test_requests_may_come_all_at_once(daemon: RunningDaemon) -> None:
    with connect(daemon) as sock:
        sock.sendall(get("/health") + chat(max_tokens=2) + get("/nothing") + chat(stream=True))
        data = read_until(sock, b"0\r\n\r\n")
    found = [part[:4].strip() for part in data.split(b"HTTP/1.1 ")[1:]]
    assert found == [b"200", b"200", b"404", b"200"]
    assert data.index(b"tok1") < data.index(b"there is nothing") < data.index(b"data: ")


def test_a_target_may_be_a_whole_url(daemon: RunningDaemon) -> None:
    """As RFC 9112 has it: the host in it counts."""
    assert ask(daemon, get("http://127.0.0.1:1/health", host="x")).status == 200
    assert ask(daemon, get("HTTP://localhost?x")).status == 404
    evil = ask(daemon, get("http://evil.example/health"))
    assert (evil.status, evil.error["code"]) == (403, "invalid_host")


def test_an_encoded_body_is_refused_by_its_name(daemon: RunningDaemon) -> None:
    answer = ask(daemon, chat("mock", "Content-Encoding: gzip"))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_encoding")
    assert ask(daemon, chat("mock", "Content-Encoding: identity")).status == 200


def test_an_upgrade_is_not_taken_up(daemon: RunningDaemon) -> None:
    offers = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert ask(daemon, chat("mock", *offers)).status == 200
    assert ask(daemon, get("/health", "Connection: Upgrade", "Upgrade: websocket")).status == 200


@pytest.mark.parametrize("half", [True, False])
def test_who_leaves_ends_its_request(daemon: RunningDaemon, half: bool) -> None:
    with connect(daemon) as sock:
        sock.sendall(chat("slow", stream=True, max_tokens=100_000))
        read_until(sock, b"tok1 ")
        if half:
            sock.shutdown(socket.SHUT_WR)
            assert ended(sock)
    wait_unused(daemon)


def test_who_does_not_read_is_dropped(impatient: RunningDaemon) -> None:
    request = chat("mock", stream=True, max_tokens=100_000)
    with connect(impatient) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request)
        assert sock.recv(1) == b"H"
        wait_unused(impatient)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        ("", chat("mock")),
        ("", chat("mock") * 300),
        ("", b"\0 what is no request"),
        ("Connection: close", b"more"),
    ],
)
def test_who_has_sent_more_and_leaves_is_seen(
    daemon: RunningDaemon, head: str, more: bytes
) -> None:
    """Although nothing is written to it, and nobody reads what came before its end."""
    with connect(daemon) as sock:
        sock.sendall(chat("slow", *filter(None, [head]), max_tokens=100_000))
        wait_used(daemon)
        sock.sendall(more)
        time.sleep(0.1)  # it is taken for more, not for what came with the end
    wait_unused(daemon)


def test_too_many_connections_are_turned_away() -> None:
    with http_daemon("max_connections = 4") as daemon:
        held = [connect(daemon) for _ in range(4)]
        for sock in held:
            sock.sendall(chat("slow", stream=True))
            read_until(sock, b"tok0")
        with connect(daemon) as sock:
            sock.sendall(chat())
            answer = read_answer(sock)
            assert answer.status == 429
            assert (answer.error["code"], answer.error["type"]) == (
                "queue_full",
                "rate_limit_error",
            )
            assert answer.headers["retry-after"] == "1"
            assert ended(sock)
        assert ask(daemon, get("/health")).status == 200
        for sock in held:
            sock.close()
        wait_until(lambda: connects(daemon), 10, "a free place")


def test_who_rests_for_longest_makes_room() -> None:
    """Not who has just come, nor who is answered."""
    with (
        http_daemon("max_connections = 3") as daemon,
        connect(daemon) as busy,
        connect(daemon) as first,
        connect(daemon) as second,
    ):
        busy.sendall(chat("slow", stream=True))
        read_until(busy, b"tok0")
        began = time.monotonic()
        for sock in (first, second):
            sock.sendall(get("/health"))
            assert read_answer(sock).status == 200
            time.sleep(0.05)
        # where all this took too long, the first has rested enough, and is the one that goes
        assert not connects(daemon) or time.monotonic() - began > RESTED_S
        time.sleep(1.2 * RESTED_S)
        with connect(daemon) as late:
            late.sendall(get("/health"))
            assert read_answer(late).status == 200
            assert ended(first)
            second.sendall(get("/health"))
            assert read_answer(second).status == 200
            read_until(busy, b"tok1")


def connects(daemon: RunningDaemon) -> bool:
    return ask(daemon, get("/v1/models")).status == 200


def test_a_full_queue_says_when_to_come_again() -> None:
    config = """
[backends.slow]
kind = "mock"
token_ms = 50
max_tokens = 1000
slots = 1
[routes.slow]
backends = ["slow"]
queue_depth = 0
"""
    with http_daemon(more=config) as daemon, connect(daemon) as sock:
        sock.sendall(chat("slow", stream=True, max_tokens=1000))
        read_until(sock, b"tok0")
        answer = ask(daemon, chat("slow"))
        assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_request_that_takes_too_long_ends() -> None:
    with http_daemon("total_timeout_s = 0.3") as daemon:
        answer = ask(daemon, chat("slow", max_tokens=1000))
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        streamed = ask(daemon, chat("slow", max_tokens=1000, stream=True))
        last = streamed.body.strip().rpartition(b"\n")[2]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "timeout"


def test_only_keys_of_clients_open() -> None:
    with http_daemon(KEYS, environ=NOTEBOOK) as daemon:
        for headers in (
            (),
            ("Authorization: Bearer wrong",),
            (f"Authorization: Basic {KEY}",),
            (f"Authorization: Bearer {KEY}x",),
            ("x-api-key: ",),
        ):
            for path in ("/v1/models", "/metrics", "/nothing"):
                answer = ask(daemon, get(path, *headers))
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "bearer"
        assert ask(daemon, chat()).status == 401
        assert ask(daemon, get("/health")).status == 200
        for headers in (
            (f"Authorization: Bearer {KEY}",),
            (f"authorization: bearer {OTHER}",),
            (f"x-api-key: {KEY}",),
        ):
            assert ask(daemon, get("/v1/models", *headers)).status == 200
            assert ask(daemon, chat("mock", *headers)).status == 200
        assert KEY not in daemon.log
        assert OTHER not in daemon.log


def header_lines(daemon: RunningDaemon, request: bytes) -> list[str]:
    """As they came, those that concern browsers."""
    with connect(daemon) as sock:
        sock.sendall(request)
        head = read_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")[0]
    lines = head.decode().split("\r\n")
    return sorted(line for line in lines if line.startswith(("access-control", "vary")))


def test_a_page_that_is_listed_may_ask() -> None:
    with http_daemon(f'origins = ["https://app.example"]\n{KEYS}', environ=NOTEBOOK) as daemon:
        asks = "Origin: https://app.example"
        wants = (
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,content-type,x-stainless-os",
        )
        preflight = get("/v1/chat/completions", asks, *wants).replace(b"GET", b"OPTIONS", 1)
        assert header_lines(daemon, preflight) == [
            "access-control-allow-headers: authorization,content-type,x-stainless-os",
            "access-control-allow-methods: GET, POST",
            "access-control-allow-origin: https://app.example",
            "access-control-expose-headers: retry-after",
            "access-control-max-age: 600",
            "vary: origin",
        ]
        # a browser takes a header that comes twice for none
        assert header_lines(daemon, chat("mock", asks)) == [
            "access-control-allow-origin: https://app.example",
            "access-control-expose-headers: retry-after",
            "vary: origin",
        ]
        for request, status in (
            (chat("mock", asks, f"Authorization: Bearer {KEY}"), 200),
            (chat("mock", asks), 401),
            (chat("mock", "Origin: https://other.example", f"x-api-key: {KEY}"), 403),
        ):
            answer = ask(daemon, request)
            assert answer.status == status
            assert ("access-control-allow-origin" in answer.headers) == (status != 403)


def test_bodies_of_all_clients_share_what_the_daemon_may_hold() -> None:
    with http_daemon(daemon="max_request_bytes_in_memory = 300000") as daemon:
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 250000\r\n\r\n"
        with connect(daemon) as first:
            first.sendall(head + b"x" * 1000)
            for _ in range(3):  # who came together with the first may be served before it
                assert connects(daemon)
            wait_until(lambda: ask(daemon, head).status == 429, 5, "the first to be charged")
            answer = ask(daemon, head)
            assert (answer.status, answer.error["code"]) == (429, "queue_full")
            assert "retry-after" in answer.headers
            assert ask(daemon, chat()).status == 200  # what is small is not counted
            chunked = head.replace(b"Content-Length: 250000", b"Transfer-Encoding: chunked")
            assert ask(daemon, chunked + b"30000\r\n" + b"x" * 0x30000 + b"\r\n").status == 429
        body = b'{"model":"mock","input":"%b"}' % (b"x" * 200_000)
        wait_until(lambda: ask(daemon, post("/v1/embeddings", body)).status == 200, 5, "room again")
