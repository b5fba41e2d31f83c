"""Many streams at once through the daemon: nothing lost, little memory, nobody held up by one."""

import socket
import time
from contextlib import closing
from pathlib import Path

from tests.support.daemon import running_daemon, wait_until
from tests.support.stamped_upstream import stamped_upstream
from tests.support.stream_crowd import StreamCrowd
from tests.support.wire_client import connected

CONFIG = """
default_route = "chat"
[daemon]
write_timeout_s = 300
[backends.chat]
kind = "openai_compat"
base_url = "http://127.0.0.1:{port}"
model = "m"
slots = 500
[routes.chat]
backends = ["chat"]
active_permits = 500
"""
QUICK = """
[backends.quick]
kind = "openai_compat"
base_url = "http://127.0.0.1:{port}"
model = "m"
[routes.quick]
backends = ["quick"]
"""
STREAMS = 150
TOKENS = 20
KIB_EACH = 60


def crowd_seen(path: Path) -> float:
    """The seconds that the crowd took; all of its tokens came."""
    began = time.monotonic()
    with closing(StreamCrowd(path, STREAMS, TOKENS)) as crowd:
        seen = crowd.run(0, once=True, within_s=25)
    assert (seen.requests, seen.errors, seen.tokens) == (STREAMS, 0, STREAMS * TOKENS)
    return time.monotonic() - began


def is_full(sock: socket.socket) -> bool:
    """Whether what waits to be read has stopped growing."""
    before = len(sock.recv(1_000_000, socket.MSG_PEEK))
    time.sleep(0.05)
    return before == len(sock.recv(1_000_000, socket.MSG_PEEK))


def test_a_crowd_loses_nothing_and_one_that_stalls_holds_nobody_up() -> None:
    with (
        stamped_upstream(pace_ms=40) as port,
        stamped_upstream(pace_ms=1) as quick_port,
        running_daemon(config=CONFIG.format(port=port) + QUICK.format(port=quick_port)) as daemon,
    ):
        with closing(StreamCrowd(daemon.socket, 1, TOKENS)) as one:
            one.run(0, once=True)
        before_kib = daemon.rss_kib
        alone_s = crowd_seen(daemon.socket)
        assert daemon.rss_kib - before_kib < STREAMS * KIB_EACH
        with connected(daemon.socket) as stalled:
            stalled.generate(model="quick", max_tokens=1_000_000)
            # Its upstream fills every buffer on the way; the others must not notice.
            wait_until(lambda: is_full(stalled.sock), 5, "a full socket")
            # The machine may hold one crowd up, the daemon would all of them.
            assert any(crowd_seen(daemon.socket) < 3 * alone_s + 1 for _ in range(3))
        assert daemon.rss_kib - before_kib < STREAMS * KIB_EACH


def test_a_saturated_loop_loses_nothing() -> None:
    """A token each millisecond for each of many streams: more wakings than the loop can make."""
    with (
        stamped_upstream(pace_ms=1) as port,
        running_daemon(config=CONFIG.format(port=port)) as daemon,
        closing(StreamCrowd(daemon.socket, 64, 256)) as crowd,
    ):
        seen = crowd.run(0, once=True, within_s=30)
    assert (seen.requests, seen.errors, seen.tokens) == (64, 0, 64 * 256)
