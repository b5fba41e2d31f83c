"""Control operations, cancellation, and the answers that every kind of request shares."""

from msgspec import UNSET, Struct, UnsetType

from ..errors import ErrorCode
from .limits import JsonObject


class Control(Struct, frozen=True):
    """An operation on the daemon (wire.md section 6).

    `arguments` holds the message's other fields as plain JSON; the verb that handles `op`
    validates them.
    """

    id: str
    op: str
    arguments: JsonObject


class Cancel(Struct, frozen=True):
    """Ends the request `id`; no answer of its own, the request's terminal frame says it."""

    id: str


class Error(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """The end of a request that failed. `details` is there for `incompatible` and refusals."""

    id: str
    code: ErrorCode
    message: str
    details: JsonObject | UnsetType = UNSET


class Result(Struct, frozen=True, tag_field="type", tag="result"):
    """The single answer of a control request."""

    id: str
    value: object


class Item(Struct, frozen=True, tag_field="type", tag="item"):
    """One element of a control stream."""

    id: str
    value: object


class StreamDone(Struct, frozen=True, tag_field="type", tag="done"):
    """The end of a control stream."""

    id: str
