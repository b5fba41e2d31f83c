"""What the requests to an upstream tell of it: when it was heard, and how many wait to hear it.

It only notes; what follows from it its backend decides.
"""

from math import inf
from types import TracebackType

import trio

from ..errors import BackendSilence, KeyRefused


class VitalSigns:
    """Times are by trio's clock.

    `heard_at`: a part of any answer came. `succeeded_at`: a request went well. `silent_at`: one ran
    out of time. `refused_at`: one was refused for its key. `unheard` requests were sent and wait
    for the first of their answer; each has a deadline.
    """

    __slots__ = ("heard_at", "refused_at", "silent_at", "succeeded_at", "unheard")

    def __init__(self) -> None:
        self.heard_at = -inf
        self.succeeded_at = -inf
        self.silent_at = -inf
        self.refused_at = -inf
        self.unheard = 0

    def listen(self) -> "Listening":
        """A context manager for one request, from before it is sent to its end."""
        return Listening(self)


class Listening:
    """To the answer of one request."""

    __slots__ = ("_signs", "_unheard")

    def __init__(self, signs: VitalSigns) -> None:
        self._signs = signs
        self._unheard = False

    def __enter__(self) -> "Listening":
        self._unheard = True
        self._signs.unheard += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._found()
        if isinstance(error, BackendSilence):
            self._signs.silent_at = trio.current_time()
        elif isinstance(error, KeyRefused):
            self._signs.refused_at = trio.current_time()

    def heard(self, now: float) -> None:
        """A part of the answer came."""
        self._signs.heard_at = now
        if self._unheard:
            self._found()

    def _found(self) -> None:
        if self._unheard:
            self._unheard = False
            self._signs.unheard -= 1
