"""A response's body, piece by piece under a deadline, and how the answer in it goes.

It knows nothing of what the pieces hold.
"""

from contextlib import suppress
from math import inf

import httpx
import trio

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


def body_of(response: httpx.Response) -> ResponseBody:
    """Of a response of our own transport."""
    assert isinstance(response.stream, ResponseBody)
    return response.stream


async def finish_body(body: ResponseBody, now: float) -> None:
    """Wait for the end of the body behind an answer that is whole: that saves the connection."""
    deadline = now + (TLS_DRAIN_S if body.secure else DRAIN_S)
    with suppress(httpx.TransportError):
        while not body.whole and trio.current_time() < deadline:
            if not await body.next_by(deadline):
                break
