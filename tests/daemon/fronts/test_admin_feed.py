"""Who gets the feed of the daemon's state: a few, of the daemon's own user."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from inferd_daemon.control.call import Peer
from inferd_daemon.fronts import admin_feed
from inferd_daemon.fronts.admin_feed import MAX_CLIENTS
from tests.support.daemon import running_daemon, temporary_directory


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "s"))
        sock.listen()
        sock.setblocking(False)
        yield sock


async def test_another_users_client_is_closed_unheard(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_feed, "peer_of", lambda _: Peer(pid=1, uid=54_321, gid=54_321))
    served: list[Peer] = []

    async def serve(_: object, sock: socket.socket, peer: Peer) -> None:
        served.append(peer)
        sock.close()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(admin_feed.AdminFeed, "_serve", serve)
    feed = admin_feed.AdminFeed(listening, None)  # type: ignore[arg-type]  # not looked at
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        with trio.socket.socket(socket.AF_UNIX) as client, trio.fail_after(10):
            await client.connect(listening.getsockname())
            assert await client.recv(100) == b""
        nursery.cancel_scope.cancel()
    assert served == []


def test_the_feed_has_so_many_places_and_one_that_leaves_makes_room() -> None:
    with running_daemon("--backend", "mock") as daemon:
        path = daemon.socket.with_name("admin.sock")
        clients = [_connect(path) for _ in range(MAX_CLIENTS)]
        try:
            for client in clients:
                assert client.recv(1) == b"{"
            with _connect(path) as refused:
                assert refused.recv(1) == b""
            clients.pop().close()
            for _ in range(1000):
                with _connect(path) as again:
                    if again.recv(1) == b"{":
                        break
            else:
                pytest.fail("no place became free")
        finally:
            for client in clients:
                client.close()


def _connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(path))
    return client
