"""An error in one line: its words, its code, and what to do in terms of this command line."""

import pytest

from inferd_client import ErrorCode
from inferd_client.ctl.failure import in_one_line
from inferd_client.errors import request_failed
from tests.clients.lease_records import PLAN


@pytest.mark.parametrize(
    ("code", "message", "details", "line"),
    [
        (
            ErrorCode.CONFLICT,
            "qwen3 is in use: 1 lease holds it; release it, or use `force`",
            {"leases": 1},
            "qwen3 is in use: 1 lease holds it; release it, or use --force (conflict)",
        ),
        (
            ErrorCode.CONFLICT,
            "release the leases on qwen3, or wait with `wait_ms`",
            {"plan": PLAN},
            "release the leases on qwen3, or wait with --wait-room (conflict);"
            " `inferdctl ps` shows what runs",
        ),
        (
            ErrorCode.NOT_FOUND,
            "no route `force`.",
            None,
            "no route `force` (not_found)",
        ),
    ],
)
def test_advice_names_the_options_of_the_command_line(
    code: ErrorCode, message: str, details: dict[str, object] | None, line: str
) -> None:
    assert in_one_line(request_failed(code, message, details)) == line
