"""Whose run is next, where only so many may run at once: parties share alike. Pure.

A party is a user, or all requests of routes together, which took turns before they came here. Of
those that wait, the party with the fewest runs goes first, and of these the one whose turn is
longest past. No party keeps another out of the line: where that is full, the last of who has the
most gives way.
"""

from collections import Counter, deque
from itertools import count

Party = int | None
"""A uid; None for routes."""


class Ticket:
    """One request. `admitted`: it may run; `refused`: there is no place for it any more."""

    __slots__ = ("admitted", "party", "refused")

    def __init__(self, party: Party) -> None:
        self.party = party
        self.admitted = False
        self.refused = False


class RunQueue:
    """At most `max_runs` run; `max_waiting` more wait."""

    def __init__(self, max_runs: int, max_waiting: int) -> None:
        self._max_runs = max_runs
        self._max_waiting = max_waiting
        self._running: Counter[Party] = Counter()
        self._lines: dict[Party, deque[Ticket]] = {}
        self._last: dict[Party, int] = {}
        self._turns = count(1)

    @property
    def running(self) -> int:
        """How many run."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def enter(self, party: Party) -> tuple[Ticket, Ticket | None]:
        """The new ticket, which is admitted, waits or is refused; and the one that made room.

        Who made room is refused.
        """
        ticket = Ticket(party)
        if self.running < self._max_runs and not self.waiting:
            self._admit(ticket)
            return ticket, None
        displaced = None
        if self.waiting >= self._max_waiting:
            displaced = self._displaced_by(party)
            (displaced or ticket).refused = True
            if displaced is None:
                return ticket, None
            self._take_out(displaced)
        self._lines.setdefault(party, deque()).append(ticket)
        return ticket, displaced

    def leave(self, ticket: Ticket) -> Ticket | None:
        """It has run, or waits no more; the one that is admitted in its place."""
        if ticket.refused:
            return None
        if not ticket.admitted:
            self._take_out(ticket)
            return None
        ticket.admitted = False
        self._running[ticket.party] -= 1
        self._forget(ticket.party)
        return self._next()

    def _next(self) -> Ticket | None:
        if not self._lines:
            return None
        party = min(self._lines, key=lambda one: (self._running[one], self._last.get(one, 0)))
        ticket = self._lines[party][0]
        self._take_out(ticket)
        self._admit(ticket)
        return ticket

    def _displaced_by(self, party: Party) -> Ticket | None:
        """The last in the line of who has the most; None where `party` would not have less."""
        most = max(self._lines, key=self._has, default=party)
        return self._lines[most][-1] if self._has(most) > self._has(party) + 1 else None

    def _has(self, party: Party) -> int:
        return self._running[party] + len(self._lines.get(party, ()))

    def _admit(self, ticket: Ticket) -> None:
        ticket.admitted = True
        self._running[ticket.party] += 1
        self._last[ticket.party] = next(self._turns)

    def _take_out(self, ticket: Ticket) -> None:
        line = self._lines[ticket.party]
        line.remove(ticket)
        if not line:
            del self._lines[ticket.party]
            self._forget(ticket.party)

    def _forget(self, party: Party) -> None:
        """Who has nothing here is not kept in mind."""
        if party not in self._lines and not self._running[party]:
            del self._running[party]
            self._last.pop(party, None)
