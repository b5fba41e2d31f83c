"""A parsed table against a struct: every mistake by its key, not only the first.

Pure; knows nothing of files or of what the fields mean.
"""

import difflib
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from .lines import Path

T = TypeVar("T", bound=Struct)


class Mistake(NamedTuple):
    """What is wrong at one key; `line` counts from 1, None where it stands nowhere."""

    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"


def check(data: dict[str, object], type_: type[T]) -> tuple[T | None, list[tuple[Path, str]]]:
    """`data` as a `type_`, or None and all mistakes as (path, message)."""
    mistakes: list[tuple[Path, str]] = []
    value = _check_struct(data, type_, (), mistakes)
    return (None if mistakes else cast("T", value)), mistakes


def dotted(path: Path) -> str:
    """`("routes", "a", 0)` as `routes.a[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _check_struct(
    data: object, type_: type[Struct], path: Path, mistakes: list[tuple[Path, str]]
) -> Struct | None:
    if not isinstance(data, dict):
        mistakes.append((path, f"must be a table, not {_kind(data)}"))
        return None
    known = _fields_by_name(type_)
    tag_field = type_.__struct_config__.tag_field
    mistakes.extend(
        ((*path, key), _unknown(key, list(known)))
        for key in data
        if key not in known and key != tag_field
    )
    values: dict[str, object] = {}
    for name, field in known.items():
        if name in data:
            values[field.name] = _check_value(data[name], field.type, (*path, name), mistakes)
        elif _required(field):
            mistakes.append(((*path, name), "is missing"))
    return None if mistakes else type_(**values)


@cache
def _fields_by_name(type_: type[Struct]) -> dict[str, FieldInfo]:
    """Kept, for resolving the annotations costs more than all the checking."""
    return {field.encode_name: field for field in fields(type_)}


def _check_value(
    data: object,
    type_: Any,  # noqa: ANN401  a type form: Annotated, a union, a generic alias
    path: Path,
    mistakes: list[tuple[Path, str]],
) -> object:
    structs = _structs(type_)
    if structs and data is not None:
        chosen = _choose(data, structs, path, mistakes)
        return None if chosen is None else _check_struct(data, chosen, path, mistakes)
    origin = get_origin(type_)
    if origin is dict and _structs(get_args(type_)[1]):
        return _check_tables(data, type_, path, mistakes)
    try:
        value: object = msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
        message, _, at = text.partition(" - at `$")
        choices = _choices(type_)
        if choices and message.startswith("Invalid enum value"):
            message += f"; one of {', '.join(choices)}"
        mistakes.append((path, f"{message}{f' (at {at[:-1]})' if at.rstrip('`') else ''}"))
        return None
    return value


def _check_tables(
    data: object,
    type_: Any,  # noqa: ANN401  a type form: Annotated, a union, a generic alias
    path: Path,
    mistakes: list[tuple[Path, str]],
) -> object:
    key_type, value_type = get_args(type_)
    if not isinstance(data, dict):
        mistakes.append((path, f"must be a table, not {_kind(data)}"))
        return None
    out: dict[object, object] = {}
    for key, item in data.items():
        here = (*path, key)
        _check_value(key, key_type, here, mistakes)
        out[key] = _check_value(item, value_type, here, mistakes)
    return out


def _choose(
    data: object, structs: list[type[Struct]], path: Path, mistakes: list[tuple[Path, str]]
) -> type[Struct] | None:
    """The struct of a union by its tag."""
    if len(structs) == 1:
        return structs[0]
    if not isinstance(data, dict):
        mistakes.append((path, f"must be a table, not {_kind(data)}"))
        return None
    tag_field = structs[0].__struct_config__.tag_field or "kind"
    by_tag = {str(struct.__struct_config__.tag): struct for struct in structs}
    tag = data.get(tag_field)
    if tag is None:
        mistakes.append(((*path, tag_field), f"is missing; one of {', '.join(by_tag)}"))
        return None
    if str(tag) not in by_tag:
        mistakes.append(((*path, tag_field), f"{tag!r} is none of {', '.join(by_tag)}"))
        return None
    return by_tag[str(tag)]


def _structs(type_: Any) -> list[type[Struct]]:  # noqa: ANN401  as above
    """The struct types that `type_` may be."""
    if get_origin(type_) is Annotated:
        return _structs(get_args(type_)[0])
    if isinstance(type_, UnionType) or get_origin(type_) is Union:
        return [struct for arg in get_args(type_) for struct in _structs(arg)]
    if isinstance(type_, type) and issubclass(type_, Struct):
        return [type_]
    return []


def _choices(type_: Any) -> list[str]:  # noqa: ANN401  as above
    """The values that `type_` names one by one."""
    if get_origin(type_) is Literal:
        return [str(value) for value in get_args(type_)]
    if isinstance(type_, UnionType) or get_origin(type_) in (Annotated, Union):
        return [choice for arg in get_args(type_) for choice in _choices(arg)]
    return []


def _required(field: FieldInfo) -> bool:
    return field.default is NODEFAULT and field.default_factory is NODEFAULT


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"unknown key; did you mean `{close[0]}`?" if close else "unknown key"


def _kind(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")
