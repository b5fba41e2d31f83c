"""Work that is done to its end, or its deadline, whoever cancels meanwhile; trio and asyncio.

For last words alone: what waits here holds up a program that wants to stop.
"""

from collections.abc import Awaitable, Callable

import anyio


async def uncancelled(work: Callable[[], Awaitable[None]], timeout_s: float) -> None:
    """Await `work` for at most `timeout_s`. A cancellation is raised after it, not during it.

    In a task of its own: asyncio's `Task.cancel`, and so its timeouts, pass through a shield of
    anyio and end what the task itself awaits. `work` must not raise.
    """

    async def bounded() -> None:
        with anyio.move_on_after(timeout_s, shield=True):
            await work()

    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            group.start_soon(bounded)
