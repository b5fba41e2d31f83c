"""Looks at one running process again and again: until it is ready, and from then on.

Says what was seen; the machine decides what it means.
"""

from collections.abc import Callable

import trio

from ...engines.base import Health, Service

BRISK_S = 1.0
"""So long looks follow each other closely: a small model is ready by then."""
SLOWEST_LOOK_S = 0.25
"""After that they are spaced out up to this."""
SILENT_LOOKS = 2
"""In vain one after the other, and the process did nothing meanwhile: it hangs."""


class Stalled(Exception):
    """It took connections, left them without an answer, and did not work either."""


async def wait_ready(engine: Service, went_on: Callable[[], bool] = lambda: True) -> Health:
    """How the runtime is, once it serves. The caller sets the deadline and watches for its exit.

    `went_on` tells whether its process has worked since it was called last: one that is busy may
    leave looks without an answer, for as long as the caller allows. Raises Stalled for one that
    hangs, within two health intervals.
    """
    interval = engine.timing.readiness_interval_s
    slowest = max(SLOWEST_LOOK_S, interval)
    brisk_until = trio.current_time() + BRISK_S
    silent = 0
    while True:
        with trio.move_on_after(engine.timing.health_interval_s) as patience:
            seen = await engine.look()
            if seen in (Health.HEALTHY, Health.DEGRADED):
                return seen
        silent = silent + 1 if patience.cancelled_caught else 0
        if silent and not went_on() and silent >= SILENT_LOOKS:
            raise Stalled
        await trio.sleep(interval)
        if trio.current_time() >= brisk_until:
            interval = min(interval * 1.5, slowest)


async def watch_health(engine: Service, report: Callable[[Health], None]) -> None:
    """Report one look in each health interval, for ever.

    A look may take half an interval, and a missed one is followed by the next at once: a process
    that hangs is missed twice within two intervals.
    """
    interval = engine.timing.health_interval_s
    while True:
        await trio.sleep(interval)
        seen = await look(engine, interval / 2)
        report(seen)
        if seen is Health.NO_ANSWER:
            report(await look(engine, interval / 2))


async def look(engine: Service, timeout_s: float) -> Health:
    """One look; no answer within `timeout_s` is an answer as well."""
    with trio.move_on_after(timeout_s):
        return await engine.look()
    return Health.NO_ANSWER
