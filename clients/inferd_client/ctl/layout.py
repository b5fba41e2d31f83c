"""A table on a terminal too narrow for it: broken into lines, or row by row; pure.

Nothing is ever cropped, and the first column, which names what the row is about, is never broken:
people copy it. rich alone would crop it, without a mark.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_WHOLE = 11
"""A cell up to this long is not broken ("23 h 53 min"), nor is a word."""


def fit(table: "Table", width: int) -> bool:
    """Give the columns the widths that make the table `width` wide at most.

    False, and nothing changed, where that would break what has to stay whole.
    """
    columns = _columns(table)
    wide = [max(map(_width, column)) for column in columns]
    least = [wide[0], *(max(map(_least, column)) for column in columns[1:])]
    room = width - _overhead(table)
    if sum(least) > room:
        return False
    for column, got in zip(table.columns, _shrunk(wide, least, room), strict=True):
        column.width = got
    return True


def natural_width(table: "Table") -> int:
    """Of the table with every cell on one line."""
    return _overhead(table) + sum(max(map(_width, column)) for column in _columns(table))


def stacked(table: "Table", width: int) -> list[str]:
    """Each row as a line that names it, and below it the other cells that say something.

    A line is longer than `width` only where a single cell is.
    """
    headings, *rows = zip(*_columns(table), strict=True)
    lines: list[str] = []
    for name, *cells in rows:
        lines.append(name)
        told = [
            f"  {heading} {cell}" for heading, cell in zip(headings[1:], cells, strict=True) if cell
        ]
        lines += _in_lines(told, width)
    return lines


def _in_lines(pieces: Iterable[str], width: int) -> Iterator[str]:
    """As many pieces on a line as it holds; one that has lines of its own stands alone."""
    line = ""
    for piece in pieces:
        if line and ("\n" in line + piece or _width(line + piece) > width):
            yield from line.splitlines()
            line = ""
        line += piece.replace("\n", "\n    ")
    yield from line.splitlines()


def _columns(table: "Table") -> list[list[str]]:
    """The text of each column's cells, the heading first."""
    return [[str(cell) for cell in (column.header, *column.cells)] for column in table.columns]


def _overhead(table: "Table") -> int:
    """What stands between the columns, and on both sides."""
    left, right = table.padding[3], table.padding[1]
    return (len(table.columns) - 1) * (left + 1 + right) + 2


def _width(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.splitlines()), default=0)


def _least(cell: str) -> int:
    """The narrowest that a cell can be."""
    width = _width(cell)
    if width <= _WHOLE:
        return width
    return min(_WHOLE, max(map(_width, cell.split()), default=0))


def _shrunk(wide: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that sum up to `room` at most: the widest gives first."""
    widths = list(wide)
    while sum(widths) > room:
        _, at = max((width, at) for at, width in enumerate(widths) if width > least[at])
        widths[at] -= 1
    return widths
