"""One payload to one request message, dispatched by `op` and `api_version` (wire.md section 3)."""

from typing import Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..codec import Codec, check_utf8, encode
from ..errors import ErrorCode, RemoteProtocolError
from ..frames import FrameType
from .control import Cancel, Control
from .free_form import check_arguments, check_generate
from .generate_v1 import GenerateV1
from .generate_v2 import AttachmentBlob, GenerateV2
from .limits import MAX_ID_CHARS, MAX_INTEGER, MIN_INTEGER, WIRE_VERSION, JsonObject, check_json
from .vectors import Embed, Rerank
from .weight import check_weight

LineOp = Literal["embed", "rerank"]
Request = GenerateV1 | GenerateV2 | Embed | Rerank | Control
_T = TypeVar("_T")

MAX_OP_CHARS = 64

_MAX_HEAD_BYTES = 6 * MAX_ID_CHARS + 2
"""The longest allowed id, each character escaped as \\uXXXX: nothing longer is looked into."""

_TOO_LONG: Final = object()
_ABSENT = Raw(b"")


class _Head(msgspec.Struct, gc=False):
    """What is looked at before anything else is parsed; raw, so that its size bounds the work."""

    wire_version: Raw = _ABSENT
    id: Raw = _ABSENT
    op: Raw = _ABSENT
    type: Raw = _ABSENT
    api_version: Raw = _ABSENT


_HEAD = Codec(_Head)
_VALUE: Codec[object] = Codec(object)
_GENERATE_V1 = Codec(GenerateV1)
_GENERATE_V2 = Codec(GenerateV2)
_EMBED = Codec(Embed)
_RERANK = Codec(Rerank)
_BLOB = Codec(AttachmentBlob)
_OBJECT: Codec[JsonObject] = Codec(JsonObject)
_FIELDS: Codec[dict[str, Raw]] = Codec(dict[str, Raw])
_ENVELOPE = ("wire_version", "id", "op")


def decode_request(frame_type: FrameType, payload: bytes) -> Request | Cancel | AttachmentBlob:
    """The message in a JSON or MessagePack payload.

    Raises RemoteProtocolError with the request's id where one could be read:
    `wire_version_unsupported` (with `close`) or `invalid_request`.
    """
    head = _HEAD.decode(frame_type, payload)
    if head.type != _ABSENT and _peek(frame_type, head.type) == "attachment_blob":
        return _BLOB.decode(frame_type, payload)
    request_id = _peek(frame_type, head.id)
    op = _peek(frame_type, head.op)
    try:
        _check_version(_peek(frame_type, head.wire_version), op)
        if frame_type is FrameType.JSON:
            check_utf8(payload)
        check_weight(frame_type, payload)
        return _decode_body(head, _check_id(request_id), op, frame_type, payload)
    except RemoteProtocolError as error:
        if isinstance(request_id, str) and len(request_id) <= MAX_ID_CHARS:
            error.request_id = request_id
        raise


def decode_held(
    frame_type: FrameType, payload: bytes
) -> Request | Cancel | AttachmentBlob | RemoteProtocolError:
    """As `decode_request`, for another thread: returns what that raises."""
    try:
        return decode_request(frame_type, payload)
    except RemoteProtocolError as error:
        return error


def decode_line(op: LineOp, line: bytes) -> Embed | Rerank:
    """The request in a line of a socket for `op` alone; `wire_version` and `op` may be left out.

    Raises RemoteProtocolError as `decode_request` does.
    """
    json = FrameType.JSON
    head = _HEAD.decode(json, line)
    request_id = _peek(json, head.id)
    try:
        version = _peek(json, head.wire_version)
        if version is not UNSET:
            _check_version(version, op)
        if _peek(json, head.op) not in (UNSET, op):
            raise RemoteProtocolError(f"`op`: this socket is for {op} alone")
        check_utf8(line)
        check_weight(json, line)
        _check_id(request_id)
        return _decode(_EMBED, json, line) if op == "embed" else _decode(_RERANK, json, line)
    except RemoteProtocolError as error:
        if isinstance(request_id, str) and len(request_id) <= MAX_ID_CHARS:
            error.request_id = request_id
        raise


def _peek(frame_type: FrameType, raw: Raw) -> object:
    """A field of the head; UNSET where it is missing or null."""
    if len(memoryview(raw)) > _MAX_HEAD_BYTES:
        return _TOO_LONG
    if raw == _ABSENT:
        return UNSET
    try:
        value = _VALUE.decode(frame_type, raw)
    except RemoteProtocolError:
        return _TOO_LONG
    return UNSET if value is None else value


def _check_version(version: object, op: object) -> None:
    if type(version) is int and version == WIRE_VERSION:
        return
    if op == "cancel" and version is UNSET:
        return  # wire.md section 3 shows `cancel` without a version
    match version:
        case UnsetType():
            said = "wire_version is missing"
        case int() | float() if type(version) is not bool and MIN_INTEGER <= version <= MAX_INTEGER:
            said = f"wire_version {version!r} is not supported"
        case _:
            said = f"wire_version is not the number {WIRE_VERSION}"
    raise RemoteProtocolError(
        f"{said}; this daemon speaks wire_version {WIRE_VERSION}",
        code=ErrorCode.WIRE_VERSION_UNSUPPORTED,
        close=True,
    )


def _check_id(value: object) -> str:
    if value is UNSET:
        return ""
    if isinstance(value, str) and len(value) <= MAX_ID_CHARS:
        return value
    raise RemoteProtocolError(f"`id`: must be a string of at most {MAX_ID_CHARS} characters")


def _decode_body(
    head: _Head, request_id: str, op: object, frame_type: FrameType, payload: bytes
) -> Request | Cancel:
    match op:
        case UnsetType() | "generate":
            return _decode_generate(head, frame_type, payload)
        case "embed":
            return _decode(_EMBED, frame_type, payload)
        case "rerank":
            return _decode(_RERANK, frame_type, payload)
        case "cancel":
            return Cancel(request_id)
        case str() if 0 < len(op) <= MAX_OP_CHARS:
            return _decode_control(request_id, op, frame_type, payload)
        case _:
            raise RemoteProtocolError(f"`op`: must be a string of 1 to {MAX_OP_CHARS} characters")


def _decode_generate(head: _Head, frame_type: FrameType, payload: bytes) -> GenerateV1 | GenerateV2:
    version = _peek(frame_type, head.api_version)
    if version is UNSET or (type(version) is int and version == 2):
        check_generate(frame_type, payload)
        return _decode(_GENERATE_V2, frame_type, payload)
    if type(version) is int and version == 1:
        return _decode(_GENERATE_V1, frame_type, payload)
    raise RemoteProtocolError("`api_version`: must be 1 or 2")


def _decode(codec: Codec[_T], frame_type: FrameType, payload: bytes) -> _T:
    """Published clients may write null for a field that they leave out."""
    try:
        return codec.decode(frame_type, payload)
    except RemoteProtocolError:
        fields = _FIELDS.decode(frame_type, payload)
        null = encode(frame_type, None)
        told = {name: raw for name, raw in fields.items() if bytes(memoryview(raw)) != null}
        if len(told) == len(fields):
            raise
        return codec.decode(frame_type, encode(frame_type, told))


def _decode_control(request_id: str, op: str, frame_type: FrameType, payload: bytes) -> Control:
    check_arguments(payload)
    fields = _OBJECT.decode(frame_type, payload)
    arguments = {key: fields[key] for key in fields if key not in _ENVELOPE}
    try:
        check_json(arguments, "")
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None
    return Control(request_id, op, arguments)
