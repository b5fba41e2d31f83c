"""One payload to one request message, dispatched by `op` and `api_version` (wire.md section 3)."""

import msgspec
from msgspec import UNSET, UnsetType

from ..codec import Codec
from ..errors import ErrorCode, RemoteProtocolError
from ..frames import FrameType
from .control import Cancel, Control
from .generate_v1 import GenerateV1
from .generate_v2 import AttachmentBlob, GenerateV2
from .limits import MAX_ID_CHARS, WIRE_VERSION, JsonObject, check_json
from .vectors import Embed, Rerank

Request = GenerateV1 | GenerateV2 | Embed | Rerank | Control


class _Head(msgspec.Struct, gc=False):
    """What is looked at before anything else is parsed."""

    wire_version: object = UNSET
    id: object = ""
    op: object = "generate"
    type: object = UNSET
    api_version: object = 2


_HEAD = Codec(_Head)
_GENERATE_V1 = Codec(GenerateV1)
_GENERATE_V2 = Codec(GenerateV2)
_EMBED = Codec(Embed)
_RERANK = Codec(Rerank)
_BLOB = Codec(AttachmentBlob)
_OBJECT: Codec[JsonObject] = Codec(JsonObject)
_ENVELOPE = ("wire_version", "id", "op")


def decode_request(frame_type: FrameType, payload: bytes) -> Request | Cancel | AttachmentBlob:
    """The message in a JSON or MessagePack payload.

    Raises RemoteProtocolError with the request's id where one could be read:
    `wire_version_unsupported` (with `close`) or `invalid_request`.
    """
    head = _HEAD.decode(frame_type, payload)
    if head.type == "attachment_blob":
        return _BLOB.decode(frame_type, payload)
    request_id = head.id if isinstance(head.id, str) and len(head.id) <= MAX_ID_CHARS else ""
    _check_version(head, request_id)
    try:
        return _decode_body(head, frame_type, payload)
    except RemoteProtocolError as error:
        error.request_id = request_id
        raise


def _check_version(head: _Head, request_id: str) -> None:
    version = head.wire_version
    if type(version) is int and version == WIRE_VERSION:
        return
    if head.op == "cancel" and version is UNSET:
        return  # wire.md section 3 shows `cancel` without a version
    if isinstance(version, UnsetType):
        said = "wire_version is missing"
    else:
        said = f"wire_version {str(version)[:20]} is not supported"
    raise RemoteProtocolError(
        f"{said}; this daemon speaks wire_version {WIRE_VERSION}",
        code=ErrorCode.WIRE_VERSION_UNSUPPORTED,
        request_id=request_id,
        close=True,
    )


def _decode_body(head: _Head, frame_type: FrameType, payload: bytes) -> Request | Cancel:
    if not isinstance(head.id, str):
        raise RemoteProtocolError("`id` must be a string")
    if len(head.id) > MAX_ID_CHARS:
        raise RemoteProtocolError(f"`id` is longer than {MAX_ID_CHARS} characters")
    match head.op:
        case "generate":
            return _decode_generate(head, frame_type, payload)
        case "embed":
            return _EMBED.decode(frame_type, payload)
        case "rerank":
            return _RERANK.decode(frame_type, payload)
        case "cancel":
            return Cancel(head.id)
        case str(op) if op:
            fields = _OBJECT.decode(frame_type, payload)
            arguments = {key: fields[key] for key in fields if key not in _ENVELOPE}
            try:
                check_json(arguments, op[:40])
            except ValueError as error:
                raise RemoteProtocolError(str(error)) from None
            return Control(head.id, op, arguments)
        case _:
            raise RemoteProtocolError("`op` must be a string that is not empty")


def _decode_generate(head: _Head, frame_type: FrameType, payload: bytes) -> GenerateV1 | GenerateV2:
    if type(head.api_version) is int:
        if head.api_version == 1:
            return _GENERATE_V1.decode(frame_type, payload)
        if head.api_version == 2:
            return _GENERATE_V2.decode(frame_type, payload)
    raise RemoteProtocolError("`api_version` must be 1 or 2")
