"""What owners were told of their leases, against what the daemon lists after it was killed.

An answer that never came leaves a question open: such a lease may be there or not. Everything else
is certain, to the millisecond of its time.
"""

import threading
import time
from dataclasses import dataclass

from tests.support.lease_client import Json

MARGIN_S = 0.5
"""A lease whose time ends about now may be listed or not."""
NOTICE_S = 2.0
"""By then a living daemon has seen that a connection ended."""


@dataclass
class Held:
    """A lease that was acknowledged. `ends_at` is on the monotonic clock; None for a bound one."""

    ref: str
    endpoint: Json
    instance_key: str
    owner_ref: str
    bound: bool
    ends_at: float | None

    def left_s(self) -> float:
        """Infinite without a time limit."""
        return float("inf") if self.ends_at is None else self.ends_at - time.monotonic()


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

    def settle(self, listed: list[Json]) -> list[str]:
        """What is wrong with `lease.list`; leases whose time is over are forgotten."""
        refs = {lease["lease_ref"]: lease for lease in listed}
        wrong: list[str] = []
        with self._lock:
            for held in list(self._held.values()):
                left_s = held.left_s()
                shown = refs.get(held.ref)
                if shown is None and left_s > MARGIN_S:
                    wrong.append(f"{held.ref} is lost with {left_s:.1f} s left")
                elif shown is not None and not _agrees(held, shown):
                    wrong.append(f"{held.ref} is not what was granted: {shown} for {held}")
                if left_s < -MARGIN_S:
                    del self._held[held.ref]
                    self._over.add(held.ref)
            for ref, lease in refs.items():
                known = ref in self._held or ref in self._open_refs
                if ref in self._over:
                    wrong.append(f"{ref} is back from the dead: {lease}")
                elif self._leaked(ref):
                    wrong.append(f"{ref} outlives its connection: {lease}")
                elif not known and lease["owner_ref"] not in self._open_owners:
                    wrong.append(f"{ref} was never granted: {lease}")
        return wrong

    def _leaked(self, ref: str) -> bool:
        life, since = self._left.get(ref, (-1, 0.0))
        return life == self._life and time.monotonic() - since > NOTICE_S


def _agrees(held: Held, shown: Json) -> bool:
    if (shown["instance_key"], shown["owner_ref"]) != (held.instance_key, held.owner_ref):
        return False
    if held.ends_at is None or shown["left_ms"] is None:
        return True
    return bool(abs(shown["left_ms"] / 1000 - held.left_s()) < MARGIN_S)
