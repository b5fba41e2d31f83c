"""Whose turn it is at an engine of ours: as many requests at once as it has slots, no more.

A turn lasts until the engine has let go of its request, not only until its caller has. llama.cpp
parks what finds no slot and can forget it there when others in the park are abandoned, so nothing
may ever have to be parked. It must never make the caller of a cancelled request wait.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from ..errors import BackendFault
from .base import Batch, Capabilities, GenerateRequest, Relayed, RelayRequest
from .silence import Silence

if TYPE_CHECKING:
    from .chat_client import ChatClient
    from .relaying_client import RelayingClient
    from .transport import Connection

T = TypeVar("T")
R = TypeVar("R")

LET_GO_S = 10.0
"""llama.cpp looks once a second whether the client of an unanswered request is still there; the
rest is for a loaded machine and for a long text that is being cut into tokens."""


class EngineTurns:
    """The turns of one engine with `slots` slots, of which `busy` counts those that work.

    `leave` is what its transports do with connections that end early, and wants `run` to run;
    without it they are closed at once and their turns end with them.
    """

    def __init__(self, slots: int, busy: Callable[[], Awaitable[int | None]]) -> None:
        self._silence = Silence(busy)
        self._limiter = trio.CapacityLimiter(slots)
        self._nursery: trio.Nursery | None = None
        # Connections that still wait for the turn they keep occupied. Turns are all alike, so the
        # next one that ends is it, whoever's it was.
        self._unpaid: set[Connection] = set()
        self._kept: dict[Connection, object] = {}

    async def run(self) -> None:
        """Own the connections that were left, until cancelled; then close them. Find what the
        engine has forgotten.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._silence.run()
        finally:
            self._nursery = None

    def leave(self, connection: "Connection") -> None:
        """Tell the engine that nobody waits any more, and keep a turn until it has understood."""
        if self._nursery is None or not connection.half_close():
            connection.close()
            return
        self._unpaid.add(connection)
        self._nursery.start_soon(self._see_off, connection)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait for a turn and have it for the block."""
        turn = object()  # not the task: another one may close a generator
        await self._limiter.acquire_on_behalf_of(turn)
        try:
            yield
        finally:
            if self._unpaid:
                self._kept[self._unpaid.pop()] = turn
            else:
                self._limiter.release_on_behalf_of(turn)

    async def generate(
        self,
        client: "Callable[[], ChatClient]",
        request: GenerateRequest,
        can: Callable[[], Capabilities],
        revive: Callable[[BackendFault], Awaitable[None]],
    ) -> AsyncGenerator[Batch, None]:
        """The answer as batches, in one turn. Use it within `contextlib.aclosing`.

        `revive` raises what a fault means, or returns where the request may be sent again: once.
        """
        async with self.turn():
            try:
                async with aclosing(client().generate(request, can())) as batches:
                    yield await self._silence.first(anext(batches))
                    async for batch in batches:
                        yield batch
                return
            except BackendFault as fault:
                await revive(fault)
            async with aclosing(client().generate(request, can())) as batches:
                yield await self._silence.first(anext(batches))
                async for batch in batches:
                    yield batch

    @asynccontextmanager
    async def relay(
        self,
        client: "Callable[[], RelayingClient]",
        request: RelayRequest,
        can: Callable[[], Capabilities],
        revive: Callable[[BackendFault], Awaitable[None]],
    ) -> AsyncGenerator[Relayed, None]:
        """An answer that is passed on undecoded, in one turn; `revive` as in `generate`."""
        async with self.turn(), AsyncExitStack() as stack:
            try:
                opening = stack.enter_async_context(client().relay(request, can()))
                relayed = await self._silence.first(opening)
            except BackendFault as fault:
                await revive(fault)
                opening = stack.enter_async_context(client().relay(request, can()))
                relayed = await self._silence.first(opening)
            yield relayed

    async def ask(
        self,
        operation: Callable[[], Callable[[T], Awaitable[R]]],
        request: T,
        revive: Callable[[BackendFault], Awaitable[None]],
    ) -> R:
        """A whole answer, in one turn; `revive` as in `generate`."""
        async with self.turn():
            try:
                return await self._silence.first(operation()(request))
            except BackendFault as fault:
                await revive(fault)
            return await self._silence.first(operation()(request))

    async def _see_off(self, connection: "Connection") -> None:
        try:
            with trio.move_on_after(LET_GO_S):
                await connection.wait_closed()
        finally:
            connection.close()
            self._unpaid.discard(connection)
            turn = self._kept.pop(connection, None)
            if turn is not None:
                self._limiter.release_on_behalf_of(turn)
