"""What a failed request is told: a status and a body, or the last event of a stream."""

import json
from typing import Any

import pytest

from inferd_daemon.errors import BackendFault, CallerFault, RequestError, UpstreamFault
from inferd_daemon.fronts.http.openai.failures import (
    ANTHROPIC,
    OPENAI,
    RESPONSES,
    ErrorShape,
    UnknownModel,
    param_of,
    shape_of,
)
from inferd_daemon.fronts.http.openai.json_body import FieldFault
from inferd_proto import ErrorCode

FULL = RequestError(ErrorCode.QUEUE_FULL, "the queue is full", details={"estimate_ms": 2500})


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (FieldFault("messages[0].content", "must not be empty"), "messages[0].content"),
        (FieldFault(None, "the body is empty"), None),
        (UnknownModel("no route 'x'"), "model"),
        (CallerFault("`tools`: this backend takes no tools"), "tools"),
        (CallerFault("`messages[2].content[1]`: takes only text"), "messages[2].content[1]"),
        (CallerFault("route r: b cannot enforce `tool_choice`"), None),
        (BackendFault("upstream answered 500: `x`"), None),
    ],
)
def test_the_field_at_fault(error: RequestError, param: str | None) -> None:
    """Whoever found it: the message begins with it."""
    assert param_of(error) == param
    assert json.loads(bytes(OPENAI.response(error).body))["error"]["param"] == param


@pytest.mark.parametrize("shape", [OPENAI, RESPONSES, ANTHROPIC])
def test_when_to_come_back(shape: ErrorShape) -> None:
    """As the queue estimates it, in whole seconds."""
    response = shape.response(FULL)
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    opening = shape.response(BackendFault("opens again", details={"estimate_ms": 29_900}))
    assert (opening.status_code, opening.headers["retry-after"]) == (503, "30")
    other = shape.response(BackendFault("gone"))
    assert other.status_code == 503
    assert "retry-after" not in other.headers


@pytest.mark.parametrize(
    ("shape", "param"), [(OPENAI, "messages"), (RESPONSES, "input"), (ANTHROPIC, None)]
)
def test_a_prompt_that_is_too_long(shape: ErrorShape, param: str | None) -> None:
    """By the code that agents look for."""
    error = CallerFault("too long", details={"reason": "context_length_exceeded"})
    answer = shape.response(error)
    told = json.loads(bytes(answer.body))["error"]
    assert answer.status_code == 400
    assert told["type"] == "invalid_request_error"
    if param is not None:
        assert (told["code"], told["param"]) == ("context_length_exceeded", param)
        assert event(shape.event(error))[1]["error"] == told


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (CallerFault("x"), 400, "invalid_request_error"),
        (RequestError(ErrorCode.PERMISSION_DENIED, "x"), 403, "permission_error"),
        (UnknownModel("x"), 404, "not_found_error"),
        (CallerFault("x", ErrorCode.FRAME_TOO_LARGE), 413, "request_too_large"),
        (FULL, 429, "rate_limit_error"),
        (RequestError(ErrorCode.INTERNAL, "x"), 500, "api_error"),
        (RequestError(ErrorCode.TOOL_CALL_MALFORMED, "x"), 502, "api_error"),
        (BackendFault("x"), 503, "overloaded_error"),
        (UpstreamFault("x"), 502, "api_error"),
        (BackendFault("x", ErrorCode.TIMEOUT), 504, "timeout_error"),
    ],
)
def test_anthropics_types(error: RequestError, status: int, kind: str) -> None:
    """Its SDK tells errors apart by them."""
    response = ANTHROPIC.response(error)
    assert response.status_code == status
    assert json.loads(bytes(response.body)) == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
    }


@pytest.mark.parametrize("lease", ["", "/leases/lease-1", "/leases/run-%2F", "/leases/"])
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", ANTHROPIC),
        ("/v1/messages/count_tokens", ANTHROPIC),
        ("/v1/responses", RESPONSES),
        ("/v1/chat/completions", OPENAI),
        ("/v1/leases/x/v1/messages", OPENAI),
        ("/health", OPENAI),
        ("", OPENAI),
    ],
)
def test_whose_clients_ask_there(lease: str, path: str, shape: ErrorShape) -> None:
    """Below a lease as elsewhere."""
    assert shape_of(lease + path) is shape


@pytest.mark.parametrize("shape", [OPENAI, RESPONSES, ANTHROPIC])
def test_who_is_not_let_in(shape: ErrorShape) -> None:
    """By the status that goes with it, whatever the code."""
    for answer in (
        shape.refusal(401, "no key", "invalid_api_key"),
        shape.response(CallerFault("no key"), status=401, code="invalid_api_key"),
    ):
        error = json.loads(bytes(answer.body))["error"]
        assert (answer.status_code, error["type"]) == (401, "authentication_error")
        assert error["message"] == "no key"
        assert error.get("code") == (None if shape is ANTHROPIC else "invalid_api_key")


def event(data: bytes) -> tuple[str, Any]:
    """The name of the only event in `data`, and its payload."""
    assert data.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in data.decode().splitlines() if line)
    return fields.get("event", ""), json.loads(fields["data"])


def test_the_last_event() -> None:
    """Whatever the message holds, it is one event."""
    error = BackendFault("upstream said:\n\ndata: [DONE]\n")
    name, value = event(OPENAI.event(error))
    assert (name, value["error"]["message"]) == ("", error.message)
    name, value = event(ANTHROPIC.event(error))
    assert (name, value["type"], value["error"]["type"]) == ("error", "error", "overloaded_error")
    name, value = event(RESPONSES.event(error))
    assert (name, value["type"], value["message"]) == ("error", "error", error.message)
    assert value["error"]["message"] == error.message
