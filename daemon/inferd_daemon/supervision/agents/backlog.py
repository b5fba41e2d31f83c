"""What a run has said and its reader has not taken: so that neither keeps what the other does not
need.

The run is in a task of its own and fills it; it ends when it ends, however slowly it is read.
Whoever reads takes one batch after the other, and when he lets go the run is ended.
"""

from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

import trio

from ...backends.base import Batch, Finished, TextDeltas, ThinkingDeltas
from ...errors import BackendFault

ROOM_BYTES = 1 << 20
"""Most answers fit as a whole; a run that says more stands still until its reader has caught up."""
PIECE_BYTES = 200
"""What a piece takes in memory besides its text: most are a word or less."""


class Backlog:
    """Between one run and one reader.

    The run's task: `with backlog, backlog.scope:` around all that it does, and `put`. The error
    that ends it is raised to the reader, after what came before it.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._over = trio.Event()
        self._added = trio.Event()
        self._taken = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        passed_on = isinstance(error, Exception)
        if isinstance(error, Exception):
            self._error = error
        elif error is not None:
            self._error = BackendFault("the daemon stopped before the answer was complete")
        self._over.set()
        self._added.set()
        return passed_on

    async def put(self, batch: Batch) -> None:
        """Add what was said; then wait while there is more than may be kept. The last is not
        waited for."""
        self._batches.append(batch)
        self._bytes += _size(batch)
        self._added.set()
        while self._bytes > ROOM_BYTES and not isinstance(batch[-1], Finished):
            self._taken = trio.Event()
            await self._taken.wait()

    async def take(self) -> AsyncGenerator[Batch, None]:
        """All of it, as it comes; the run is over when this is. Use it within `aclosing`.

        Raises what ended the run.
        """
        try:
            while self._batches or not self._over.is_set():
                if not self._batches:
                    self._added = trio.Event()
                    await self._added.wait()
                    continue
                batch = self._batches.popleft()
                self._bytes -= _size(batch)
                self._taken.set()
                yield batch
            if self._error is not None:
                raise self._error
        finally:
            self.scope.cancel()
            with trio.CancelScope(shield=True):
                await self._over.wait()


def _size(batch: Batch) -> int:
    """About what it takes in memory."""
    return sum(
        PIECE_BYTES + len(delta)
        for event in batch
        if isinstance(event, TextDeltas | ThinkingDeltas)
        for delta in event.deltas
    )
