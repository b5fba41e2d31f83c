"""The arguments of a verb: plain JSON to its record, or the caller's mistake by its field."""

from typing import TypeVar

import msgspec

from inferd_proto import JsonObject

from ..errors import CallerFault

T = TypeVar("T")


def read_arguments(arguments: JsonObject, shape: type[T]) -> T:
    """Raises CallerFault that names the field."""
    try:
        return msgspec.convert(arguments, shape)
    except msgspec.ValidationError as error:
        raise CallerFault(str(error)) from error
