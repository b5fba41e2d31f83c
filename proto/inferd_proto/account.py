"""Who pays for the bytes of requests: a connection asks before it keeps what a header announces."""

from typing import Protocol

FREE_MESSAGE_BYTES = 64 * 1024
"""Messages up to this size are never charged: what stops or watches others always gets in."""


class Account(Protocol):
    """What a connection may keep in memory, together with others or alone."""

    @property
    def limit(self) -> int:
        """Bytes that all who share it may hold; only for error texts."""

    def take(self, count: int) -> bool:
        """Charge `count` bytes; False, and nothing charged, where they are too many."""

    def give_back(self, count: int) -> None:
        """They are no longer in memory."""
