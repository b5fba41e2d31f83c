"""Counts and histograms."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.metrics import Histogram, RouteCounts


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_every_value_up_to_its_bound(values: list[float]) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.cumulated == [
        (bound, sum(value <= bound for value in values)) for bound in (0.1, 1.0, 10.0, inf)
    ]


def test_a_route_counts_by_kind_and_outcome() -> None:
    counts = RouteCounts()
    counts.ended("generate", "ok", 0.2)
    counts.ended("generate", "ok", 0.3)
    counts.ended("embed", "timeout", 400.0)
    counts.used(3, 5)
    counts.used(1, 2)
    assert counts.requests == {("generate", "ok"): 2, ("embed", "timeout"): 1}
    assert counts.durations_s.cumulated[-1] == (inf, 3)
    assert (counts.input_tokens, counts.output_tokens) == (4, 7)
