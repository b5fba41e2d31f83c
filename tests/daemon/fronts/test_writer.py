"""Writes to a real socket whose reader is slow, absent or gone."""

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.fronts.writer import ClientGone, SocketWriter, WriteTimeout

BIG = 1_000_000
"""More than a socket's buffers take."""

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def read(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        await trio.lowlevel.wait_readable(sock)
        data += sock.recv(min(65_536, size - len(data)))
    return data


async def test_writes_come_whole_and_in_order(pair: Pair, nursery: trio.Nursery) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    frames = [bytes([number]) * BIG for number in range(5)]
    for frame in frames:
        nursery.start_soon(writer.write, frame)
        await wait_all_tasks_blocked()
    assert await read(theirs, 5 * BIG) == b"".join(frames)


async def test_a_small_write_is_a_checkpoint_and_waits_for_nobody(pair: Pair) -> None:
    writer = SocketWriter(pair[0], 60)
    with trio.testing.assert_checkpoints():
        await writer.write(b"x")
    assert await read(pair[1], 1) == b"x"


async def test_a_write_holds_its_producer_until_the_reader_reads(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    done = trio.Event()

    async def produce() -> None:
        await writer.write(b"x" * BIG)
        done.set()

    nursery.start_soon(produce)
    await wait_all_tasks_blocked()
    assert not done.is_set()
    await read(theirs, BIG)
    with trio.fail_after(10):
        await done.wait()


async def test_a_reader_that_takes_nothing_is_timed_out_and_so_is_who_waits(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    writer = SocketWriter(pair[0], 0.05)
    failed: list[type[Exception]] = []

    async def produce() -> None:
        try:
            await writer.write(b"x" * BIG)
        except ClientGone as error:
            failed.append(type(error))

    for _ in range(3):
        nursery.start_soon(produce)
    with trio.fail_after(10):
        await trio.sleep(0.2)
    assert failed == [WriteTimeout] * 3


async def test_nothing_is_written_into_a_frame_that_was_cut(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The reader wakes in the instant in which it is given up."""
    ours, theirs = pair
    writer = SocketWriter(ours, 0.05)

    async def produce(letter: bytes) -> None:
        with pytest.raises(ClientGone):
            await writer.write(letter * BIG)

    nursery.start_soon(produce, b"a")
    await wait_all_tasks_blocked()
    nursery.start_soon(produce, b"b")
    await trio.sleep(0.1)
    data = b""
    while True:
        try:
            data += theirs.recv(65_536)
        except BlockingIOError:
            break
    assert set(data) == {ord("a")}


async def test_a_reader_that_takes_a_little_now_and_then_is_not_timed_out(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 0.1)
    frame = b"x" * 40_000
    done = trio.Event()

    async def produce() -> None:
        for _ in range(20):
            await writer.write(frame)
        done.set()

    nursery.start_soon(produce)
    await wait_all_tasks_blocked()
    for _ in range(6):
        await trio.sleep(0.06)
        theirs.recv(40_000)
    assert not done.is_set()
    await read(theirs, 14 * 40_000)
    with trio.fail_after(10):
        await done.wait()


async def test_a_reader_that_is_gone(pair: Pair) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    theirs.close()
    for _ in range(2):
        with pytest.raises(ClientGone):
            await writer.write(b"x")


async def test_a_reader_that_leaves_wakes_who_writes_to_it(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    gone: list[int] = []

    async def produce(number: int) -> None:
        with pytest.raises(ClientGone):
            await writer.write(b"x" * BIG)
        gone.append(number)

    for number in range(3):
        nursery.start_soon(produce, number)
    await wait_all_tasks_blocked()
    theirs.close()
    with trio.fail_after(10):
        while len(gone) < 3:  # noqa: ASYNC110  three tasks end, each for itself
            await trio.sleep(0.001)


async def test_a_cancelled_write_ends_at_once_and_cuts_no_frame(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    with trio.move_on_after(0.02) as scope:
        await writer.write(b"a" * BIG)
    assert scope.cancelled_caught
    with trio.move_on_after(0.02) as scope:  # behind the rest of the first: nothing of it goes out
        await writer.write(b"b" * BIG)
    assert scope.cancelled_caught
    nursery.start_soon(writer.write, b"c")
    assert await read(theirs, BIG + 1) == b"a" * BIG + b"c"


async def test_who_is_cancelled_in_line_hands_its_turn_on(
    pair: Pair, nursery: trio.Nursery
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    scope = trio.CancelScope()

    async def produce(letter: bytes, within: trio.CancelScope) -> None:
        with within:
            await writer.write(letter * BIG)

    nursery.start_soon(produce, b"a", trio.CancelScope())
    await wait_all_tasks_blocked()
    nursery.start_soon(produce, b"b", scope)
    await wait_all_tasks_blocked()
    nursery.start_soon(produce, b"c", trio.CancelScope())
    await wait_all_tasks_blocked()
    scope.cancel()
    assert await read(theirs, 2 * BIG) == b"a" * BIG + b"c" * BIG


@pytest.mark.parametrize("turn_first", [True, False])
async def test_the_turn_and_the_cancel_in_the_same_instant(
    pair: Pair, nursery: trio.Nursery, turn_first: bool
) -> None:
    ours, theirs = pair
    writer = SocketWriter(ours, 60)
    holder, waiter = trio.CancelScope(), trio.CancelScope()

    async def produce(letter: bytes, within: trio.CancelScope) -> None:
        with within:
            await writer.write(letter * BIG)

    for letter, scope in ((b"a", holder), (b"b", waiter), (b"c", trio.CancelScope())):
        nursery.start_soon(produce, letter, scope)
        await wait_all_tasks_blocked()
    for scope in (holder, waiter) if turn_first else (waiter, holder):
        scope.cancel()
    await wait_all_tasks_blocked()
    # the holder's frame is out in part, so it comes whole; the waiter's never began
    assert await read(theirs, 2 * BIG) == b"a" * BIG + b"c" * BIG
