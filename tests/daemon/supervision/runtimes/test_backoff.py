"""Restarts come later and later, never twice at one moment, and end."""

from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.supervision.runtimes.backoff import RestartHistory, RestartPolicy

POLICY = RestartPolicy(first_s=1, factor=2, longest_s=10, jitter=0.5, limit=5, window_s=60)
CHANCE = st.floats(0, 1, exclude_max=True)


def test_waits_double_up_to_the_longest() -> None:
    assert [POLICY.delay(n, 0) for n in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_thousand_restarts_do_not_overflow() -> None:
    assert POLICY.delay(100_000, 0) == POLICY.longest_s


@given(st.integers(0, 50), CHANCE)
def test_jitter_only_shortens_and_by_its_share_at_most(earlier: int, chance: float) -> None:
    full = POLICY.delay(earlier, 0)
    assert full * (1 - POLICY.jitter) <= POLICY.delay(earlier, chance) <= full


def test_the_limit_ends_it_and_the_window_forgives() -> None:
    history = RestartHistory()
    for second in range(5):
        wait, history = history.grant(POLICY, second, 0)
        assert wait is not None
    refused, history = history.grant(POLICY, 5, 0)
    assert refused is None
    assert history.grant(POLICY, 59.9, 0)[0] is None
    wait, history = history.grant(POLICY, 60, 0)
    assert wait == POLICY.delay(4, 0)
    assert history.grant(POLICY, 1000, 0)[0] == POLICY.first_s


def test_at_once_spares_the_wait_and_not_the_limit() -> None:
    history = RestartHistory()
    for second in range(POLICY.limit):
        wait, history = history.grant(POLICY, second, 0, at_once=True)
        assert wait == 0
    assert history.grant(POLICY, POLICY.limit, 0, at_once=True)[0] is None


@given(st.lists(st.tuples(st.floats(0, 30), CHANCE, st.booleans()), max_size=60))
def test_no_window_ever_holds_more_than_the_limit(
    deaths: list[tuple[float, float, bool]],
) -> None:
    now, history, granted = 0.0, RestartHistory(), []
    for gap, chance, held in deaths:
        now += gap
        wait, history = history.grant(POLICY, now, chance, at_once=held)
        if wait is not None:
            granted.append(now)
        recent = [at for at in granted if now - at < POLICY.window_s]
        assert len(recent) <= POLICY.limit
        assert len(history.granted) <= POLICY.limit
