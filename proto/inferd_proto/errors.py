"""What can go wrong between two peers, typed by who is to blame.

`ErrorCode` is the closed set of codes that cross the wire (wire.md section 4). The exceptions
say whose fault a breach of the protocol was: `LocalProtocolError` is ours (a bug in the caller
of this package), `RemoteProtocolError` is the peer's.
"""

import re
from enum import StrEnum

MAX_QUOTED_CHARS = 40
"""An error text may name what the peer wrote; it must not be a way to have it echoed or logged."""

_NAME = re.compile(r"[\w.:/@+-]*")


class ErrorCode(StrEnum):
    """Codes of `error` frames (wire.md section 4)."""

    QUEUE_FULL = "queue_full"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    INVALID_REQUEST = "invalid_request"
    FRAME_TOO_LARGE = "frame_too_large"
    INTERNAL = "internal"
    ATTACHMENT_UNSUPPORTED = "attachment_unsupported"
    TOOL_CALL_MALFORMED = "tool_call_malformed"
    WIRE_VERSION_UNSUPPORTED = "wire_version_unsupported"
    EMBED_UNSUPPORTED = "embed_unsupported"
    RERANK_UNSUPPORTED = "rerank_unsupported"
    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    CONFLICT = "conflict"
    INCOMPATIBLE = "incompatible"
    TIMEOUT = "timeout"


class ProtocolError(Exception):
    """The bytes or the order of messages break the protocol."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the state of the exchange does not allow. A bug on our side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    `code` is what an error frame should carry; `request_id` the request it belongs to ("" when
    none is known); `close` is true where nothing that follows can be trusted (wire.md section 2).
    """

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode = ErrorCode.INVALID_REQUEST,
        request_id: str = "",
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.close = close


def quoted(value: str) -> str:
    """`value` as an error text may show it: as it is where it looks like a name, else its size.

    Free text may be a prompt or a secret that came in a wrong field.
    """
    if len(value) <= MAX_QUOTED_CHARS and _NAME.fullmatch(value):
        return repr(value)
    return f"a text of {len(value)} characters"
