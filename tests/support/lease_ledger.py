"""What owners were told of their leases, against what the daemon lists after it was killed.

An answer that never came leaves a question open: such a lease may be there or not. Everything else
is certain, to the millisecond of its time.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tests.support.lease_client import Json

MARGIN_S = 0.5
"""A lease whose time ends about now may be listed or not."""
NOTICE_S = 2.0
"""By then a living daemon has seen that a connection ended."""


class Span(NamedTuple):
    """Some moment between two on the monotonic clock."""

    earliest: float
    latest: float


@dataclass
class Held:
    """A lease that was acknowledged. `ends` is when its time is over; None where nobody can tell:
    what took long may have taken it before the daemon looked at its clock, or after.
    """

    ref: str
    endpoint: Json
    instance_key: str
    owner_ref: str
    bound: bool
    ends: Span | None

    def left_s(self, now: float | None = None) -> float:
        """The least that it can be, at `now`. Infinite where nobody can tell."""
        now = time.monotonic() if now is None else now
        return float("inf") if self.ends is None else self.ends.earliest - now

    def over(self, now: float) -> bool:
        """Whether its time was over by then for certain."""
        return self.ends is not None and self.ends.latest < now - MARGIN_S


class LeaseLedger:
    """Every lease of a test, as its owners know it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._over: set[str] = set()
        self._open_refs: set[str] = set()
        self._open_owners: set[str] = set()
        self._left: dict[str, tuple[int, float]] = {}
        self._life = 0

    def another_life(self) -> None:
        """The daemon is about to die, or has died: it need not see which connections end now."""
        with self._lock:
            self._life += 1

    def asking(self, owner_ref: str) -> None:
        """An ensure is on its way; nobody else bears this owner_ref."""
        with self._lock:
            self._open_owners.add(owner_ref)

    def refused(self, owner_ref: str) -> None:
        """It was answered: there is no such lease."""
        with self._lock:
            self._open_owners.discard(owner_ref)

    def granted(self, held: Held) -> None:
        """It was answered: there is one."""
        with self._lock:
            self._open_owners.discard(held.owner_ref)
            self._held[held.ref] = held

    def doubtful(self, ref: str) -> None:
        """Its end was asked for, or is bound to come; nobody said yet that it has."""
        with self._lock:
            if self._held.pop(ref, None) is not None:
                self._open_refs.add(ref)

    @property
    def life(self) -> int:
        """Which of its lives the daemon is in."""
        with self._lock:
            return self._life

    def left(self, ref: str, life: int) -> None:
        """Its owner closes the connection, made in that life, that it was bound to: a daemon that
        lives on ends it. One that died meanwhile has no such connection to see the end of.
        """
        with self._lock:
            self._left[ref] = (life, time.monotonic())
        self.doubtful(ref)

    def outliving(self, refs: Iterable[str]) -> list[str]:
        """Which of them a living daemon has yet to end: their connections are closed."""
        with self._lock:
            return [ref for ref in refs if self._left.get(ref, (-1, 0.0))[0] == self._life]

    def over(self, ref: str) -> None:
        """Its end was acknowledged."""
        with self._lock:
            self._held.pop(ref, None)
            self._open_refs.discard(ref)
            self._over.add(ref)

    def held(self) -> list[Held]:
        """What certainly is there, with some time left."""
        with self._lock:
            return [held for held in self._held.values() if held.left_s() > MARGIN_S]

    def settle(self, listed: list[Json], made: Span) -> list[str]:
        """What is wrong with `lease.list`; leases whose time is over are forgotten.

        `made` is when the list was asked for and heard.
        """
        refs = {lease["lease_ref"]: lease for lease in listed}
        wrong: list[str] = []
        with self._lock:
            for held in list(self._held.values()):
                left_s = held.left_s(made.latest)
                shown = refs.get(held.ref)
                if shown is None and left_s > MARGIN_S:
                    wrong.append(f"{held.ref} is lost with {left_s:.1f} s left")
                elif shown is not None and not _agrees(held, shown, made):
                    wrong.append(f"{held.ref} is not what was granted: {shown} for {held}")
                if held.over(made.earliest):
                    del self._held[held.ref]
                    self._over.add(held.ref)
            for ref, lease in refs.items():
                known = ref in self._held or ref in self._open_refs
                if ref in self._over:
                    wrong.append(f"{ref} is back from the dead: {lease}")
                elif self._leaked(ref, made.earliest):
                    wrong.append(f"{ref} outlives its connection: {lease}")
                    del self._left[ref]  # said once
                elif not known and lease["owner_ref"] not in self._open_owners:
                    wrong.append(f"{ref} was never granted: {lease}")
        return wrong

    def _leaked(self, ref: str, now: float) -> bool:
        life, since = self._left.get(ref, (-1, 0.0))
        return life == self._life and now - since > NOTICE_S


def _agrees(held: Held, shown: Json, made: Span) -> bool:
    if (shown["instance_key"], shown["owner_ref"]) != (held.instance_key, held.owner_ref):
        return False
    if held.ends is None or shown["left_ms"] is None:
        return True
    left_s = shown["left_ms"] / 1000
    soon_enough = made.earliest + left_s - MARGIN_S < held.ends.latest
    return bool(soon_enough and made.latest + left_s + MARGIN_S > held.ends.earliest)
