"""The two sides of a run's stdio: what the CLI is told, and its output turned into events.

Sans-IO: bytes in, events and bytes out. A dialogue ends with exactly one `Finished` or `Failed`.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from ...backends.base import Finished, TextDeltas, ThinkingDeltas


class Failed(NamedTuple):
    """The end of a run without a whole answer, in the CLI's own words.

    `status` is the upstream's HTTP status where the CLI tells it.
    """

    message: str
    status: int | None = None


AgentEvent = TextDeltas | ThinkingDeltas | Finished | Failed


class AgentDialogue(ABC):
    """One run. Feed it what the CLI writes; after the end more is taken and ignored."""

    keeps_stdin_open = False
    """Whether the CLI reads commands until the end; else stdin is closed behind the first bytes."""

    over = False
    """Whether `Finished` or `Failed` was given."""

    @abstractmethod
    def take_input(self) -> bytes:
        """What is to be written to its stdin by now, in order; each byte is given once."""

    @abstractmethod
    def feed(self, data: bytes) -> list[AgentEvent]:
        """What its stdout says. Never raises for what a CLI may write."""

    @abstractmethod
    def end(self) -> list[AgentEvent]:
        """Its stdout has ended: `Failed` where that was no time to end."""
