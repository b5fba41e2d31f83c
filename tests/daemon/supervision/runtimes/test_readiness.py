"""A process is looked at closely while it starts, and twice in two intervals if it hangs."""

from collections.abc import Callable

import pytest
import trio

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.base import Engine, Health, Launch, Timing
from inferd_daemon.supervision.runtimes.readiness import Stalled, wait_ready, watch_health


class Patient(Engine):
    """Looks as `seen` says; None takes for ever."""

    name = "patient"

    def __init__(self, seen: Callable[[], Health | None], **timing: float) -> None:
        self.seen = seen
        self.timing = Timing(**timing)
        self.endpoint = Endpoint(port=1)
        self.looks = 0

    def prepare(self) -> Launch:
        raise NotImplementedError  # never started

    async def look(self) -> Health:
        self.looks += 1
        seen = self.seen()
        if seen is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        assert seen is not None
        return seen


@pytest.mark.parametrize("loads_for_s", [0.13, 0.9, 20.0])
async def test_ready_is_seen_soon_after_it_is_so(
    loads_for_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    begun = trio.current_time()

    def seen() -> Health:
        return Health.HEALTHY if trio.current_time() >= begun + loads_for_s else Health.LOADING

    engine = Patient(seen)
    await wait_ready(engine)
    late = trio.current_time() - begun - loads_for_s
    assert late <= (engine.timing.readiness_interval_s if loads_for_s < 1 else 0.25) + 1e-9
    assert engine.looks < 300


@pytest.mark.parametrize("seen", [Health.HEALTHY, Health.DEGRADED])
async def test_what_serves_is_ready_be_it_degraded(seen: Health) -> None:
    answers = [Health.NO_ANSWER, Health.LOADING, seen]
    assert await wait_ready(Patient(lambda: answers.pop(0))) is seen


@pytest.mark.parametrize("hangs_after_s", [0.0, 0.01, 4.99, 5.0, 12.3])
async def test_a_hang_is_missed_twice_within_two_intervals(
    hangs_after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    begun = trio.current_time()
    misses: list[float] = []

    def seen() -> Health | None:
        return None if trio.current_time() >= begun + hangs_after_s else Health.HEALTHY

    def report(health: Health) -> None:
        if health is Health.NO_ANSWER:
            misses.append(trio.current_time() - begun - hangs_after_s)

    with trio.move_on_after(60):
        await watch_health(Patient(seen, health_interval_s=5), report)
    assert misses[0] <= 7.5 + 1e-9
    assert misses[1] <= 10 + 1e-9


async def test_a_healthy_runtime_is_looked_at_once_in_an_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Patient(lambda: Health.HEALTHY, health_interval_s=5)
    reports: list[Health] = []
    with trio.move_on_after(52):
        await watch_health(engine, reports.append)
    assert reports == [Health.HEALTHY] * 10


@pytest.mark.parametrize("answers_for_s", [0.0, 3.0])
async def test_a_hang_while_loading_is_seen_within_two_intervals(
    answers_for_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    begun = trio.current_time()

    def seen() -> Health | None:
        return None if trio.current_time() >= begun + answers_for_s else Health.LOADING

    with pytest.raises(Stalled):
        await wait_ready(Patient(seen, health_interval_s=5), lambda: False)
    assert trio.current_time() - begun - answers_for_s <= 10 + 0.5


async def test_who_works_or_does_not_listen_yet_does_not_hang(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = trio.current_time()

    def silent() -> Health | None:
        return Health.HEALTHY if trio.current_time() >= begun + 60 else None

    await wait_ready(Patient(silent, health_interval_s=5), lambda: True)

    def refused() -> Health:
        again = trio.current_time() >= begun + 120
        return Health.HEALTHY if again else Health.NO_ANSWER

    await wait_ready(Patient(refused, health_interval_s=5), lambda: False)
