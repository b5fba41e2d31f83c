"""The numbers of wire.md that bound a message, and the checks that several messages share."""

from math import isfinite
from typing import Annotated

from msgspec import Meta

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

Temperature = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
TokenCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TopK = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-1, le=2**32 - 1)]
NonEmpty = Annotated[str, Meta(min_length=1)]
Label = Annotated[str, Meta(max_length=64)]

JsonObject = dict[str, object]
"""A free-form JSON object: a tool's input, a JSON Schema."""


def check_temperature(value: float | None) -> None:
    """MessagePack can carry infinities, JSON cannot. Raises ValueError."""
    if value is not None and not isfinite(value):
        raise ValueError("`temperature` must be finite")


def check_json(value: object, name: str) -> None:
    """Free-form data must be JSON, whatever encoding brought it, and not too deep.

    Raises ValueError: more than `MAX_JSON_DEPTH` levels, a number that is not finite, or a
    MessagePack type that JSON lacks.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, float):
                if not isfinite(item):
                    raise ValueError(f"`{name}` holds a number that is not finite")
            elif item is not None and not isinstance(item, str | int):
                raise ValueError(f"`{name}` holds a value that JSON cannot carry")
        if not below:
            return
        level = below
    raise ValueError(f"`{name}` nests deeper than {MAX_JSON_DEPTH} levels")


def check_unique(values: list[str], what: str) -> None:
    """Raises ValueError naming the first value that stands twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} stands twice")
        seen.add(value)
