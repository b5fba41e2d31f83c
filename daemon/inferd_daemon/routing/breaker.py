"""Leaves a backend alone that keeps failing, and tries it again with one request. Pure.

    closed ──failures within window_s──▶ open ──open_s──▶ half-open ──the trial answers──▶ closed
                                          ▲                   │
                                          └──the trial fails──┘

Failures of requests that ran at the same time may be one failure: a crash ends them all. Knows
nothing of what a failure is; `now` is an argument, in seconds.
"""

from collections import deque
from enum import Enum
from typing import NamedTuple

from ..config import BreakerConfig


class BreakerState(Enum):
    """Whether the backend is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Pass(NamedTuple):
    """Of one request that was let through. `trial`: it decides whether the breaker closes; `epoch`:
    what had happened until then."""

    trial: bool
    epoch: int


class Breaker:
    """Of one backend. Each request that is let through ends with one verdict."""

    __slots__ = ("_epoch", "_failed_at", "_open_until", "_trying", "policy")

    def __init__(self, policy: BreakerConfig) -> None:
        self.policy = policy
        self._failed_at: deque[float] = deque()
        self._open_until: float | None = None
        self._trying = False
        self._epoch = 0  # grows with each failure that counts, and each reset

    def __repr__(self) -> str:
        if self._open_until is None:
            return f"<Breaker closed, {len(self._failed_at)} recent failures>"
        trying = ", a trial is under way" if self._trying else ""
        return f"<Breaker open until {self._open_until:.3f}{trying}>"

    @property
    def closed(self) -> bool:
        """Every request is let through."""
        return self._open_until is None

    def state(self, now: float) -> BreakerState:
        """Open turns half-open by time alone."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def failures(self, now: float) -> int:
        """How many count at `now`."""
        self._forget(now)
        return len(self._failed_at)

    def retry_in(self, now: float) -> float:
        """Seconds until a request may try again; 0 where one may now, or is trying."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def refusal(self, now: float) -> str | None:
        """Why no request is let through now; None where one is."""
        if self._open_until is None:
            return None
        if now < self._open_until:
            return f"its breaker is open for another {self._open_until - now:.1f} s"
        return "its breaker is open while one request tries it" if self._trying else None

    def begin(self, now: float) -> Pass:
        """A request goes to the backend, which `refusal` let through.

        The answer belongs to the verdict on this request.
        """
        if self._open_until is None:
            return Pass(False, self._epoch)
        assert now >= self._open_until
        assert not self._trying
        self._trying = True
        return Pass(True, self._epoch)

    def succeeded(self, passed: Pass) -> None:
        """The request was answered. What began before the breaker opened proves nothing."""
        if self._is_trial(passed):
            self._close()

    def failed(self, now: float, passed: Pass, *, alone: bool = False) -> None:
        """The backend failed the request.

        One that began before the last failure that counted is taken for the same failure, unless
        it failed `alone`, by a cause that others do not share.
        """
        if self._is_trial(passed):
            self._trying = False
            self._open_until = now + self.policy.open_s
        elif self._open_until is None and self.policy.failures:
            if not alone and passed.epoch != self._epoch:
                return
            self._epoch += 1
            self._failed_at.append(now)
            self._forget(now)
            if len(self._failed_at) >= self.policy.failures:
                self._open_until = now + self.policy.open_s

    def abandoned(self, passed: Pass) -> None:
        """The request ended without a verdict on the backend: another one may try."""
        if self._is_trial(passed):
            self._trying = False

    def reset(self) -> None:
        """The backend began anew: what it did before is forgotten, and what began before that is
        no trial of what it does now."""
        self._epoch += 1
        self._close()

    def _is_trial(self, passed: Pass) -> bool:
        return passed.trial and passed.epoch == self._epoch

    def _close(self) -> None:
        self._trying = False
        self._open_until = None
        self._failed_at.clear()

    def _forget(self, now: float) -> None:
        while self._failed_at and self._failed_at[0] <= now - self.policy.window_s:
            self._failed_at.popleft()
