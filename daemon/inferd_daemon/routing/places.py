"""Where each waiting request stands, without counting the queue for every one who asks. Pure.

A short queue is counted each time. Of a long one a count is kept for a moment, so that ten
thousand who ask, or give up, at once do not count ten thousand places each.
"""

from collections.abc import Mapping

from .admission import Admission, Place
from .ring import Ticket

EXACT_UP_TO = 128
"""Waiting requests that are counted in some 60 µs."""
KEPT_S = 0.25
"""How old a count of a long queue may be: its places change faster than people read them."""


class Places:
    """The places in the queue of `admission`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._counted: dict[Ticket, Place] = {}
        self._last = Place(0, None)
        self._counted_at = float("-inf")

    def find(self, ticket: Ticket, now: float) -> Place:
        """Of a waiting ticket. Who came to a long queue since it was counted is taken for last.

        Raises KeyError for one that does not wait, where the queue is short.
        """
        admission = self._admission
        if admission.waiting <= EXACT_UP_TO:
            return admission.place(ticket)
        if now >= self._counted_at + KEPT_S:
            self.count(now)
        place = self._counted.get(ticket)
        return self._beyond(admission.waiting) if place is None else place

    def count(self, now: float) -> Mapping[Ticket, Place]:
        """All places as of now; takes time in proportion to the queue."""
        self._counted = dict(self._admission.standings())
        self._last = next(reversed(self._counted.values()), self._last)
        self._counted_at = now
        return self._counted

    def _beyond(self, position: int) -> Place:
        """As much later than the last one that was counted."""
        last = self._last
        if last.estimate_ms is None:
            return Place(position, None)
        return Place(position, round(last.estimate_ms * position / last.position))
