"""A backend as routes see it: is it there to be asked, how busy is it, how has it done. Pure.

One for each backend, shared by the routes that name it: what they have in flight together is bound
by its slots, and a slot that is free goes to them in turn. Judges whose fault a failure was.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from inferd_proto import ErrorCode

from ..backends.base import Backend, Readiness
from ..errors import AnswerTooLong, BackendFault, BackendSilence, MachineFault, ModelFault
from .breaker import Breaker, Pass

Clock = Callable[[], float]
Taker = Callable[[], bool]
"""Lets one request in that waits and has room; False where there is none."""
MAX_REASON_CHARS = 200
"""Of the last failure, where it says why the backend is left alone."""


class Attempt(NamedTuple):
    """One request at the backend, with what its breaker said; `counts`: the backend had said that
    it was ready."""

    passed: Pass
    counts: bool

    @property
    def trial(self) -> bool:
        """It decides whether the breaker closes."""
        return self.passed.trial


class Upstream:
    """A backend with its breaker and the requests that it has in flight."""

    def __init__(self, backend: Backend, breaker: Breaker, clock: Clock) -> None:
        self.backend = backend
        self.breaker = breaker
        self.in_flight = 0
        self.last_begun = float("-inf")
        self._clock = clock
        self._last_failure = ""
        self._was_ready = True
        self._takers: deque[Taker] = deque()

    def __repr__(self) -> str:
        return f"<Upstream {self.backend.name}, {self.in_flight} in flight, {self.breaker!r}>"

    @property
    def name(self) -> str:
        """The backend's."""
        return self.backend.name

    @property
    def has_room(self) -> bool:
        """One more request would not have to wait inside it."""
        return self.in_flight < self.backend.slots

    def serve(self, taker: Taker) -> None:
        """Offer what gets free to `taker` as well, for as long as the daemon runs."""
        self._takers.append(taker)

    def readiness(self) -> Readiness:
        """The backend's own, unless its breaker lets no request through."""
        own = self._look()
        if self.breaker.closed:
            return own
        refusal = self.breaker.refusal(self._clock())
        if refusal is None:
            return own
        return Readiness(False, f"{refusal}; its last failure: {self._last_failure}")

    def retry_in(self) -> float:
        """Seconds until its breaker lets a request try; 0 where one may now, or is trying."""
        return self.breaker.retry_in(self._clock())

    def begin(self) -> Attempt:
        """A request goes to it, now that `readiness` allows it; ends with `end`."""
        self.in_flight += 1
        self.last_begun = self._clock()
        counts = self._look().ready
        return Attempt(self.breaker.begin(self.last_begun), counts)

    def answered(self, attempt: Attempt) -> Attempt:
        """The first of its answer is there: proof enough for a trial, and others may follow."""
        self.breaker.succeeded(attempt.passed)
        self._offer()
        return attempt._replace(passed=attempt.passed._replace(trial=False))

    def end(self, attempt: Attempt, error: BaseException | None) -> None:
        """The request is over: answered, or ended by `error`. Its slot goes to who waits for it."""
        self.in_flight -= 1
        self._look()
        if error is None:
            self.breaker.succeeded(attempt.passed)
        elif counts_against_backend(error) and (attempt.counts or attempt.trial):
            assert isinstance(error, BackendFault)
            # after a colon come the upstream's words, which may quote the request of another user
            self._last_failure = error.message.partition(": ")[0][:MAX_REASON_CHARS]
            # a crash breaks all requests at once, but each runs out of its own time
            alone = isinstance(error, BackendSilence)
            self.breaker.failed(self._clock(), attempt.passed, alone=alone)
        else:
            self.breaker.abandoned(attempt.passed)
        self._offer()

    def _offer(self) -> None:
        """One taker after the other, one request each, until none takes any more."""
        refused = 0
        while refused < len(self._takers):
            taker = self._takers[0]
            self._takers.rotate(-1)
            refused = 0 if taker() else refused + 1

    def _look(self) -> Readiness:
        """The backend's readiness. One that was not ready and is so again began anew: what runs now
        is not what failed."""
        own = self.backend.readiness()
        if own.ready and not self._was_ready:
            self.breaker.reset()
        self._was_ready = own.ready
        return own


def counts_against_backend(error: BaseException) -> bool:
    """Not what the client asked for, nor that it left or read slowly, nor what the model wrote, nor
    what this daemon lacks: one client's requests must not close a backend to the others."""
    return (
        isinstance(error, BackendFault)
        and not isinstance(error, AnswerTooLong | ModelFault | MachineFault)
        and error.code in (ErrorCode.BACKEND_UNAVAILABLE, ErrorCode.TIMEOUT)
    )
