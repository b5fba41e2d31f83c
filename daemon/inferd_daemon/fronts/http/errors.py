"""Errors as OpenAI's clients know them: `{"error": {"message", "type", "param", "code"}}`.

Pure mapping; messages are the daemon's own, which never hold a secret or a prompt.
"""

import math

import msgspec
from starlette.responses import Response

from inferd_proto import ErrorCode, JsonObject

from ...errors import AnswerTooLong, BackendSilence, RequestError, UpstreamFault

RETRY_AFTER_S = 1
"""Where nothing is known of how long the queue takes."""
MAX_RETRY_AFTER_S = 600

STATUSES: dict[ErrorCode, int] = {
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.BACKEND_UNAVAILABLE: 503,
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.FRAME_TOO_LARGE: 413,
    ErrorCode.INTERNAL: 500,
    ErrorCode.ATTACHMENT_UNSUPPORTED: 400,
    ErrorCode.TOOL_CALL_MALFORMED: 502,
    ErrorCode.WIRE_VERSION_UNSUPPORTED: 400,
    ErrorCode.EMBED_UNSUPPORTED: 400,
    ErrorCode.RERANK_UNSUPPORTED: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.CONFLICT: 409,
    ErrorCode.INCOMPATIBLE: 400,
    ErrorCode.TIMEOUT: 504,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_REFUSAL_CODES = {
    405: "method_not_allowed",
    408: ErrorCode.TIMEOUT.value,
    414: "target_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    505: "http_version_not_supported",
}


def openai_error(
    error: RequestError,
    *,
    status: int | None = None,
    param: str | None = None,
    code: str | None = None,
) -> Response:
    """The whole answer; `status` and `code` where the request's own code says too little."""
    status = http_status(error) if status is None else status
    body = msgspec.json.encode(error_object(error, status=status, param=param, code=code))
    return Response(body, status, retry_headers(error), media_type="application/json")


def error_object(
    error: RequestError,
    *,
    status: int | None = None,
    param: str | None = None,
    code: str | None = None,
) -> JsonObject:
    """As a plain value."""
    status = http_status(error) if status is None else status
    return {
        "error": {
            "message": error.message,
            "type": type_of(status),
            "param": param,
            "code": code or error.code.value,
        }
    }


def internal_error() -> RequestError:
    """A fault of the daemon's own, of which only its log may tell."""
    return RequestError(ErrorCode.INTERNAL, "internal error; the daemon's log has the details")


def plain_answer(status: int, message: str) -> bytes:
    """A whole answer as HTTP/1.1, where there is no request that it could belong to."""
    body = msgspec.json.encode(refusal(status, message, refusal_code(status)))
    head = (
        f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def refusal(status: int, message: str, code: str | None = None) -> JsonObject:
    """What is wrong with HTTP itself, before it is a request of the daemon's."""
    return {"error": {"message": message, "type": type_of(status), "param": None, "code": code}}


def refusal_code(status: int) -> str:
    """The word for what is no request that anyone here could answer."""
    return _REFUSAL_CODES.get(status, ErrorCode.INVALID_REQUEST.value)


def type_of(status: int) -> str:
    """The `type` that clients expect with a status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def http_status(error: RequestError) -> int:
    """That of its code, but for who was there and failed: 502, or 504 where time ran out.

    What cannot be connected to stays at 503, like what loads or rests behind its breaker: nothing
    has reached it, and the status does not change when the breaker opens.
    """
    if error.code is ErrorCode.BACKEND_UNAVAILABLE:
        if isinstance(error, BackendSilence | AnswerTooLong):
            return 504
        if isinstance(error, UpstreamFault):
            return 502
    return STATUSES[error.code]


def retry_headers(error: RequestError) -> dict[str, str]:
    """When to come again, where that is known, or where it is all that is wrong; whether at all,
    where SDKs would do so by the status alone."""
    if not error.again:
        return {"x-should-retry": "false"}
    details = error.details
    if error.code is ErrorCode.QUEUE_FULL or (details and "estimate_ms" in details):
        return {"retry-after": str(retry_after_s(details))}
    return {}


def retry_after_s(details: JsonObject | None) -> int:
    """Whole seconds until another try is likely to go well."""
    estimate_ms = (details or {}).get("estimate_ms")
    if not isinstance(estimate_ms, int | float):
        return RETRY_AFTER_S
    return min(MAX_RETRY_AFTER_S, max(1, math.ceil(estimate_ms / 1000)))
