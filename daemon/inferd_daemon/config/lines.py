"""Where a key stands in a TOML text. The parser forgets lines; people look for them."""

import re

Path = tuple[str | int, ...]

_KEY_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_KEY})\s*\]\]?")
_ASSIGNMENT = re.compile(rf"^\s*({_KEY})\s*=")
_PART = re.compile(_KEY_PART)


class KeyLines:
    """The line of each table header and key of a document that parses as TOML.

    Built by a scan of the lines, so a `key =` inside a multi-line string may shadow; only the
    line in a message depends on it.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        table: Path = ()
        arrays: dict[Path, int] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            header = _HEADER.match(line)
            if header:
                table = _split(header[2])
                if header[1] == "[[":
                    arrays[table] = arrays.get(table, -1) + 1
                    table = (*table, arrays[table])
                self._lines.setdefault(table, number)
                continue
            assignment = _ASSIGNMENT.match(line)
            if assignment:
                self._lines.setdefault((*table, *_split(assignment[1])), number)

    def find(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest table around it."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None


def _split(key: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(key))
