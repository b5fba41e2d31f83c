"""Every code has a status, and every error OpenAI's shape."""

import json

import msgspec
import pytest

from inferd_daemon.errors import (
    AnswerTooLong,
    BackendFault,
    BackendSilence,
    CallerFault,
    MachineFault,
    RequestError,
    UpstreamFault,
)
from inferd_daemon.fronts.http.errors import (
    STATUSES,
    openai_error,
    plain_answer,
    retry_after_s,
)
from inferd_proto import ErrorCode


def test_every_code_has_a_status() -> None:
    assert set(STATUSES) == set(ErrorCode)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (CallerFault("no"), 400, "invalid_request_error"),
        (BackendFault("down"), 503, "server_error"),
        (MachineFault("no thread"), 503, "server_error"),
        (UpstreamFault("broke off"), 502, "server_error"),
        (BackendSilence("began no answer"), 504, "timeout_error"),
        (AnswerTooLong("took too long"), 504, "timeout_error"),
        (BackendFault("slow", ErrorCode.TIMEOUT), 504, "timeout_error"),
        (RequestError(ErrorCode.NOT_FOUND, "where?"), 404, "not_found_error"),
        (RequestError(ErrorCode.PERMISSION_DENIED, "no"), 403, "permission_error"),
        (RequestError(ErrorCode.INTERNAL, "oops"), 500, "server_error"),
    ],
)
def test_shape(error: RequestError, status: int, kind: str) -> None:
    answer = openai_error(error, param="model")
    assert answer.status_code == status
    assert json.loads(bytes(answer.body))["error"] == {
        "message": error.message,
        "type": kind,
        "param": "model",
        "code": error.code.value,
    }
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("estimate_ms", "seconds"),
    [(None, 1), (0, 1), (1, 1), (1001, 2), (86_400_000, 600), ("soon", 1)],
)
def test_when_to_come_again(estimate_ms: object, seconds: int) -> None:
    details = {"position": 3, "estimate_ms": estimate_ms}
    error = RequestError(ErrorCode.QUEUE_FULL, "full", details=details)
    assert openai_error(error).headers["retry-after"] == str(seconds)
    assert retry_after_s(None) == 1


def test_an_answer_without_a_request() -> None:
    assert b'"code":"invalid_request"' in plain_answer(400, "gibberish")
    head, _, body = plain_answer(431, "too large").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert f"content-length: {len(body)}".encode() in head
    error = msgspec.json.decode(body)["error"]
    assert (error["message"], error["code"]) == ("too large", "headers_too_large")
