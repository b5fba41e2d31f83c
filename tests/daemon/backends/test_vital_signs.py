"""What the requests to an upstream tell of it."""

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.vital_signs import VitalSigns
from inferd_daemon.errors import BackendSilence, KeyRefused


async def test_who_waits_is_counted_until_the_first_of_the_answer(
    autojump_clock: MockClock,
) -> None:
    signs = VitalSigns()
    with signs.listen() as first, signs.listen():
        assert signs.unheard == 2
        for now in (3.0, 4.0):
            first.heard(now)
            assert signs.unheard == 1
            assert signs.heard_at == now
    assert signs.unheard == 0


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (BackendSilence("late"), "silent_at"),
        (KeyRefused("no"), "refused_at"),
        (ValueError(), None),
        (trio.TooSlowError(), None),
    ],
)
async def test_how_it_ended_is_noted(
    autojump_clock: MockClock, error: Exception, noted: str | None
) -> None:
    signs = VitalSigns()

    async def fail() -> None:
        with signs.listen():
            await trio.sleep(1)
            raise error

    with pytest.raises(type(error)):
        await fail()
    assert signs.unheard == 0
    times = {name: getattr(signs, name) for name in ("silent_at", "refused_at", "heard_at")}
    told = [name for name, at in times.items() if at == trio.current_time()]
    assert told == ([noted] if noted else [])
