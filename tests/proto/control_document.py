"""CONTROL.md in parts: its conversation, its tables, its client."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import inferd_proto

DOCUMENT = files(inferd_proto).joinpath("CONTROL.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+) (\w+)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)

Json = dict[str, Any]


class Exchange(NamedTuple):
    """One request, and what came before the next one; also of others that still go on."""

    request: Json
    answers: list[Json]


class Row(NamedTuple):
    """One field of a request. `default` is JSON, None where it is `required`."""

    name: str
    type: str
    default: str | None
    meaning: str


def block(language: str, kind: str) -> str:
    """The one block of that kind."""
    (text,) = (text for *found, text in BLOCKS if found == [language, kind])
    return str(text)


def conversation() -> list[Exchange]:
    """All examples, in their order."""
    exchanges: list[Exchange] = []
    for language, kind, text in BLOCKS:
        if (language, kind) == ("json", "request"):
            exchanges.append(Exchange(json.loads(text), []))
        elif language == "json":
            exchanges[-1].answers.append(json.loads(text))
    return exchanges


def operations() -> dict[str, str]:
    """Each heading that names an operation, with what stands below it."""
    parts = re.split(r"^##+ (.+)$", DOCUMENT, flags=re.MULTILINE)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    return {name.strip("`"): text for name, text in sections if name.startswith("`")}


def _cells(text: str, first: str) -> Iterator[list[str]]:
    """The rows of the one table whose first heading is `first`."""
    (table,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[ |-]+\|\n((?:\|.*\n)+)", text, re.M)
    for line in table.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def asked_fields(text: str, first: str = "field") -> dict[str, Row]:
    """A table of what may be given."""
    rows: dict[str, Row] = {}
    for name, kind, default, meaning in _cells(text, first):
        word = None if default == "required" else default.strip("`")
        rows[name.strip("`")] = Row(name.strip("`"), kind, word, meaning)
    return rows


def told_fields(first: str) -> dict[str, str]:
    """A table of what is answered: each field's type."""
    return {name.strip("`"): kind for name, kind, _ in _cells(DOCUMENT, first)}


def rights() -> dict[str, str]:
    """Who may do each operation."""
    return {
        name.split("`")[1]: who for name, who, _ in _cells(DOCUMENT, "operation") if "`]" in name
    }
