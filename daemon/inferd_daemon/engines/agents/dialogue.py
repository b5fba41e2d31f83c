"""The two sides of a run's stdio: what the CLI is told, and its output turned into events.

Sans-IO: bytes in, events and bytes out. A dialogue ends with exactly one `Finished` or `Failed`.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import msgspec

from ...backends.base import Finished, TextDeltas, ThinkingDeltas
from ..failures import describe_exit
from .lines import Lines, OverlongLine


class Failed(NamedTuple):
    """The end of a run without a whole answer, in the CLI's own words.

    `status` is the upstream's HTTP status where the CLI tells it.
    """

    message: str
    status: int | None = None


AgentEvent = TextDeltas | ThinkingDeltas | Finished | Failed


class AgentDialogue(ABC):
    """One run whose stdout is a JSON object on each line. After its end it takes and ignores more.

    `opening` is what stdin gets first.
    """

    keeps_stdin_open = False
    """Whether the CLI reads commands until the end; else stdin is closed behind `opening`."""

    def __init__(self, opening: bytes) -> None:
        self._input = bytearray(opening)
        self._lines = Lines()
        self.over = False
        """Whether `Finished` or `Failed` was given."""
        self.cut = False
        """Whether the CLI would go on by itself though it is over: it must be stopped at once."""

    def take_input(self) -> bytes:
        """What is to be written to stdin by now, in order; each byte is given once."""
        taken = bytes(self._input)
        self._input.clear()
        return taken

    def feed(self, data: bytes) -> list[AgentEvent]:
        """What stdout says. Never raises for what a CLI may write."""
        events: list[AgentEvent] = []
        if self.over:
            return events
        try:
            for line in self._lines.feed(data):
                events += self._read_safely(line)
                if self._concluded(events):
                    break
        except OverlongLine as error:
            events.append(Failed(str(error)))
            self.over = True
        return events

    def end(self, returncode: int, stderr: str) -> list[AgentEvent]:
        """The process is gone and its output read: `Failed` unless it was over.

        `returncode` is negative for a signal; `stderr` the end of what it wrote there.
        """
        if self.over:
            return []
        self.over = True
        return [self._explain_end(returncode, stderr)]

    def interrupt(self) -> bool:
        """Tell it to stop, by `take_input`. False where it has to be made to."""
        return False

    @abstractmethod
    def _read(self, line: bytes) -> list[AgentEvent]:
        """Events of one line. Raises msgspec.DecodeError for what is no event."""

    def _explain_end(self, returncode: int, stderr: str) -> Failed:
        half = ", in the middle of a line" if self._lines.unfinished else ""
        said = last_line(stderr)
        message = f"it ended with {describe_exit(returncode)} before its answer did{half}"
        return Failed(f"{message}: {said}" if said else message)

    def _read_safely(self, line: bytes) -> list[AgentEvent]:
        if not line.strip():
            return []
        try:
            return self._read(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Not quoted: it may be anything, a prompt too.
            return [Failed(f"it wrote a line of {len(line)} bytes that is no event")]

    def _concluded(self, events: list[AgentEvent]) -> bool:
        self.over = self.over or any(isinstance(event, Finished | Failed) for event in events)
        return self.over


def last_line(text: str) -> str:
    """The last line that says anything, without its margins."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
