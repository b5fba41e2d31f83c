"""A thread's lease is given back as well: late grants, Ctrl-C, a dead daemon; and never slowly."""

import threading
import time

import pytest

from inferd_client import LeaseLost, blocking_lease, blocking_link
from inferd_client.blocking import Client
from inferd_proto import Result
from tests.clients.lease_records import ENSURED
from tests.clients.lease_script import first_times, ops, vanish, when
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

SLOW_S = 60.0
"""Well below the client's `wait_s` here, well above what a busy machine needs."""


def until_asked(daemon: ScriptedDaemon, op: str, times: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while ops(daemon).count(op) < times:
        assert time.monotonic() < deadline, ops(daemon)
        time.sleep(0.005)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release waits as long as it does outside of tests."""
    monkeypatch.setattr(blocking_lease, "RELEASE_TIMEOUT_S", 2.0)


class LateGrant:
    """The answer to `lease.ensure` comes on cue, long after the client gave up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blocking_link, "END_TIMEOUT_S", 0.05)
        self.cue, self.sent = threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> None:
        assert asked.cancelled.wait(PATIENCE_S)
        assert self.cue.wait(PATIENCE_S)
        asked.send(Result(asked.id, ENSURED))
        self.sent.set()


@pytest.mark.parametrize("then", ["another request", "closing the client"])
def test_a_grant_that_comes_long_after_the_timeout_is_given_back(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    late = LateGrant(monkeypatch)
    daemon.script = when("lease.ensure", late)
    with Client(daemon.path, timeout_s=0.05) as client:
        with pytest.raises(TimeoutError):
            client.ensure("qwen3", ttl=3600)
        until_asked(daemon, "lease.ensure", 1)
        assert ops(daemon) == ["lease.ensure"]
        late.cue.set()
        assert late.sent.wait(PATIENCE_S)
        if then == "another request":
            client.call("echo", wait_ms=60_000)  # on top of the client's own timeout
            until_asked(daemon, "lease.release", 1)
    until_asked(daemon, "lease.release", 1)


def test_a_lease_outlives_the_connection_and_is_given_back_on_another(
    daemon: ScriptedDaemon,
) -> None:
    daemon.script = when("lease.release", first_times(1, Asked.hang_up))
    with Client(daemon.path) as client:
        with client.lease("qwen3", ttl=3600):
            pass
        assert ops(daemon) == ["lease.ensure", "lease.release", "lease.release"]
    assert daemon.clean_ends.acquire(timeout=PATIENCE_S)
    assert daemon.clean_ends.acquire(timeout=PATIENCE_S)


@pytest.mark.usefixtures("hasty")
def test_a_daemon_that_is_gone_is_waited_for_a_moment_alone(daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.release", vanish(daemon))
    start = time.monotonic()
    with Client(daemon.path, wait_s=600) as client, client.lease("qwen3", ttl=3600):
        pass
    assert 1.9 < time.monotonic() - start < SLOW_S


@pytest.mark.usefixtures("hasty")
def test_the_loss_is_known_when_the_time_is_up_however_patient_the_client(
    daemon: ScriptedDaemon,
) -> None:
    daemon.script = when("lease.renew", vanish(daemon))
    start = time.monotonic()

    def hold_until_lost(client: Client) -> None:
        with client.lease("qwen3", ttl=0.9) as lease:
            while lease.lost is None:
                assert time.monotonic() - start < SLOW_S
                time.sleep(0.01)

    with Client(daemon.path, wait_s=600) as client, pytest.raises(LeaseLost):
        hold_until_lost(client)
    assert time.monotonic() - start > 0.8


@pytest.mark.usefixtures("often", "hasty")
def test_leaving_does_not_wait_for_a_daemon_that_stays_away(daemon: ScriptedDaemon) -> None:
    """The block ends while the lease's thread looks for the daemon."""
    daemon.script = when("lease.renew", vanish(daemon))
    with Client(daemon.path, wait_s=600) as client:
        with client.lease("qwen3", ttl=60):
            until_asked(daemon, "lease.renew", 1)
            time.sleep(0.7)  # a second renewal is tried half a second after the first one failed
            start = time.monotonic()
        assert time.monotonic() - start < SLOW_S
