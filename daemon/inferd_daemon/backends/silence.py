"""Finds requests that an engine has forgotten: it works on nothing and yet does not answer them.

How long a prompt may take nobody knows, so silence alone proves nothing. It must never end a
request while the engine works on anything, nor where the engine does not say.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from ..errors import BackendFault

if TYPE_CHECKING:
    from .chat_client import ChatClient

T = TypeVar("T")

LOOK_S = 10.0
"""Between two looks, while somebody waits for a first answer; one look may take as long."""
SILENT_S = 30.0
"""Cutting a text into tokens and reading an image look like idleness, but not for so long."""
LOOKS = 3
"""So many looks in a row must find the engine idle."""


class _Slot(msgspec.Struct):
    is_processing: bool


class Silence:
    """Watches the requests of one engine; `busy` counts its busy slots, None where it is not told.

    Wants `run` to run; without it nothing is watched.
    """

    def __init__(self, busy: Callable[[], Awaitable[int | None]]) -> None:
        self._busy = busy
        self._waiting: dict[trio.CancelScope, float] = {}

    async def first(self, answer: Awaitable[T]) -> T:
        """What `answer` brings. Raises BackendFault where the engine has forgotten it."""
        scope = trio.CancelScope()
        self._waiting[scope] = trio.current_time()
        try:
            with scope:
                return await answer
        finally:
            del self._waiting[scope]
        raise BackendFault("the engine is idle and does not answer this request; send it again")

    async def run(self) -> None:
        """Look, until cancelled."""
        idle_looks = 0
        while True:
            await trio.sleep(LOOK_S)
            before = trio.current_time() - SILENT_S
            silent = [scope for scope, since in self._waiting.items() if since < before]
            idle = bool(silent) and await self._busy() == 0
            idle_looks = idle_looks + 1 if idle else 0
            if idle_looks >= LOOKS:
                idle_looks = 0
                for scope in silent:
                    scope.cancel()


async def busy_slots(client: "ChatClient", api_prefix: str = "") -> int | None:
    """How many of llama.cpp's slots work; None where it does not say in time."""
    try:
        status, body = await client.get(f"{api_prefix}/slots", timeout_s=LOOK_S)
        if status != 200:
            return None
        return sum(slot.is_processing for slot in msgspec.json.decode(body, type=list[_Slot]))
    except (BackendFault, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
