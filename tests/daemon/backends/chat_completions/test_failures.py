"""Whose fault an upstream's refusal is, in its own words and without secrets."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.chat_completions import (
    Redactor,
    refusal,
    stream_failure,
    told_failure,
    whole_answer_failure,
)
from inferd_daemon.backends.chat_completions.chunks import ErrorDetail
from inferd_daemon.backends.chat_completions.failures import MAX_ERROR_BODY_BYTES, MAX_MESSAGE_CHARS
from inferd_daemon.errors import (
    BackendFault,
    CallerFault,
    KeyRefused,
    RequestError,
    UpstreamFault,
)
from inferd_proto import ErrorCode

KEY = "k3y-of-ours-0123456789"
REDACT = Redactor([KEY, ""])


def openai_error(message: str, **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


FASTAPI_MISTAKE = {"loc": ["body", "top_p"], "msg": "too large", "input": "the prompt"}

REFUSALS: dict[str, tuple[int, bytes, bool, str]] = {
    # what it is: status, body, whether the caller is to blame, what is said
    "no words": (413, b"", True, "413"),
    "longer than llama-server's batch": (
        500,
        openai_error("input (12000 tokens) is too large to process. increase the batch size"),
        True,
        "500: input (12000 tokens) is too large to process. increase the batch size",
    ),
    "FastAPI's list": (
        422,
        json.dumps({"detail": [FASTAPI_MISTAKE]}).encode(),
        True,
        "422: body.top_p: too large",
    ),
    "FastAPI's list, cut": (
        422,
        json.dumps({"detail": [FASTAPI_MISTAKE]}).encode()[:-5],
        True,
        "422: too large",
    ),
    "cut in its words": (
        400,
        openai_error('too l\nong, says "x"')[:-8],
        True,
        "400: too l ong, says",
    ),
    "cut in an escape": (400, b'{"error":{"message":"t\\u00fc too \\u00', True, "400: t\u00fc too"),
    "cut in a character": (400, b'{"message":"t\xc3', True, "400: t\ufffd"),
    "cut before its words": (400, b'{"input":"the prompt', True, "400"),
    "FastAPI's text": (422, b'{"detail":"no such field"}', True, "422: no such field"),
    "model": (400, openai_error("no model", code="model_not_found"), False, "400: no model"),
    "an access that is not given": (403, openai_error("No listing"), False, "403: No listing"),
    "key": (
        401,
        openai_error("Invalid API Key"),
        False,
        "401, it does not accept the api_key: Invalid API Key",
    ),
    "key, without a word": (401, b"", False, "401, it does not accept the api_key"),
    "plain error": (404, b'{"error":"no model x"}', False, "404: no model x"),
    "plain message": (418, b'{"message":"slow down"}', False, "418: slow down"),
    "page": (
        500,
        b"<html><title>Oh</title><style>p{}</style><p>It broke</html>",
        False,
        "500: Oh It broke",
    ),
    "bytes": (502, b"\x00bad\ngateway", False, "502: bad gateway"),
    "a mistake of the request with 500": (
        500,
        openai_error("bad schema", type="invalid_request_error"),
        True,
        "500: bad schema",
    ),
    "no key": (
        401,
        openai_error("You gave no key", type="invalid_request_error"),
        False,
        "401, it does not accept the api_key: You gave no key",
    ),
    "redirect": (302, b"", False, "302, a redirect; set base_url to where it leads"),
}


@pytest.mark.parametrize(("status", "body", "by_caller", "said"), REFUSALS.values(), ids=REFUSALS)
def test_blame(status: int, body: bytes, by_caller: bool, said: str) -> None:
    error = refusal(status, body, REDACT)
    blamed = KeyRefused if status in (401, 403) else UpstreamFault
    assert type(error) is (CallerFault if by_caller else blamed)
    assert error.message == f"upstream answered {said}"
    expected = ErrorCode.INVALID_REQUEST if by_caller else ErrorCode.BACKEND_UNAVAILABLE
    assert error.code == expected


@pytest.mark.parametrize(
    ("error", "by_caller"),
    [
        ({"code": 400}, True),
        ({"code": 500}, False),
        ({"code": None, "type": "BadRequestError"}, True),
        ({"code": "model_not_found", "type": "invalid_request_error"}, False),
        ({"code": "server_error"}, False),
        ({}, False),
    ],
)
def test_blame_where_no_status_tells(error: dict[str, object], by_caller: bool) -> None:
    """In a stream, or instead of one with status 200."""
    body = json.dumps({"error": {"message": "oh", **error}}).encode()
    detail = msgspec.convert({"message": "oh", **error}, ErrorDetail)
    for fault in (
        whole_answer_failure("application/json", body, REDACT),
        stream_failure(detail, REDACT),
    ):
        assert type(fault) is (CallerFault if by_caller else UpstreamFault)
        assert fault.message == "upstream failed: oh"


@pytest.mark.parametrize(
    "marks",
    [
        {"code": "context_length_exceeded", "type": "invalid_request_error"},
        {"code": 400, "type": "exceed_context_size_error"},
        {"type": "exceed_context_size_error"},
    ],
)
def test_a_prompt_that_is_too_long_can_be_told(marks: dict[str, object]) -> None:
    """Whatever it comes with: agents shorten what they send when they see it."""
    body = openai_error("request (9 tokens) exceeds", **marks)
    detail = msgspec.convert({"message": "request (9 tokens) exceeds", **marks}, ErrorDetail)
    for error in (
        refusal(400, body, REDACT),
        refusal(500, body, REDACT),
        whole_answer_failure("application/json", body, REDACT),
        stream_failure(detail, REDACT),
    ):
        assert isinstance(error, CallerFault)
        assert error.details == {"reason": "context_length_exceeded"}
        assert error.message == "the prompt is too long for the model: request (9 tokens) exceeds"


@pytest.mark.parametrize(
    ("said", "details"),
    [
        ("7", {"estimate_ms": 7000}),
        ("0.5", {"estimate_ms": 500}),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("99999999999", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_one_that_has_no_room_says_when_to_come_again(
    said: str, details: dict[str, object] | None
) -> None:
    """It works: nothing of that counts against it."""
    error = refusal(429, b'{"message":"slow down"}', REDACT, said)
    assert type(error) is RequestError
    assert (error.code, error.details) == (ErrorCode.QUEUE_FULL, details)
    assert error.message == "upstream answered 429: slow down"
    loading = refusal(503, openai_error("Loading model", code=503), REDACT, said)
    assert type(loading) is BackendFault
    assert loading.details == details
    assert stream_failure(ErrorDetail("slow down", None, 429), REDACT).code is ErrorCode.QUEUE_FULL


def test_media_that_the_model_cannot_take() -> None:
    error = refusal(500, openai_error("image input is not supported - hint: mmproj"), REDACT)
    assert isinstance(error, CallerFault)
    assert error.code is ErrorCode.ATTACHMENT_UNSUPPORTED


@pytest.mark.parametrize(
    "said",
    [
        f"wrong key {KEY}",
        f"wrong key Bearer {KEY}",
        "wrong key sk-abcdefghijklmnop",
        "header was Authorization: Bearer abc.def",
        f"wrong key {KEY[:9]}\n{KEY[9:]}",
    ],
)
def test_secrets_are_taken_out(said: str) -> None:
    message = refusal(401, openai_error(said), REDACT).message
    assert "***" in message
    assert KEY not in message
    assert KEY[9:] not in message
    assert "abc" not in message


MISSING = RequestError(ErrorCode.EMBED_UNSUPPORTED, "no such endpoint")


@pytest.mark.parametrize(
    ("status", "body", "is_missing"),
    [
        (404, b"", True),
        (404, b"<html><h1>Not Found</h1></html>", True),
        (404, b'{"detail":"Not Found"}', True),
        (404, openai_error("File Not Found", type="not_found_error", code=404), True),
        (405, b"", True),
        (501, openai_error("This server does not support embeddings", code=501), True),
        (404, openai_error("oh", code="model_not_found"), False),
        (404, openai_error('model "x" not found, try pulling it first'), False),
        (404, openai_error("The model `x` does not exist.", type="NotFoundError"), False),
        (404, b'{"error":"no such model"}', False),
        (400, b"", False),
        (500, b"", False),
    ],
)
def test_an_endpoint_that_is_missing_is_told_from_a_model(
    status: int, body: bytes, is_missing: bool
) -> None:
    error = refusal(status, body, REDACT, missing=MISSING)
    assert (error is MISSING) == is_missing
    assert refusal(status, body, REDACT) is not MISSING


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (openai_error("too long", code=400), "upstream failed: too long"),
        (b'{"error":"no room' + b" " * 9000, "upstream failed: no room"),
        (b'{"detail":"no room"}', "upstream failed: no room"),
        (openai_error("Unexpected endpoint or method. (POST /v1/rerank)"), "no such endpoint"),
        (b'{"data":[]}', None),
        (b"<html>no such model</html>", None),
        (b"[" * 5000, None),
        (b"", None),
    ],
)
def test_an_error_with_200_instead_of_an_answer(body: bytes, said: str | None) -> None:
    error = told_failure(body, REDACT, MISSING)
    assert (error and error.message) == said
    assert isinstance(error, CallerFault) == (said == "upstream failed: too long")


@given(st.integers(0, 30), st.integers(1, 400))
def test_no_cut_leaves_the_head_of_a_secret(before: int, copies: int) -> None:
    """Redacting shortens: what was cut off at the end of the body may come into the message."""
    body = b"y" * before + (KEY.encode() + b"-") * copies
    message = refusal(500, body[: MAX_ERROR_BODY_BYTES + REDACT.longest], REDACT).message
    assert KEY[:4] not in message


def test_long_messages_are_cut() -> None:
    message = refusal(500, b"word " * 2000, REDACT).message
    assert len(message) <= MAX_MESSAGE_CHARS + len("upstream answered 500: ")
    assert message.endswith("…")
