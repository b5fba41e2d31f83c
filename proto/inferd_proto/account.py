"""Who pays for the bytes of requests: a frame is let in where its header's claim is taken.

Only counts; what becomes of a frame that has no room is for the connection to say.
"""

from typing import Protocol

from .frames import FrameType
from .upload import BlobGate

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


class Toll:
    """Stands before a connection's frames; `account` None lets everything in for nothing."""

    __slots__ = ("_account", "_gate", "charge", "lacked")

    def __init__(self, gate: BlobGate, account: Account | None) -> None:
        self._gate = gate
        self._account = account
        self.charge = 0
        """Bytes charged for the frame that is coming in."""
        self.lacked = 0
        """Bytes of the last frame that had no room."""

    @property
    def limit(self) -> int:
        """That of the account."""
        assert self._account is not None
        return self._account.limit

    def admit(self, frame_type: FrameType, length: int) -> bool:
        """Judge a frame by its header; False means: read past it."""
        if not self._gate.admit(frame_type, length):
            return False
        small = length <= FREE_MESSAGE_BYTES and frame_type is not FrameType.BLOB
        if small or self._account is None:
            return True
        if not self._account.take(length):
            self.lacked = length
            return False
        self.charge = length
        return True

    def pass_on(self) -> int:
        """What the frame was charged, for the request that it belongs to."""
        charge, self.charge = self.charge, 0
        return charge

    def give_back(self, charge: int) -> None:
        """What an upload was charged that came to nothing."""
        if charge and self._account is not None:
            self._account.give_back(charge)
