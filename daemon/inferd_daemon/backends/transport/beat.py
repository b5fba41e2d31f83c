"""The beat by which streams are read while the loop has no idle time left.

Waking for each token of many streams can take all of the loop; a wait of some milliseconds then
brings several tokens for one waking. It must never make anybody wait while the loop has time.
"""

import time
from collections.abc import Callable

import trio

BEAT_S = 0.003
"""Between two beats: what a token may wait for, at most."""
BUSY = 0.75
"""The loop's own share of the time from which on it counts as saturated."""
CALM = 0.25
"""Below it the beat ends: lower than BUSY, for the beat itself is what makes it fall."""
WINDOW_S = 0.005
"""How long the loop must have been busy; a burst of requests alone is shorter."""
CALM_WINDOW_S = 0.05
LOOK_EVERY = 16
"""Asking for the time is a system call: one for so many reads."""


class LoopLoad:
    """Whether the loop is saturated, by the CPU time of its thread. Thinks only."""

    __slots__ = ("_busy_s", "_since", "saturated")

    def __init__(self) -> None:
        self.saturated = False
        self._since = 0.0
        self._busy_s = 0.0

    def look(self, now: float, busy_s: float) -> bool:
        """At `now` seconds the loop has worked for `busy_s` in all, both since any moment."""
        window = now - self._since
        if window < (CALM_WINDOW_S if self.saturated else WINDOW_S):
            return self.saturated
        share = (busy_s - self._busy_s) / window
        self.saturated = share > (CALM if self.saturated else BUSY)
        self._since = now
        self._busy_s = busy_s
        return self.saturated


class Beat:
    """Shared by the streams of one transport; `busy_s` is the CPU time of the loop's thread.

    Nobody owns a clock here: who comes first waits for the next beat, and wakes the others.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        busy_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._busy_s = busy_s
        self._load = LoopLoad()
        self._unseen = 0
        self._lot = trio.lowlevel.ParkingLot()
        self._led = False

    async def wait(self) -> bool:
        """Wait for the next beat; False, at once and without a checkpoint, in a loop with time."""
        if self._led:
            await self._lot.park()
            return True
        if not self._load.saturated:
            self._unseen += 1
            if self._unseen < LOOK_EVERY:
                return False
            self._unseen = 0
        if not self._load.look(self._clock(), self._busy_s()):
            return False
        self._led = True
        try:
            await trio.sleep(BEAT_S)
        finally:
            # Cancelled or not: the others only look whether there is something to read.
            self._led = False
            self._lot.unpark_all()
        return True
