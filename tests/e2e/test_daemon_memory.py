"""What the daemon costs in memory, with generous bounds; `tests/bench/wire.py` measures finely."""

import resource
from collections.abc import Iterator

import pytest

from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.wire_client import WireClient, connected

IDLE_KIB = 60 * 1024
CONNECTION_KIB = 20
CONNECTIONS = 1000


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """Warm: it has served before it is measured."""
    with running_daemon("--backend", "mock") as running:
        serve(running, 100)
        yield running


def serve(daemon: RunningDaemon, connections: int) -> None:
    """So many clients, one after the other, one small answer each."""
    for _ in range(connections):
        with connected(daemon.socket) as client:
            client.generate(max_tokens=1)
            client.hear_end()


def test_idle(daemon: RunningDaemon) -> None:
    print(f"idle: {daemon.rss_kib / 1024:.1f} MiB")
    assert daemon.rss_kib < IDLE_KIB


def test_idle_connections(daemon: RunningDaemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    before = daemon.rss_kib
    clients = [WireClient(daemon.socket) for _ in range(CONNECTIONS)]
    try:
        for client in clients:  # each is accepted, and has been served
            client.generate(max_tokens=1)
        for client in clients:
            client.hear_end()
        each = (daemon.rss_kib - before) / CONNECTIONS
    finally:
        for client in clients:
            client.sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"each of {CONNECTIONS} idle connections: {each:.1f} KiB")
    assert each < CONNECTION_KIB


@pytest.mark.timeout(400)  # its work alone takes half a minute where others work as well
def test_ten_thousand_connections_in_a_row_leave_nothing(daemon: RunningDaemon) -> None:
    serve(daemon, 500)
    before = daemon.rss_kib
    serve(daemon, 10_000)
    grown = daemon.rss_kib - before
    print(f"after 10,000 connections: {grown:+d} KiB")
    assert grown < 1024
