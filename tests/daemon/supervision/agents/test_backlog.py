"""What a run says is kept for a slower reader, up to a bound; each may end before the other."""

from contextlib import aclosing

import pytest
import trio
import trio.testing

from inferd_daemon.backends.base import Batch, Finished, TextDeltas, ThinkingDeltas
from inferd_daemon.errors import BackendFault, RequestError
from inferd_daemon.supervision.agents.backlog import PIECE_BYTES, ROOM_BYTES, Backlog
from inferd_proto import ErrorCode, Usage

END = Finished("end_turn", Usage(1, 1))
LARGE: Batch = [TextDeltas(["x" * (ROOM_BYTES + 1)])]


def said(text: str) -> Batch:
    return [TextDeltas([text])]


async def fill(backlog: Backlog, batches: list[Batch], error: Exception | None = None) -> None:
    with backlog, backlog.scope:
        for batch in batches:
            await backlog.put(batch)
        if error is not None:
            raise error


async def read(backlog: Backlog) -> list[Batch]:
    async with aclosing(backlog.take()) as batches:
        return [batch async for batch in batches]


async def test_what_was_said_before_anybody_read_is_read_in_order() -> None:
    backlog = Backlog()
    batches: list[Batch] = [said("a"), [ThinkingDeltas(["b"])], [TextDeltas(["c"]), END]]
    await fill(backlog, batches)
    assert await read(backlog) == batches


async def test_a_reader_gets_each_batch_as_it_is_said(nursery: trio.Nursery) -> None:
    backlog = Backlog()
    goes_on = trio.Event()

    async def run() -> None:
        with backlog, backlog.scope:
            await backlog.put(said("a"))
            await goes_on.wait()
            await backlog.put([END])

    nursery.start_soon(run)
    async with aclosing(backlog.take()) as batches:
        assert await anext(batches) == said("a")
        goes_on.set()
        assert await anext(batches) == [END]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_an_error_comes_after_what_was_said(nursery: trio.Nursery) -> None:
    backlog = Backlog()
    nursery.start_soon(fill, backlog, [said("a")], RequestError(ErrorCode.TIMEOUT, "too late"))
    async with aclosing(backlog.take()) as batches:
        assert await anext(batches) == said("a")
        with pytest.raises(RequestError, match="too late"):
            await anext(batches)


async def test_an_unforeseen_error_is_its_readers_alone(nursery: trio.Nursery) -> None:
    backlog = Backlog()
    nursery.start_soon(fill, backlog, [], ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        await read(backlog)


async def test_a_run_that_says_too_much_waits_for_its_reader(nursery: trio.Nursery) -> None:
    backlog = Backlog()
    put = 0

    async def run() -> None:
        nonlocal put
        with backlog, backlog.scope:
            for batch in (LARGE, said("a"), said("b")):
                await backlog.put(batch)
                put += 1

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    assert put == 0
    assert await read(backlog) == [LARGE, said("a"), said("b")]
    assert put == 3


async def test_small_pieces_take_room_as_well() -> None:
    backlog = Backlog()
    count = ROOM_BYTES // PIECE_BYTES
    with trio.move_on_after(0.05) as waiting:
        with backlog, backlog.scope:
            await backlog.put([TextDeltas(["x"] * count)])
    assert waiting.cancelled_caught


async def test_a_run_that_is_over_waits_for_nobody() -> None:
    backlog = Backlog()
    with trio.fail_after(5):
        await fill(backlog, [[*LARGE, END]])
    assert await read(backlog) == [[*LARGE, END]]


@pytest.mark.parametrize("batches", [[], [said("a")], [LARGE]])
async def test_who_lets_go_ends_the_run_and_waits_for_its_end(
    batches: list[Batch], nursery: trio.Nursery
) -> None:
    backlog = Backlog()
    ended = False

    async def run() -> None:
        nonlocal ended
        with backlog, backlog.scope:
            try:
                for batch in batches:
                    await backlog.put(batch)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.05)
                ended = True

    nursery.start_soon(run)
    with trio.move_on_after(0.02):
        async with aclosing(backlog.take()) as taken:
            async for _ in taken:
                await trio.sleep_forever()
    assert ended


async def test_a_daemon_that_stops_leaves_no_reader_waiting() -> None:
    backlog = Backlog()
    with trio.CancelScope() as daemon:
        daemon.cancel()
        with backlog, backlog.scope:
            await trio.sleep_forever()
    with pytest.raises(BackendFault, match="the daemon stopped"), trio.fail_after(5):
        await read(backlog)
