"""A response's body, piece by piece under a deadline, and how the answer in it goes.

It knows nothing of what the pieces hold.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf

import httpx
import trio

from .http_messages import drain
from .transport import ResponseBody

DRAIN_S = 0.01
"""After `[DONE]` only the mark of the last chunk is due. Waiting for it saves the connection, but
the end of the answer and the slot wait as well."""
TLS_DRAIN_S = 0.05
"""Such a connection costs more to make again."""
ENDING_S = 1.0
"""After an answer said why it ended its usage may come, and its end, which some servers forget."""


class Course:
    """How an answer went: when its last event came, the client's pauses apart, and how long these
    were in all.
    """

    __slots__ = ("events", "held_s", "last_event_at")

    def __init__(self) -> None:
        self.events = 0
        self.last_event_at = -inf
        self.held_s = 0.0

    def read_by_client(self, *, since: float) -> float:
        """The client has read what it was given at `since`. Returns the time."""
        now = trio.current_time()
        self.held_s += now - since
        self.last_event_at += now - since
        return now


async def finish_body(
    stream: httpx.AsyncByteStream, pieces: AsyncIterator[bytes], now: float
) -> None:
    """Wait for the end of the body behind an answer that is whole: that saves the connection."""
    longest_s = TLS_DRAIN_S
    if isinstance(stream, ResponseBody):
        if stream.whole:
            return
        longest_s = DRAIN_S
    with trio.CancelScope(deadline=now + longest_s):
        await drain(pieces)


def piece_source(
    stream: httpx.AsyncByteStream, pieces: AsyncIterator[bytes]
) -> Callable[[float], Awaitable[bytes | None]]:
    """Gives the next piece of `stream`, which `pieces` iterates: b"" at its end, None when the
    deadline that it is given came first. Raises httpx.TransportError.
    """
    if isinstance(stream, ResponseBody):
        return stream.next_by  # waits without a cancel scope of its own, which costs the most

    async def next_by(deadline: float) -> bytes | None:
        with trio.CancelScope(deadline=deadline):
            return await anext(pieces, b"")
        return None

    return next_by
