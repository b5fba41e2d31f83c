"""A lease whose request waits behind another's upload, and is given up there: nothing is leased."""

import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from inferd_client import AnswerTimeout, ClientClosed, async_link, blocking_link
from inferd_client.async_link import AsyncLink
from inferd_client.blocking_lease import take_lease as take_lease_blocking
from inferd_client.blocking_link import BlockingLink
from inferd_client.held_lease import take_lease
from inferd_client.requests import control
from inferd_client.switchboard import Switchboard
from inferd_proto import CancelReceived, Control, RequestReceived, Result, ServerConnection
from tests.clients.lease_records import ENSURED
from tests.clients.scripted_daemon import PATIENCE_S

Run = Callable[[Callable[[], Awaitable[None]]], None]

UPLOAD = control("x", {"blob": "y" * 3_500_000})
"""Many times what the sockets hold."""


class Daemon:
    """Grants, and then reads no further before it is told to. Answers nothing else."""

    def __init__(self, sock: socket.socket) -> None:
        self.begin, self.granted, self.go_on = (threading.Event() for _ in range(3))
        self.released: object = None
        self._socket = sock
        self._connection = ServerConnection()

    def serve(self) -> None:
        assert self.begin.wait(PATIENCE_S)
        ensure = self._read_until("lease.ensure")
        self._answer(ensure, ENSURED)
        self.granted.set()
        assert self.go_on.wait(PATIENCE_S)
        release = self._read_until("lease.release")
        self._answer(release, None)
        self.released = release.arguments["lease_ref"]

    def _answer(self, request: Control, value: object) -> None:
        self._socket.sendall(self._connection.send(Result(request.id, value)))

    def _read_until(self, op: str) -> Control:
        while True:
            while (event := self._connection.next_event()) is not None:
                if isinstance(event, CancelReceived):
                    continue
                assert isinstance(event, RequestReceived)
                assert isinstance(event.request, Control)
                if event.request.op == op:
                    return event.request
            data = self._socket.recv(65536)
            assert data, f"the client is gone, {op} did not come"
            self._connection.receive_data(data)


@contextlib.contextmanager
def serving() -> Iterator[tuple[socket.socket, Daemon]]:
    """The client's end of a connection, and the daemon at the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    theirs.settimeout(PATIENCE_S)
    daemon = Daemon(theirs)
    thread = threading.Thread(target=daemon.serve, daemon=True)
    thread.start()
    try:
        yield ours, daemon
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    finally:
        theirs.close()
        ours.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long: what is left to say goes out behind the uploads."""
    for module in (async_link, blocking_link):
        monkeypatch.setattr(module, "END_TIMEOUT_S", 0.2)


def test_one_that_is_cancelled_there(run: Run) -> None:
    async def main() -> None:
        async def give_up() -> None:
            with scope:
                await take_lease(link, {"target": "qwen3"})
            assert scope.cancelled_caught

        async def upload() -> None:
            await link.ask(UPLOAD, Result)

        scope = anyio.CancelScope()
        with serving() as (sock, daemon):
            board = Switchboard()
            link = AsyncLink(sock, board)
            async with anyio.create_task_group() as group:
                for task in (upload, give_up, upload):
                    group.start_soon(task)
                    await anyio.wait_all_tasks_blocked()
                daemon.begin.set()
                while board.in_flight != 2:  # noqa: ASYNC110 (the second upload reads the grant)
                    await anyio.sleep(0.005)
                assert daemon.granted.is_set()
                scope.cancel()
                daemon.go_on.set()
                while daemon.released is None:  # noqa: ASYNC110 (it is set in another thread)
                    await anyio.sleep(0.005)
                group.cancel_scope.cancel()
            link.close()
        assert daemon.released == "lease-abc"

    run(main)


def test_one_whose_time_is_up_there() -> None:
    def upload() -> None:
        with pytest.raises(ClientClosed):
            link.ask(UPLOAD, Result, None)

    def give_up() -> None:
        with pytest.raises(AnswerTimeout):
            take_lease_blocking(link, {"target": "qwen3"}, 0.5)

    with serving() as (sock, daemon):
        board = Switchboard()
        link = BlockingLink(sock, board)
        threads = [threading.Thread(target=task) for task in (upload, give_up, upload)]
        for count, thread in enumerate(threads, 1):
            thread.start()
            while board.in_flight < count:
                time.sleep(0.005)
        daemon.begin.set()
        assert daemon.granted.wait(PATIENCE_S)
        threads[1].join(PATIENCE_S)
        daemon.go_on.set()
        while daemon.released is None:
            time.sleep(0.005)
        link.close()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert daemon.released == "lease-abc"
