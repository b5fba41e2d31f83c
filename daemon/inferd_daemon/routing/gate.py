"""Waits for a permit on behalf of a request, as `admission` decides."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

import trio

from inferd_proto import ErrorCode

from ..errors import RequestError
from .admission import Admission, Full, Queued

OnQueued = Callable[[Queued], Awaitable[None]]


class Gate:
    """The door of one route."""

    def __init__(self, route: str, admission: Admission, max_wait_ms: int | None = None) -> None:
        self._route = route
        self._admission = admission
        self._max_wait_s = max_wait_ms / 1000 if max_wait_ms is not None else float("inf")
        self._turns: dict[object, trio.Event] = {}

    @property
    def admission(self) -> Admission:
        """Counts, for `status`."""
        return self._admission

    @asynccontextmanager
    async def admitted(
        self, peer: Hashable, on_queued: OnQueued | None = None
    ) -> AsyncGenerator[None, None]:
        """Holds a permit for the block.

        `on_queued` is told once if the request has to wait. Raises RequestError: `queue_full` at
        once where the queue is full, `timeout` after `max_wait_ms`. A cancelled wait leaves no
        trace.
        """
        ticket = object()
        verdict = self._admission.request(ticket, peer, trio.current_time())
        if isinstance(verdict, Full):
            raise RequestError(
                ErrorCode.QUEUE_FULL,
                f"route {self._route} is full: {verdict.waiting} requests wait for"
                f" {verdict.permits} permits{_in_about(verdict.estimate_ms)}; try again later",
            )
        if isinstance(verdict, Queued):
            await self._wait(ticket, verdict, on_queued)
        try:
            yield
        finally:
            for admitted in self._admission.release(ticket, trio.current_time()):
                self._turns.pop(admitted).set()

    async def _wait(self, ticket: object, verdict: Queued, on_queued: OnQueued | None) -> None:
        turn = self._turns[ticket] = trio.Event()
        admitted = False
        try:
            with trio.move_on_after(self._max_wait_s) as scope:
                if on_queued is not None:
                    await on_queued(verdict)
                await turn.wait()
            admitted = turn.is_set() and not scope.cancelled_caught
            if not admitted:
                raise self._waited_too_long(ticket, turn)
        finally:
            if not admitted:
                self._leave(ticket, turn)

    def _waited_too_long(self, ticket: object, turn: trio.Event) -> RequestError:
        place = "it was its turn" if turn.is_set() else f"place {self._admission.position(ticket)}"
        return RequestError(
            ErrorCode.TIMEOUT,
            f"waited {self._max_wait_s:g} s for route {self._route} and stood at {place}",
        )

    def _leave(self, ticket: object, turn: trio.Event) -> None:
        """The turn may have come in the same instant: then it is handed on."""
        if turn.is_set():
            for admitted in self._admission.release(ticket, trio.current_time()):
                self._turns.pop(admitted).set()
        else:
            self._admission.withdraw(ticket)
            del self._turns[ticket]


def _in_about(estimate_ms: int | None) -> str:
    return "" if estimate_ms is None else f", about {estimate_ms} ms"
