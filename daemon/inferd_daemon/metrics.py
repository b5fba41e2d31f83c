"""What is counted while the daemon serves: once for each request, never for each token.

Plain numbers without a clock, a lock or a registry; who shows them gives them names. They begin
at 0 with each self of the daemon, as counters of a process do.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

FIRST_TOKEN_BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""From a warm cache on a small model to a long prompt on a slow machine."""
DURATION_BOUNDS_S = (*(0.005, 0.025, 0.1, 0.25, 0.5), *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0))


class Histogram:
    """How many values came up to each bound; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def cumulated(self) -> list[tuple[float, int]]:
        """Each bound with how many values are not above it; the last bound is infinite."""
        return list(zip((*self.bounds, inf), accumulate(self.counts), strict=True))

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class RouteCounts:
    """Of one route, whichever front its requests came by."""

    __slots__ = ("durations_s", "first_tokens_s", "input_tokens", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By what was asked for, and how it ended: `ok`, `cancelled`, or the code of its error."""
        self.first_tokens_s = Histogram(FIRST_TOKEN_BOUNDS_S)
        """From the request to the first of its answer, the wait in the queue included."""
        self.durations_s = Histogram(DURATION_BOUNDS_S)
        """From the request to its end, whichever it was."""
        self.input_tokens = 0
        self.output_tokens = 0

    def ended(self, kind: str, outcome: str, took_s: float) -> None:
        """A request is over."""
        self.requests[kind, outcome] += 1
        self.durations_s.observe(took_s)

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """What the backend says that a request took."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


class Sample(NamedTuple):
    """One value of a family, told apart from the others by its labels."""

    value: float | Histogram
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """Values of one meaning, with the unit in the name. A counter only ever grows."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    samples: list[Sample]
