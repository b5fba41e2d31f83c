"""Where each waiting request stands, without counting the queue for every one who asks. Pure.

A short queue is counted each time. Of a long one a count is kept for a moment, so that ten
thousand who ask, or give up, at once do not count ten thousand places each.
"""

from .admission import Admission, Place
from .turns import Ticket

EXACT_UP_TO = 128
"""Waiting requests that are counted in some 50 µs."""
KEPT_S = 0.25
"""How old a count of a long queue may be: its places change faster than people read them."""


class Places:
    """The places in the queue of `admission`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._counted: dict[Ticket, int] = {}
        self._counted_at = float("-inf")

    def find(self, ticket: Ticket, now: float) -> Place:
        """Of a waiting ticket. Who came to a long queue since it was counted is taken for last.

        Raises KeyError for one that does not wait, where the queue is short.
        """
        admission = self._admission
        if admission.waiting <= EXACT_UP_TO:
            return admission.place(admission.position(ticket))
        if now >= self._counted_at + KEPT_S:
            self.count(now)
        return admission.place(self._counted.get(ticket, admission.waiting))

    def count(self, now: float) -> dict[Ticket, int]:
        """All positions as of now; takes time in proportion to the queue."""
        order = self._admission.order()
        self._counted = {ticket: position for position, ticket in enumerate(order, 1)}
        self._counted_at = now
        return self._counted
