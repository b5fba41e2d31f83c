"""When a process that died is started again: exponential backoff, jitter, a limit per window.

Pure: time and chance are arguments.
"""

from msgspec import Struct


class RestartPolicy(Struct, frozen=True):
    """`limit` restarts within `window_s` seconds; the next one is not made.

    The n-th restart in the window waits `first_s * factor**n`, at most `longest_s`, less up to
    the share `jitter` of it, so that runtimes that died together do not start together. One that
    had served for `settled_s` does not die of its start: it begins a new window.
    """

    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 30.0
    jitter: float = 0.5
    limit: int = 8
    window_s: float = 120.0
    settled_s: float = 10.0

    def delay(self, earlier: int, chance: float) -> float:
        """Seconds to wait when `earlier` restarts lie in the window; `chance` in [0, 1)."""
        # The exponent is bounded so that the power cannot overflow.
        full = min(self.longest_s, self.first_s * self.factor ** min(earlier, 64))
        return full * (1 - self.jitter * chance)


class RestartHistory(Struct, frozen=True):
    """When the last restarts were granted, in seconds of any clock that only goes forward."""

    granted: tuple[float, ...] = ()

    def within(self, policy: RestartPolicy, now: float) -> tuple[float, ...]:
        """The restarts that still count at `now`."""
        return tuple(at for at in self.granted if now - at < policy.window_s)

    def grant(
        self, policy: RestartPolicy, now: float, chance: float, *, at_once: bool = False
    ) -> tuple[float | None, "RestartHistory"]:
        """The wait before the next restart in seconds, None where the limit is reached.

        `at_once` spares the wait: for one that is held and had been ready. The limit keeps it from
        being started in a tight loop.
        """
        recent = self.within(policy, now)
        if len(recent) >= policy.limit:
            return None, RestartHistory(recent)
        wait = 0.0 if at_once else policy.delay(len(recent), chance)
        return wait, RestartHistory((*recent, now))
