"""Standard output, as a terminal or as a pipe: the one place that knows which.

Text of a model is made harmless before it reaches a terminal; a pipe gets it as it is. Colour
goes to terminals only, and to none where `$NO_COLOR` is set.
"""

import os
import sys
from typing import TYPE_CHECKING

from .render import printable, reason_lines, routes_table

if TYPE_CHECKING:
    from rich.table import Table

    from ..status import RouteStatus

_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Terminal:
    """Writes at once: what was said is seen, whatever happens next. Muted, it writes nothing."""

    def __init__(self, *, muted: bool = False) -> None:
        self._out = sys.stdout
        self._muted = muted
        self.interactive = self._out.isatty()
        self._colour = self.interactive and not os.environ.get("NO_COLOR")
        self._line_open = False

    def say(self, text: str) -> None:
        """A piece of a model's text."""
        self._write(printable(text) if self.interactive else text)

    def whisper(self, text: str) -> None:
        """A piece of a model's thinking: dim on a terminal, left out of a pipe."""
        if self.interactive:
            self._write(self._styled(printable(text), _DIM))

    def note(self, text: str) -> None:
        """A line of our own about the answer."""
        self.end_line()
        self._write(self._styled(text, _DIM) + "\n")

    def title(self, text: str) -> None:
        """A line of our own above something."""
        self.end_line()
        self._write(self._styled(text, _BOLD) + "\n")

    def line(self, text: str) -> None:
        """A whole line, as it is."""
        self.end_line()
        self._write(text + "\n")

    def end_line(self) -> None:
        """Begin a new line, unless at the start of one."""
        if self._line_open:
            self._write("\n")

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colour and text else text

    def _write(self, text: str) -> None:
        if text and not self._muted:
            self._line_open = not text.removesuffix(_PLAIN).endswith("\n")
            self._out.write(text)
            self._out.flush()


def print_table(table: "Table") -> None:
    """A table; row by row where the terminal is too narrow for one. What reads a pipe wants whole
    lines, and has no width to keep to. Nothing in a cell is markup."""
    from rich.console import Console

    from .layout import fit, natural_width, stacked

    bounded = sys.stdout.isatty() or os.environ.get("COLUMNS")
    width = None if bounded else natural_width(table)
    console = Console(width=width, markup=False, emoji=False)
    if fit(table, console.width):
        console.print(table)
        return
    for line in stacked(table, console.width):
        sys.stdout.write(f"{line}\n")


def print_routes(routes: "list[RouteStatus]") -> None:
    """The table of routes, and below it, at full width, why any is not ready."""
    print_table(routes_table(routes))
    for line in reason_lines(routes):
        sys.stdout.write(f"{line}\n")
