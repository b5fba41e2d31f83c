"""Files on the command line that hold JSON: a spec, a schema, a list of tools."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from inferd_proto import JsonObject, ResponseFormat, Tool


def read_object(name: str) -> JsonObject:
    """The JSON object in a file, `-` for standard input. Raises UsageError."""
    value = _read(name)
    if not isinstance(value, dict):
        raise click.UsageError(f"{name} is not a JSON object")
    return value


def read_schema(name: str) -> ResponseFormat:
    """A JSON Schema as what an answer has to fit. Raises UsageError."""
    with _named(name):
        return ResponseFormat(schema=read_object(name))


def read_tools(name: str) -> list[Tool]:
    """Tools in our form or in OpenAI's, one or a list of them. Raises UsageError."""
    value = _read(name)
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise click.UsageError(f"{name} names no tools")
    return [_to_tool(one, f"{name}: tool {number}") for number, one in enumerate(listed, 1)]


def _to_tool(value: object, where: str) -> Tool:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise click.UsageError(f"{where} has no name")
    schema = value.get("input_schema", value.get("parameters", {"type": "object"}))
    if not isinstance(schema, dict):
        raise click.UsageError(f"{where}: its schema is not a JSON object")
    with _named(where):
        return Tool(value["name"], schema, str(value.get("description", "")))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """The wire's own limits, as a mistake in the file."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"{where}: {error}") from None


def _read(name: str) -> object:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise click.UsageError(f"{name} is not JSON text") from None
