"""The way to one provider's runs: waits for a turn there, and gives it back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from inferd_proto import ErrorCode

from ...errors import RequestError
from .run_queue import Party, RunQueue, Ticket


class Gate:
    """At most `max_runs` at once; `max_waiting` more wait, and take turns by who they are of."""

    def __init__(self, provider: str, max_runs: int, max_waiting: int) -> None:
        self._provider = provider
        self._queue = RunQueue(max_runs, max_waiting)
        self._waiting: dict[Ticket, trio.Event] = {}

    @property
    def running(self) -> int:
        """How many run now."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.waiting

    @asynccontextmanager
    async def turn(self, party: Party) -> AsyncIterator[None]:
        """Raises RequestError (`queue_full`), at once or once others need the place more."""
        ticket, displaced = self._queue.enter(party)
        self._wake(displaced)
        try:
            if not (ticket.admitted or ticket.refused):
                self._waiting[ticket] = trio.Event()
                await self._waiting[ticket].wait()
            if ticket.refused:
                raise RequestError(
                    ErrorCode.QUEUE_FULL,
                    f"{self._queue.running} runs of {self._provider} are under way and "
                    f"{self._queue.waiting} requests wait: try later",
                )
            yield
        finally:
            self._waiting.pop(ticket, None)
            self._wake(self._queue.leave(ticket))

    def _wake(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()
