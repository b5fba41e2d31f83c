"""Why a runtime did not become ready, as the error that its caller gets. Pure."""

from collections.abc import Sequence

from inferd_proto import ErrorCode, JsonObject

from ...engines.failures import Cause, Failure
from ...errors import RequestError

SHOWN_LINES = 20
"""Of the log: the reason stands in the last few, and an error frame is no log file."""

CODES = {
    Cause.MODEL_MISSING: ErrorCode.INVALID_REQUEST,
    Cause.MODEL_CORRUPT: ErrorCode.INVALID_REQUEST,
    Cause.MODEL_UNSUPPORTED: ErrorCode.INVALID_REQUEST,
    Cause.PROJECTOR_UNUSABLE: ErrorCode.INVALID_REQUEST,
    Cause.ADAPTER_UNUSABLE: ErrorCode.INVALID_REQUEST,
    Cause.BAD_OPTION: ErrorCode.INVALID_REQUEST,
    Cause.ADDRESS_UNUSABLE: ErrorCode.CONFLICT,
    Cause.NOT_READY: ErrorCode.TIMEOUT,
    Cause.SERVICE_LACKS_MODEL: ErrorCode.INVALID_REQUEST,
}
"""The caller's own choice was at fault, or waiting was in vain; anything else is the backend's."""


def start_failure(
    name: str, why: Failure, *, exit_code: int | None = None, lines: Sequence[str] = ()
) -> RequestError:
    """The error for a runtime `name` that failed by `why`; negative exit codes are signals."""
    details: JsonObject = {"cause": why.cause.value}
    if exit_code is not None:
        details["exit_code"] = exit_code
    if lines:
        details["log"] = list(lines[-SHOWN_LINES:])
    code = CODES.get(why.cause, ErrorCode.BACKEND_UNAVAILABLE)
    attached = why.cause in (Cause.SERVICE_UNAVAILABLE, Cause.SERVICE_LACKS_MODEL)
    failed = "cannot be attached to" if attached else "did not start"
    return RequestError(code, f"{name} {failed}: {why.reason}", details=details)
