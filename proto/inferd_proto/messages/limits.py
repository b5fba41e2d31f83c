"""The numbers of wire.md that bound a message, and the checks that several messages share."""

from math import isfinite
from typing import Annotated

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

_Trail = tuple["_Trail | None", str | int]


def check_temperature(value: float | None) -> None:
    """MessagePack can carry infinities, JSON cannot. Raises ValueError."""
    if value is not None and not isfinite(value):
        raise ValueError("`temperature`: must be finite")


def check_json(value: JsonObject, name: str) -> None:
    """Free-form data must be JSON, whatever encoding brought it, and not too deep.

    Raises ValueError naming the path: more than `MAX_JSON_DEPTH` levels, an integer beyond 64
    bits, a number that is not finite, or a MessagePack type that JSON lacks.
    """
    level: list[tuple[object, _Trail]] = [(value, (None, name))]
    for _ in range(MAX_JSON_DEPTH):
        below: list[tuple[object, _Trail]] = []
        for item, trail in level:
            if isinstance(item, dict):
                below += [(inner, (trail, _key(key, trail))) for key, inner in item.items()]
            elif isinstance(item, list):
                below += [(inner, (trail, index)) for index, inner in enumerate(item)]
            elif item is not None and not isinstance(item, str):
                _check_scalar(item, trail)
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


def _key(key: object, trail: _Trail) -> str:
    if not isinstance(key, str):
        raise ValueError(f"`{_path(trail)}`: has a key that is not a string")
    return key


def _check_scalar(value: object, trail: _Trail) -> None:
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"`{_path(trail)}`: must be finite")
    elif isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"`{_path(trail)}`: the integer needs more than 64 bits")
    else:
        raise ValueError(f"`{_path(trail)}`: holds a value that JSON cannot carry")


def _path(trail: _Trail | None) -> str:
    """Names of the peer's own choice are cut short, and may not look like the end of the path."""
    parts: list[str] = []
    while trail is not None:
        trail, part = trail
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif trail is None:
            parts.append(part)
        else:
            parts.append("." + part[:40].replace("`", "'"))
    return "".join(reversed(parts)).lstrip(".")
