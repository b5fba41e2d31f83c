"""Who waits at the hub is woken, whatever becomes of those who wait beside it."""

import gc
import os
import random
import resource
import socket
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.transport import Connection, ReadinessHub
from inferd_daemon.backends.transport.connection import RECEIVE_BYTES
from inferd_daemon.backends.transport.readiness_hub import (
    AWAITED_S,
    REST_S,
    SHARE_S,
    TRICKLE_BYTES,
    TRICKLE_SHARE_S,
)

MANY = int(REST_S[1] / SHARE_S) + 1
FEW = int(REST_S[1] / TRICKLE_SHARE_S) + 1


class Crowd:
    """Connections of one hub, their peers, and what each has received and when."""

    def __init__(self, size: int) -> None:
        self.hub = ReadinessHub()
        pairs = [socket.socketpair() for _ in range(size)]
        for ours, _ in pairs:
            ours.setblocking(False)
        self.peers = [peer for _, peer in pairs]
        self.connections = [Connection(ours, self.hub) for ours, _ in pairs]
        self.got: list[list[tuple[float, bytes | None]]] = [[] for _ in pairs]

    async def receive(self, number: int, within_s: float = 60) -> None:
        deadline = trio.current_time() + within_s
        data = await self.connections[number].receive(deadline)
        self.got[number].append((trio.current_time(), data))

    def data(self, number: int) -> list[bytes | None]:
        return [data for _, data in self.got[number]]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for peer in self.peers:
            peer.close()


@contextmanager
def crowd(size: int) -> Generator[Crowd, None, None]:
    with closing(Crowd(size)) as them:
        yield them


async def waiting(nursery: trio.Nursery, them: Crowd, *numbers: int) -> None:
    """Let them wait, the first of all leading."""
    for number in numbers:
        nursery.start_soon(them.receive, number)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_each_gets_its_own(nursery: trio.Nursery, order: tuple[int, ...]) -> None:
    with crowd(3) as them:
        await waiting(nursery, them, 0, 1, 2)
        for number in order:
            them.peers[number].send(b"for %d" % number)
            await wait_all_tasks_blocked(0.01)
            assert them.data(number) == [b"for %d" % number]


async def test_what_is_there_already_is_seen() -> None:
    with crowd(1) as them:
        them.peers[0].send(b"early")
        assert await them.connections[0].receive() == b"early"


async def test_more_than_one_receive_takes(nursery: trio.Nursery) -> None:
    sent = os.urandom(2 * RECEIVE_BYTES + 5)
    with crowd(1) as them:
        async with trio.open_nursery() as first:
            await waiting(first, them, 0)
            nursery.start_soon(partial(trio.to_thread.run_sync, them.peers[0].sendall, sent))
        got = them.data(0)[0] or b""
        with trio.fail_after(60):
            while len(got) < len(sent):
                got += await them.connections[0].receive() or b""
        assert got == sent


async def test_the_end_that_comes_with_the_last_bytes() -> None:
    with crowd(1) as them, trio.fail_after(60):
        them.peers[0].send(b"last")
        them.peers[0].close()
        for expected in (b"last", b"", b""):
            assert await them.connections[0].receive() == expected


async def test_each_has_its_own_deadline(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    with crowd(4) as them:
        began = trio.current_time()
        for number, within_s in enumerate((7, 9, 3, 5)):
            nursery.start_soon(them.receive, number, within_s)
            await wait_all_tasks_blocked()
        await trio.sleep(8)
        them.peers[1].send(b"in time")
        await trio.sleep(2)
        assert [them.data(number) for number in range(4)] == [[None], [b"in time"], [None], [None]]
        ends = [them.got[number][0][0] - began for number in (0, 2, 3)]
        assert ends == pytest.approx([7, 3, 5], abs=0.01)


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_who_is_cancelled_takes_nobody_along(nursery: trio.Nursery, leaver: int) -> None:
    scope = trio.CancelScope()
    with crowd(3) as them:

        async def wait(number: int) -> None:
            with scope if number == leaver else trio.CancelScope():
                await them.receive(number)

        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        for peer in them.peers:
            peer.send(b"x")
        await wait_all_tasks_blocked(0.01)
        assert [len(got) for got in them.got] == [int(n != leaver) for n in range(3)]
        # What came for it is still there.
        assert await them.connections[leaver].receive() == b"x"


@pytest.mark.parametrize("closed", [0, 1, 2])
async def test_who_is_closed_takes_nobody_along(nursery: trio.Nursery, closed: int) -> None:
    with crowd(3) as them:

        async def wait(number: int) -> None:
            if number == closed:
                with pytest.raises(trio.ClosedResourceError):
                    await them.receive(number)
            else:
                await them.receive(number)

        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        them.connections[closed].close()
        for peer in them.peers[:closed] + them.peers[closed + 1 :]:
            peer.send(b"x")
        await wait_all_tasks_blocked(0.01)
        assert [len(got) for got in them.got] == [int(n != closed) for n in range(3)]


@pytest.mark.parametrize(("size", "rest_s"), [(1, 0.0), (MANY, REST_S[1])])
async def test_many_wakings_bring_a_rest(
    nursery: trio.Nursery, autojump_clock: MockClock, size: int, rest_s: float
) -> None:
    with crowd(size) as them:
        await waiting(nursery, them, *range(size))
        for peer in them.peers:
            peer.send(b"one")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        assert [them.data(number) for number in range(size)] == [[b"one"]] * size
        await waiting(nursery, them, *range(size)[:2])
        # Nobody waits for longer, and all that came is read at once.
        them.peers[0].send(b"two")
        them.peers[0].send(b"three")
        await trio.sleep(1)
        moment, data = them.got[0][-1]
        assert data == b"twothree"
        assert moment - began == pytest.approx(rest_s, abs=0.000_5)
        for peer in them.peers[:2]:
            peer.send(b"x")
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(("read", "rest_s"), [(TRICKLE_BYTES - 1, REST_S[1]), (TRICKLE_BYTES, 0.0)])
async def test_few_bring_a_rest_where_they_trickle(
    nursery: trio.Nursery, autojump_clock: MockClock, read: int, rest_s: float
) -> None:
    with crowd(FEW) as them:
        for _ in range(2):
            await waiting(nursery, them, *range(FEW))
            for peer in them.peers:
                peer.send(bytes(read))
            await wait_all_tasks_blocked()
            began = trio.current_time()
        await waiting(nursery, them, 0)
        them.peers[0].send(b"x")
        await trio.sleep(1)
        assert them.got[0][-1][0] - began == pytest.approx(rest_s, abs=0.000_5)


@pytest.mark.parametrize("asks", [0, 1])
async def test_an_answer_that_is_awaited_comes_in_a_rest(
    nursery: trio.Nursery, autojump_clock: MockClock, asks: int
) -> None:
    with crowd(MANY) as them:
        await waiting(nursery, them, *range(MANY))
        for peer in them.peers:
            peer.send(b"one")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await them.connections[asks].send(b"a request")
        await waiting(nursery, them, 0, 1)
        for peer in them.peers[:2]:
            peer.send(b"two")
        await trio.sleep(1)
        took = [them.got[number][-1][0] - began for number in (asks, 1 - asks)]
        assert took == pytest.approx([0.0, REST_S[1]], abs=0.000_5)


async def test_an_answer_is_awaited_for_a_while_only(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    with crowd(MANY) as them:
        await them.connections[0].send(b"a request")
        await trio.sleep(2 * AWAITED_S)
        for _ in range(2):
            await waiting(nursery, them, *range(MANY))
            began = trio.current_time()
            for peer in them.peers:
                peer.send(b"a token")
            await trio.sleep(0.1 * REST_S[0])
        await trio.sleep(1)
        took = [them.got[number][-1][0] - began for number in (0, 1)]
        assert took == pytest.approx([REST_S[1]] * 2, abs=0.000_5)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_its_descriptor_goes_with_the_last_socket() -> None:
    gc.collect()  # what others left is not to go meanwhile
    before = descriptors()
    for _ in range(2):
        with crowd(2) as them:
            assert descriptors() == before + 6
            them.connections[0].close()
            assert descriptors() == before + 5
            them.peers[1].send(b"x")
            assert await them.connections[1].receive() == b"x"
        assert descriptors() == before


@contextmanager
def no_descriptors() -> Generator[None, None, None]:
    """The process has as many as it may have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        while True:
            try:
                stack.callback(os.close, os.dup(0))
            except OSError:
                break
        yield


async def test_without_a_descriptor_each_waits_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    hub = ReadinessHub()
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with no_descriptors():
        connection = Connection(ours, hub)
    with peer, closing(connection):
        assert await connection.receive(trio.current_time() + 1) is None
        peer.send(b"x")
        assert await connection.receive(trio.current_time() + 1) == b"x"


async def test_nothing_is_lost_in_a_crowd_that_comes_and_goes() -> None:
    """Of senders that stop, readers that give up, and connections that end."""
    chance = random.Random(4)
    with crowd(40) as them, trio.fail_after(60):
        received = [b""] * 40

        async def send(number: int) -> None:
            with them.peers[number] as peer:
                for _ in range(50):
                    peer.send(b"%d " % number)
                    if chance.random() < 0.3:
                        await trio.sleep(chance.random() / 500)
                    else:
                        await trio.lowlevel.checkpoint()

        async def read(number: int) -> None:
            connection = them.connections[number]
            while True:
                data: bytes | None = None
                deadline = trio.current_time() + chance.random() / 300
                if chance.random() < 0.5:
                    data = await connection.receive(deadline)
                else:
                    with trio.CancelScope(deadline=deadline):
                        data = await connection.receive()
                if data == b"":
                    return connection.close()
                received[number] += data or b""

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(send, number)
                nursery.start_soon(read, number)
        assert received == [b"%d " % number * 50 for number in range(40)]
