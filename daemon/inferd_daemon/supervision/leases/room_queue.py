"""First come, first served: who waits for room, and what of it those who come later may take.

Pure planning on top of `eviction.plan`. Whoever fits without making an earlier one wait longer goes
ahead: a small runtime need not wait behind a large one for room that is there now.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .eviction import Limits, Load, Refuse, Verdict, plan


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


def plan_in_turn(
    needed_bytes: int, limits: Limits, loads: Sequence[Load], ahead: Sequence[Load]
) -> Verdict:
    """As `plan`, but none of those `ahead` has to wait for this one.

    `ahead` are what the earlier ones are going to be, pinned by whoever wants them. What an earlier
    one waits for counts as its own: it is let in the moment that this is free.
    """
    world = list(loads)
    for earlier in ahead:
        theirs = plan(earlier.memory_bytes, limits, world)
        if not isinstance(theirs, Refuse):
            world.append(earlier)  # its room is there, or on its way
            continue
        blocking = {load.instance_key for load in theirs.blocked_by}
        later = [load for load in world if load.instance_key not in blocking]
        verdict = plan(needed_bytes, limits, [*later, earlier])
        if isinstance(verdict, Refuse):
            return verdict
    return plan(needed_bytes, limits, world)
