"""What a failed request is told, in the shape that its client knows: OpenAI's or Anthropic's.

Pure. Before the answer has begun it is a status and a body, after that one last event. Which shape
it is shows in the path, below a lease as elsewhere.
"""

import re
from typing import Protocol

import msgspec
from starlette.responses import Response

from inferd_proto import ErrorCode, JsonObject

from ....backends.chat_completions.failures import CONTEXT_EXCEEDED
from ....errors import RequestError
from ..errors import error_object, http_status, openai_error, refusal, retry_headers

_FIELD = re.compile(r"`([a-z_]+(?:[.\[][\w.\[\]]*)?)`: ")
"""How messages begin that blame a field."""
_LEASE = re.compile(r"/leases/[^/]*(?=/)")
_MESSAGES_PATH = "/v1/messages"
_RESPONSES_PATH = "/v1/responses"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class UnknownModel(RequestError):
    """No route has the name that the request gives."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.NOT_FOUND, message)


class ErrorShape(Protocol):
    """How one family of clients is told."""

    def response(
        self, error: RequestError, *, status: int | None = None, code: str | None = None
    ) -> Response:
        """The whole answer; `status` and `code` where the error's own say too little."""

    def refusal(self, status: int, message: str, code: str | None) -> Response:
        """The whole answer where HTTP itself is wrong, or nobody is let in."""

    def event(self, error: RequestError) -> bytes:
        """The last event of a stream that has begun."""


class OpenAIShape:
    """`{"error": {"message", "type", "param", "code"}}`."""

    _prompt = "messages"

    def response(
        self, error: RequestError, *, status: int | None = None, code: str | None = None
    ) -> Response:
        """See ErrorShape."""
        code = code or _code_of(error)
        return openai_error(error, status=status, param=self._param_of(error), code=code)

    def refusal(self, status: int, message: str, code: str | None) -> Response:
        """See ErrorShape."""
        return _json(refusal(status, message, code), status)

    def event(self, error: RequestError) -> bytes:
        """See ErrorShape."""
        return b"data: %b\n\n" % msgspec.json.encode(self._object(error))

    def _object(self, error: RequestError) -> JsonObject:
        return error_object(error, param=self._param_of(error), code=_code_of(error))

    def _param_of(self, error: RequestError) -> str | None:
        return self._prompt if _is_too_long(error) else param_of(error)


class ResponsesShape(OpenAIShape):
    """As OpenAI's; in a stream also as the event that Responses have for it."""

    _prompt = "input"

    def event(self, error: RequestError) -> bytes:
        """SDKs raise at `error`, others know the event by its name and its type."""
        value = self._object(error)
        detail = value["error"]
        assert isinstance(detail, dict)
        named = {name: detail[name] for name in ("code", "message", "param")}
        event = {"type": "error", **named, **value}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)


class AnthropicShape:
    """`{"type": "error", "error": {"type", "message"}}`."""

    def response(
        self,
        error: RequestError,
        *,
        status: int | None = None,
        code: str | None = None,
    ) -> Response:
        """See ErrorShape."""
        status = http_status(error) if status is None else status
        answer = _json(_anthropic_object(status, error.message), status)
        answer.headers.update(retry_headers(error))
        return answer

    def refusal(self, status: int, message: str, code: str | None) -> Response:
        """See ErrorShape."""
        return _json(_anthropic_object(status, message), status)

    def event(self, error: RequestError) -> bytes:
        """See ErrorShape."""
        value = _anthropic_object(http_status(error), error.message)
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(value)


OPENAI = OpenAIShape()
RESPONSES = ResponsesShape()
ANTHROPIC = AnthropicShape()


def shape_of(path: str) -> ErrorShape:
    """That of the clients who ask at `path`, whether or not it is below a lease."""
    lease = _LEASE.match(path)
    api = path[lease.end() :] if lease else path
    if api.startswith(_MESSAGES_PATH):
        return ANTHROPIC
    return RESPONSES if api.startswith(_RESPONSES_PATH) else OPENAI


def param_of(error: RequestError) -> str | None:
    """The field of the body that the error blames; None where it blames none."""
    if isinstance(error, UnknownModel):
        return "model"
    field = _FIELD.match(error.message)
    return field[1] if field else None


def _code_of(error: RequestError) -> str | None:
    if _is_too_long(error):
        return CONTEXT_EXCEEDED
    return "model_not_found" if isinstance(error, UnknownModel) else None


def _is_too_long(error: RequestError) -> bool:
    return error.details is not None and error.details.get("reason") == CONTEXT_EXCEEDED


def _anthropic_object(status: int, message: str) -> JsonObject:
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _json(value: JsonObject, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
