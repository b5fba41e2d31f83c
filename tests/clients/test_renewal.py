"""When a lease is renewed, retried and given up: a table of times, no clock."""

import msgspec
import pytest

from inferd_client import (
    AnswerTimeout,
    ClientClosed,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    ErrorCode,
    InferdError,
    Lease,
    NotFound,
    PermissionDenied,
)
from inferd_client.renewal import PATIENCE_S, Renewal
from tests.clients.lease_records import LEASE


def lease(**fields: object) -> Lease:
    return msgspec.convert(LEASE | fields, Lease)


def test_a_third_of_the_time_is_waited_for() -> None:
    renewal = Renewal(lease(ttl_ms=60_000, left_ms=60_000), 100.0)
    assert (renewal.next_at, renewal.expires_at) == (120.0, 160.0)
    assert renewal.request() == ("lease.renew", {"lease_ref": "lease-abc", "ttl_ms": 60_000})
    renewal.succeeded(120.0)
    assert (renewal.next_at, renewal.expires_at) == (140.0, 180.0)


def test_what_is_left_counts_and_not_what_was_asked() -> None:
    renewal = Renewal(lease(ttl_ms=60_000, left_ms=3_000), 100.0)
    assert (renewal.next_at, renewal.expires_at) == (101.0, 103.0)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("gone"),
        DaemonNotRunning("gone", "/s"),
        AnswerTimeout("slow"),
        DaemonBusy(ErrorCode.QUEUE_FULL, "busy"),
    ],
)
def test_what_may_pass_is_tried_again_until_the_time_is_up(error: InferdError) -> None:
    renewal = Renewal(lease(ttl_ms=3_000, left_ms=3_000), 0.0)
    now, tries = renewal.next_at, 0
    while (lost := renewal.failed(error, now)) is None:
        assert now < renewal.next_at <= renewal.expires_at
        now, tries = renewal.next_at, tries + 1
    assert (now, tries) == (3.0, 4)
    assert str(error) in str(lost)
    assert renewal.expired(2.999) is None
    expired = renewal.expired(3.0)
    assert expired is not None
    assert "could not be renewed" in str(expired)


@pytest.mark.parametrize(
    "error",
    [
        NotFound(ErrorCode.NOT_FOUND, "there is no lease"),
        PermissionDenied(ErrorCode.PERMISSION_DENIED, "not yours"),
        ClientClosed("the client is closed"),
    ],
)
def test_what_the_daemon_or_this_program_decided_is_final(error: InferdError) -> None:
    lost = Renewal(lease(), 0.0).failed(error, 20.0)
    assert lost is not None
    assert lost.lease_ref == "lease-abc"
    assert str(error) in str(lost)


def test_a_lease_that_is_not_renewable_is_looked_at_and_ends() -> None:
    renewal = Renewal(lease(renewable=False, ttl_ms=20_000, left_ms=20_000), 0.0)
    assert renewal.request() == ("lease.get", {"lease_ref": "lease-abc"})
    assert (renewal.next_at, renewal.expires_at) == (15.0, 20.0)
    renewal.succeeded(15.0)
    assert (renewal.next_at, renewal.expires_at) == (20.0, 20.0)
    lost = renewal.expired(20.0)
    assert lost is not None
    assert "not renewable" in str(lost)


def test_a_lease_without_a_time_lives_and_dies_with_its_connection() -> None:
    renewal = Renewal(lease(ttl_ms=None, left_ms=None), 0.0)
    assert renewal.request()[0] == "lease.get"
    assert (renewal.next_at, renewal.expired(1e9)) == (15.0, None)
    assert renewal.failed(DaemonBusy(ErrorCode.QUEUE_FULL, "busy"), 15.0) is None
    assert renewal.failed(ConnectionLost("gone"), 16.0) is not None


def test_one_attempt_may_not_use_up_the_time() -> None:
    renewal = Renewal(lease(ttl_ms=60_000, left_ms=60_000), 0.0)
    assert renewal.patience_s(20.0) == PATIENCE_S
    assert renewal.patience_s(58.0) == 2.0
    assert renewal.patience_s(99.0) == 0.0
