"""The numbers of wire.md that bound a message, and the checks that several messages share."""

from math import isfinite
from typing import Annotated, cast

from msgspec import Meta

from ..errors import quoted

WIRE_VERSION = 1
MAX_ID_CHARS = 1024
"""An id is echoed on every answer frame; a longer one would be an amplifier."""
MAX_ATTACHMENTS = 32
MAX_REQUEST_BLOB_BYTES = 128 * 1024 * 1024
MAX_GRAMMAR_BYTES = 64 * 1024
MAX_GRAMMAR_ALTERNATIVES = 4096
MAX_RERANK_DOCUMENTS = 256
MAX_RERANK_TEXT_BYTES = 8 * 1024 * 1024
MAX_JSON_DEPTH = 128
"""Free-form JSON (tool input, schemas) is walked again by backends; none needs more levels."""
MAX_JSON_BYTES = 4 * 1024 * 1024
"""Free-form JSON of one request together, as sent: it takes thirty times that once decoded."""
MAX_VALUES = 400_000
"""Texts and field names of one message together: no block or message has fewer than four."""
MAX_EMBED_INPUTS = 65_536
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)
"""What MessagePack, and nearly every JSON reader, can carry."""

Temperature = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TopK = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-1, le=2**32 - 1)]
Pixels = Annotated[int, Meta(ge=1, le=2**32 - 1)]
NonEmpty = Annotated[str, Meta(min_length=1)]
Label = Annotated[str, Meta(max_length=64)]

JsonObject = dict[str, object]
"""A free-form JSON object: a tool's input, a JSON Schema."""


_STRINGS = {str}


def check_temperature(value: float | None) -> None:
    """MessagePack can carry infinities, JSON cannot. Raises ValueError."""
    if value is not None and not isfinite(value):
        raise ValueError("`temperature`: must be finite")


def check_json(value: JsonObject, name: str) -> None:
    """Free-form data must be JSON, whatever encoding brought it, and not too deep.

    Raises ValueError naming the path: more than `MAX_JSON_DEPTH` levels, an integer beyond 64
    bits, a number that is not finite, or a MessagePack type that JSON lacks.
    """
    level: list[object] = [value]
    for _ in range(MAX_JSON_DEPTH):
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind is str:
                continue
            if isinstance(item, list):
                below += item
            elif isinstance(item, dict) and _STRINGS.issuperset(map(type, item)):
                below += item.values()
            elif (kind is not int or not 0 <= cast("int", item) <= MAX_INTEGER) and _mistake(item):
                raise ValueError(_describe_mistake(value, name))
        if not below:
            return
        level = below
    raise ValueError(f"`{name or 'message'}`: nests deeper than {MAX_JSON_DEPTH} levels")


def check_unique(values: list[str], name: str, field: str) -> None:
    """Raises ValueError naming the first of `name[…].field` that stands there twice."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise ValueError(f"`{name}[{index}].{field}`: {quoted(value)} stands there twice")
        seen.add(value)


def _mistake(value: object) -> str | None:
    """What keeps one value, without those inside it, from being JSON."""
    match value:
        case None | str() | list():
            return None
        case dict():
            return (
                None if _STRINGS.issuperset(map(type, value)) else "has a key that is not a string"
            )
        case float():
            return None if isfinite(value) else "must be finite"
        case int():
            fits = MIN_INTEGER <= value <= MAX_INTEGER
            return None if fits else "the integer needs more than 64 bits"
        case _:
            return "holds a value that JSON cannot carry"


def _describe_mistake(value: object, path: str) -> str:
    """The first mistake with its path: a second walk, so that the first need not keep paths."""
    level = [(value, path)]
    while level:
        below: list[tuple[object, str]] = []
        for item, at in level:
            mistake = _mistake(item)
            if mistake is not None:
                return f"`{at}`: {mistake}" if at else mistake
            if isinstance(item, dict):
                below += [(inner, _join(at, key)) for key, inner in item.items()]
            elif isinstance(item, list):
                below += [(inner, f"{at}[{index}]") for index, inner in enumerate(item)]
        level = below
    raise AssertionError("a walk that found a mistake finds it again")


def _join(path: str, key: str) -> str:
    """Keys are the peer's own choice: cut short, and never looking like the end of the path."""
    key = key[:40].replace("`", "'")
    return f"{path}.{key}" if path else key
