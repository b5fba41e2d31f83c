"""First come, first served: who waits for room, and what of it those who come later may take.

Pure planning on top of `eviction.plan`. Whoever fits without making an earlier one wait longer goes
ahead: a small runtime need not wait behind a large one for room that is there now.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

from .eviction import Limits, Load, Refuse, Verdict, by_age, plan


class Wants(NamedTuple):
    """Which runtime is to get room, and how much."""

    instance_key: str
    name: str
    needed_bytes: int


class Place(NamedTuple):
    """One that looks for room; `number` tells who came first."""

    number: int
    wants: Wants


class RoomQueue:
    """Everybody who looks for room at present, in the order in which they came."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._given = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    @contextmanager
    def joined(self, wants: Wants) -> Iterator[Place]:
        """A place in the queue for the block."""
        self._given += 1
        place = Place(self._given, wants)
        self._places[place.number] = place
        try:
            yield place
        finally:
            del self._places[place.number]

    def ahead_of(self, place: Place | None) -> list[Wants]:
        """What those want who came earlier than `place` and want another runtime, each runtime
        once. None stands for one who comes now.
        """
        ahead: dict[str, Wants] = {}
        for one in self._places.values():
            if place is not None and one.number >= place.number:
                break
            ahead.setdefault(one.wants.instance_key, one.wants)
        if place is not None:
            ahead.pop(place.wants.instance_key, None)
        return list(ahead.values())


class Line:
    """What those who came earlier leave to the next one, told of them in their order.

    Each of them is what it is going to be, pinned by whoever wants it. What an earlier one waits
    for counts as its own: it is let in the moment that this is free.
    """

    def __init__(self, limits: Limits, loads: Sequence[Load]) -> None:
        self._limits = limits
        self._world = list(loads)
        self._pinned = sorted((one for one in loads if one.pinned and not one.stopping), key=by_age)
        self._pinned_bytes = sum(load.memory_bytes for load in self._pinned)
        # The least that is left beside one of those who wait, and the latest of those.
        self._spare_bytes, self._spare_runtimes = inf, inf
        self._latest: list[Load] | None = None

    def admits(self, needed_bytes: int) -> bool:
        """Whether the next one would not be refused."""
        spared = needed_bytes <= self._spare_bytes and self._spare_runtimes >= 1
        return spared and self._fits(needed_bytes, self._pinned_bytes, len(self._pinned))

    def add(self, earlier: Load) -> None:
        """One more that came before the next."""
        needed, size, count = earlier.memory_bytes, self._pinned_bytes, len(self._pinned)
        if self._fits(needed, size, count):
            self._world.append(earlier)  # its room is there, or on its way
            insort(self._pinned, earlier, key=by_age)
            self._pinned_bytes += needed
            return
        blocking = 0
        while blocking < len(self._pinned) and not self._fits(needed, size, count):
            size -= self._pinned[blocking].memory_bytes
            count -= 1
            blocking += 1
        if not self._fits(needed, size, count):
            return  # larger than the limits: it waits for nothing
        memory, runtimes = self._limits
        if memory is not None:
            self._spare_bytes = min(self._spare_bytes, memory - size - needed)
        if runtimes is not None:
            self._spare_runtimes = min(self._spare_runtimes, runtimes - count - 1)
        self._latest = [*self._pinned[:blocking], earlier]

    def verdict(self, needed_bytes: int) -> Verdict:
        """What the next one has to do.

        Where it is refused for an earlier one's sake, that must be the latest that was added.
        """
        fits = self._fits(needed_bytes, self._pinned_bytes, len(self._pinned))
        if self._latest is None or not fits or self.admits(needed_bytes):
            return plan(needed_bytes, self._limits, self._world)
        *blocking, earlier = self._latest
        gone = {load.instance_key for load in blocking}
        later = [load for load in self._world if load.instance_key not in gone]
        return plan(needed_bytes, self._limits, [*later, earlier])

    def _fits(self, needed: int, pinned_bytes: int, pinned: int) -> bool:
        memory, runtimes = self._limits
        return (memory is None or pinned_bytes + needed <= memory) and (
            runtimes is None or pinned < runtimes
        )


def plan_in_turn(
    needed_bytes: int, limits: Limits, loads: Sequence[Load], ahead: Iterable[Load]
) -> Verdict:
    """As `plan`, but none of those `ahead` has to wait for this one.

    Looks at no more of them than it takes: there may be many.
    """
    verdict = plan(needed_bytes, limits, loads)
    if isinstance(verdict, Refuse):
        return verdict
    line = Line(limits, loads)
    for earlier in ahead:
        line.add(earlier)
        if not line.admits(needed_bytes):
            return line.verdict(needed_bytes)
    return line.verdict(needed_bytes)


def whose_turn(
    limits: Limits, loads: Sequence[Load], queue: Iterable[tuple[Place, Load | None]]
) -> Iterator[int]:
    """The numbers of those in the queue that would not be refused now; one pass for all of them.

    With each place goes what it is going to be; None where that is there already. Of several that
    want the same runtime the first speaks for all.
    """
    line = Line(limits, loads)
    turns: dict[str, bool] = {}
    for place, waiting in queue:
        key, _, needed = place.wants
        if key not in turns:
            turns[key] = waiting is None or line.admits(needed)
            if waiting is not None:
                line.add(waiting)
        if turns[key]:
            yield place.number
