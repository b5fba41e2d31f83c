"""What an upstream says when it refuses or breaks: our error, by who is to blame.

Pure. Passes on the upstream's own message, cut and without secrets.
"""

import re
from typing import NamedTuple

import msgspec
from msgspec import Struct

from inferd_proto import ErrorCode, JsonObject

from ...errors import BackendFault, CallerFault, KeyRefused, RequestError, UpstreamFault
from .chunks import ErrorDetail
from .redaction import Redactor

MAX_ERROR_BODY_BYTES = 4096
MAX_MESSAGE_CHARS = 1024
"""What of a message goes on to the client: it is one sentence on a frame."""
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_TOO_MANY = 429
_UNAVAILABLE = 503
_SECONDS = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")
_ABSENT_STATUSES = frozenset((404, 405, 501))
"""Said where there is no such endpoint; some are said of a model, too."""
_NO_MODEL = re.compile(
    r"(?i)\bmodel\b.{0,200}?\b(?:not found|(?:not|n't) exist|not available|unknown)"
    r"|\b(?:no such|unknown|invalid|no) model\b"
)
_NO_ENDPOINT = re.compile(r"(?i)\bunexpected endpoint\b")
"""LM Studio's words for an endpoint that is not there, with status 200."""
_CALLER_STATUSES = frozenset((400, 413, 414, 422))
"""Another upstream of the same kind would refuse the request as well."""
_OPERATOR_MARKS = frozenset(
    ("model_not_found", "invalid_api_key", "authentication_error", "insufficient_quota")
)
"""Said with a 400 by some servers, though the configuration is at fault, not the request."""
_CONTEXT_MARKS = frozenset(("context_length_exceeded", "exceed_context_size_error"))
"""OpenAI's word and llama-server's for a prompt that is longer than the model's context."""
CONTEXT_EXCEEDED = "context_length_exceeded"
"""The `reason` in the error's details: agents shorten what they send when they see it."""
_CALLER_MARKS = frozenset(("invalid_request_error", "BadRequestError"))
"""Of the request's own mistakes, where no status tells: some say them in a 200 or a 500."""
_MEDIA_REFUSED = re.compile(r"\b(image|audio|video) input is not supported")
"""llama-server's words, with status 500, for a model without a projector."""
_INPUT_TOO_LONG = re.compile(r"\binput \(\d+ tokens\) is (too large to process|larger than)")
"""Its words, also with 500, for a text to embed or rank that is longer than its batch."""
_HTML = re.compile(r"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)
_TAGS = re.compile(r"(?is)<(script|style)\b.*?(</\1>|\Z)|<[^>]*(>|\Z)")
_WORDS = re.compile(rb'"(?:message|msg|detail|error)"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
"""Where an object that was cut says what is wrong; the rest of it may be the prompt."""
_HALF_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?\Z")


class _Invalid(Struct):
    """One mistake as FastAPI lists it; its `input`, which may be the prompt, is left out."""

    msg: str = ""
    loc: list[str | int] = []


class _ErrorBody(Struct):
    """The shapes in which servers put their message."""

    error: ErrorDetail | str | None = None
    message: str | None = None
    detail: str | list[_Invalid] | None = None


_decode = msgspec.json.Decoder(_ErrorBody).decode


class Reason(NamedTuple):
    """What an upstream said: its sentence, the marks that tell kinds of errors apart, and the
    status that stands with them.
    """

    message: str
    marks: frozenset[str]
    status: int | None = None


def refusal(
    status: int,
    body: bytes,
    redact: Redactor,
    retry_after: str = "",
    missing: RequestError | None = None,
) -> RequestError:
    """The error for an answer that is not 200; `body` may be cut anywhere. `retry_after` is the
    header's value. `missing` is the error where the upstream says that it has no such endpoint.
    """
    if 300 <= status < 400:
        return UpstreamFault(
            f"upstream answered {status}, a redirect; set base_url to where it leads"
        )
    reason = _read_reason(body, redact)
    if missing is not None and status in _ABSENT_STATUSES and not _lacks_model(reason):
        return missing
    message = f"upstream answered {status}"
    if status == _UNAUTHORIZED:
        message += ", it does not accept the api_key"
    if reason.message:
        message += f": {reason.message}"
    return _blame(status, message, reason, retry_after)


def whole_answer_failure(content_type: str, body: bytes, redact: Redactor) -> RequestError:
    """The error for a 200 that is no stream: a page, or an object that may hold an error."""
    reason = _read_reason(body, redact) if content_type == "application/json" else None
    if reason is not None and reason.message:
        return _told(reason)
    return UpstreamFault(
        f"upstream answered 200 with {content_type or 'something'!r} instead of a stream of "
        "events; check base_url"
    )


def told_failure(body: bytes, redact: Redactor, missing: RequestError) -> RequestError | None:
    """The error that a body of status 200 holds instead of an answer, if it holds one; `missing` as
    in `refusal`.
    """
    head = body[: MAX_ERROR_BODY_BYTES + redact.longest]
    if not head.lstrip().startswith(b"{"):
        return None
    reason = _read_reason(head, redact)
    if _NO_ENDPOINT.search(reason.message):
        return missing
    return _told(reason) if reason.message else None


def stream_failure(error: ErrorDetail | str, redact: Redactor) -> RequestError:
    """The error that came in the middle of a stream."""
    return _told(_from_detail(error, redact))


def said(body: bytes) -> str:
    """What the head of an upstream's answer says of its error, on one line; "" for nothing."""
    return _read_reason(body, Redactor(())).message


def _told(reason: Reason) -> RequestError:
    """The error where no status tells."""
    words = f"upstream failed: {reason.message or 'it does not say why'}"
    return _blame(reason.status or 500, words, reason)


def _blame(status: int, message: str, reason: Reason, retry_after: str = "") -> RequestError:
    if reason.marks & _CONTEXT_MARKS:
        words = f"the prompt is too long for the model: {reason.message}"
        return CallerFault(words, details={"reason": CONTEXT_EXCEEDED})
    if _MEDIA_REFUSED.search(reason.message):
        return CallerFault(message, ErrorCode.ATTACHMENT_UNSUPPORTED)
    if _INPUT_TOO_LONG.search(reason.message):
        return CallerFault(message)
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return KeyRefused(message)
    if reason.marks & _OPERATOR_MARKS:
        return UpstreamFault(message)
    if status in _CALLER_STATUSES or (status == 500 and reason.marks & _CALLER_MARKS):
        return CallerFault(message)
    if status == _TOO_MANY:  # it works, and has no room: what a client would be told by itself
        return RequestError(ErrorCode.QUEUE_FULL, message, details=_estimate(retry_after))
    if status == _UNAVAILABLE:
        return BackendFault(message, details=_estimate(retry_after))
    return UpstreamFault(message)


def _lacks_model(reason: Reason) -> bool:
    """Whether what is not there is the model, not the endpoint."""
    return "model_not_found" in reason.marks or _NO_MODEL.search(reason.message) is not None


def _estimate(retry_after: str) -> JsonObject | None:
    """Whole or broken seconds; not the date that a proxy of long ago would give."""
    if not _SECONDS.fullmatch(retry_after):
        return None
    return {"estimate_ms": round(float(retry_after) * 1000)}


def _read_reason(body: bytes, redact: Redactor) -> Reason:
    try:
        parsed = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        text = _salvage(body) if body.lstrip().startswith((b"{", b"[")) else _plain_text(body)
        return Reason(one_line(text, redact), frozenset())
    if parsed.error is not None:
        return _from_detail(parsed.error, redact)
    if isinstance(parsed.detail, list):
        mistakes = [f"{'.'.join(map(str, item.loc))}: {item.msg}" for item in parsed.detail]
        return Reason(one_line("; ".join(mistakes), redact), frozenset())
    return Reason(one_line(parsed.message or parsed.detail or "", redact), frozenset())


def _from_detail(error: ErrorDetail | str, redact: Redactor) -> Reason:
    if isinstance(error, str):
        return Reason(one_line(error, redact), frozenset())
    marks = frozenset(str(mark) for mark in (error.type, error.code) if mark is not None)
    status = error.code if isinstance(error.code, int) else None
    return Reason(one_line(error.message or "", redact), marks, status)


def _salvage(body: bytes) -> str:
    """The first words of an object that is not whole; "" where they are not in it."""
    found = _WORDS.search(body)
    if found is None:
        return ""
    words = _HALF_ESCAPE.sub(b"", found[1])
    try:
        return msgspec.json.decode(b'"' + words + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return words.decode("utf-8", "replace")


def _plain_text(body: bytes) -> str:
    """A body that is no JSON: text as it is, of HTML what stands outside of tags."""
    text = body.decode("utf-8", "replace")
    return _TAGS.sub(" ", text) if _HTML.match(text) else text


def one_line(text: str, redact: Redactor) -> str:
    """`text` on one line, printable, without secrets.

    Redacted before it is cut, for a cut hides a secret, and after it is joined, for a line end does
    as well.
    """
    text = text[: MAX_ERROR_BODY_BYTES + redact.longest]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = redact(text)[:MAX_ERROR_BODY_BYTES].strip()
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"
