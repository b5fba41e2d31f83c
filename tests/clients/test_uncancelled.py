"""Last words: done to the end on both loops, whoever cancels, and never for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from inferd_client.uncancelled import uncancelled

Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_a_cancelled_scope_waits_for_it(run: Run) -> None:
    done: list[str] = []

    async def work() -> None:
        await anyio.sleep(0.02)
        done.append("work")

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await uncancelled(work, 10)
            assert done == ["work"]
            await anyio.lowlevel.checkpoint()
            raise AssertionError("it was not cancelled after")
        assert scope.cancelled_caught

    run(main)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_asyncios_own_cancellations_wait_for_it_and_are_raised(times: int) -> None:
    done: list[str] = []
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.sleep(0.02)
        done.append("work")

    async def main() -> None:
        task = asyncio.create_task(uncancelled(work, 10))
        await began.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["work"]

    asyncio.run(main())


def test_one_before_it_began_too() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("work")

    async def whole() -> None:
        this = asyncio.current_task()
        assert this is not None
        this.cancel()
        await uncancelled(work, 10)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(whole())
        assert done == ["work"]

    asyncio.run(main())


def test_asyncios_timeout_is_a_timeout_after_it() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await uncancelled(lambda: asyncio.sleep(0.05), 10)
        this = asyncio.current_task()
        assert this is not None
        assert this.cancelling() == 0

    asyncio.run(main())


def test_it_is_bounded(run: Run) -> None:
    async def main() -> None:
        with anyio.fail_after(10):
            await uncancelled(lambda: anyio.sleep(60), 0.02)

    run(main)
