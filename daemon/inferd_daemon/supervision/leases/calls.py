"""Requests that run under a lease, over the daemon's HTTP front: they end when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class LeaseCalls:
    """By the reference of their lease."""

    def __init__(self) -> None:
        self._running: dict[str, set[trio.CancelScope]] = {}

    def __len__(self) -> int:
        """How many run now."""
        return sum(len(scopes) for scopes in self._running.values())

    def count(self, lease_ref: str) -> int:
        """How many run under one lease."""
        return len(self._running.get(lease_ref, ()))

    @contextmanager
    def running(self, lease_ref: str) -> Iterator[trio.CancelScope]:
        """One request, for the block; its scope is cancelled when the lease ends."""
        scope = trio.CancelScope()
        scopes = self._running.setdefault(lease_ref, set())
        scopes.add(scope)
        try:
            with scope:
                yield scope
        finally:
            scopes.discard(scope)
            if not scopes and self._running.get(lease_ref) is scopes:
                del self._running[lease_ref]

    def end(self, lease_ref: str) -> None:
        """End what runs under a lease; returns at once."""
        for scope in self._running.pop(lease_ref, ()):
            scope.cancel()
