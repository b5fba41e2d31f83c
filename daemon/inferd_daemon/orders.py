"""What a signal orders the daemon to do."""

import os
import signal
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""All that the daemon heeds."""
Order = Literal["stop", "upgrade"]
_STDIN = 0


class Told(NamedTuple):
    """An order and the name of the signal that gave it."""

    order: Order
    by: str


class Orders:
    """Turns signals into orders, one after the other.

    SIGHUP tells a service to begin anew, and a program in a terminal that its terminal is gone.
    """

    def __init__(self, signals: AsyncIterator[int]) -> None:
        self._signals = signals
        # asked now: a terminal that is gone is none
        self._upgrade = {signal.SIGUSR2} if os.isatty(_STDIN) else {signal.SIGUSR2, signal.SIGHUP}

    async def next(self) -> Told:
        """Wait for the next order."""
        number = await anext(self._signals)
        order: Order = "upgrade" if number in self._upgrade else "stop"
        return Told(order, signal.Signals(number).name)
