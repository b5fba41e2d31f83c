"""What went wrong as the caller's error: whose fault, what to do, and no secret."""

import pytest

from inferd_daemon.engines.agents.dialogue import Failed
from inferd_daemon.engines.agents.environment import secrets_of
from inferd_daemon.engines.agents.failures import conclusive, explain
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.errors import BackendFault, CallerFault, RequestError, UpstreamFault
from inferd_proto import ErrorCode


def explained(status: int | None, words: str = "so it says", local: bool = False) -> RequestError:
    return explain(
        Failed(words, status), PROFILES["claude"], "m1", local=local, secrets=["topsecret"]
    )


@pytest.mark.parametrize(
    ("status", "local", "code", "says"),
    [
        (401, False, ErrorCode.BACKEND_UNAVAILABLE, "set ANTHROPIC_API_KEY"),
        (401, True, ErrorCode.BACKEND_UNAVAILABLE, "refused the key of this run"),
        (404, False, ErrorCode.NOT_FOUND, "no model 'm1'; ask for one that it has"),
        (429, False, ErrorCode.QUEUE_FULL, "try later"),
        (500, False, ErrorCode.BACKEND_UNAVAILABLE, "answered 500"),
        (None, False, ErrorCode.BACKEND_UNAVAILABLE, "claude failed"),
    ],
)
def test_the_backends_faults(status: int | None, local: bool, code: ErrorCode, says: str) -> None:
    error = explained(status, local=local)
    assert isinstance(error, BackendFault) == (status != 429)
    assert isinstance(error, UpstreamFault) == (status in (500, None))
    assert error.code is code
    assert says in error.message
    assert "so it says" in error.message


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_callers_faults(status: int) -> None:
    assert isinstance(explained(status), CallerFault)


def test_no_secret_and_no_second_line() -> None:
    words = "bad key topsecret\nBearer abcdefghijklmn\x1b[31m " + "x" * 9000 + "topsec"
    message = explained(None, words).message
    assert "secret" not in message
    assert "abcdefghijklmn" not in message
    assert message.isprintable()
    assert len(message) < 450


def test_secrets_are_known_by_their_names() -> None:
    environment = {"A_KEY": "a", "ANTHROPIC_AUTH_TOKEN": "b", "https_proxy": "c", "LANG": "d"}
    assert sorted(secrets_of(environment)) == ["a", "b", "c"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, None])
def test_only_what_cost_nothing_is_to_be_repeated_unasked(status: int | None) -> None:
    error = explained(status)
    assert error.again
    assert conclusive(error) is error
    assert error.again == (status == 429)
