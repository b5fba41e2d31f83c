"""`client.lease` for threads: the thread that renews, a loss without a cancellation, Ctrl-C."""

import threading
import time

import pytest

from inferd_client import ClientClosed, ConnectionLost, ErrorCode, LeaseLost, NoRoom
from inferd_client.blocking import Client, HeldLease
from inferd_proto import Error
from tests.clients.lease_records import PLAN
from tests.clients.lease_script import arguments, first_times, grant_late, never, ops, refuse, when
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

GONE = refuse(ErrorCode.NOT_FOUND, "there is no lease; ensure again")
TTL_S = 60.0
"""Renewed `often`: every 300 ms."""


def until_asked(daemon: ScriptedDaemon, op: str, times: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while ops(daemon).count(op) < times:
        assert time.monotonic() < deadline, ops(daemon)
        time.sleep(0.005)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("renew ")]


def wait_lost(lease: HeldLease) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while lease.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)


def hold_until_lost(client: Client, error: Exception | None = None, ttl: float = TTL_S) -> None:
    with client.lease("qwen3", ttl=ttl) as lease:
        wait_lost(lease)
        with pytest.raises(LeaseLost):
            lease.check()
        if error is not None:
            raise error


@pytest.mark.usefixtures("often")
def test_it_is_held_renewed_and_given_back(daemon: ScriptedDaemon) -> None:
    with Client(daemon.path, label="me") as client:
        with client.lease("qwen3", ttl=TTL_S) as lease:
            assert threads() == ["renew lease-abc"]
            assert (lease.ref, lease.endpoint.model_identity) == ("lease-abc", "qwen3-8b")
            until_asked(daemon, "lease.renew", 3)
            lease.check()
            assert client.generate("x").text() == "Hello from inferd."
        assert threads() == []
        assert ops(daemon)[-1] == "lease.release"
        assert client.status().pid == 4242
    asked = arguments(daemon, "lease.ensure")
    assert asked == {"target": "qwen3", "owner_ref": "me", "ttl_ms": 60_000}


@pytest.mark.usefixtures("often")
def test_a_loss_is_told_where_the_block_looks_and_at_its_end(daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.renew", GONE)
    with Client(daemon.path) as client:
        with pytest.raises(LeaseLost, match="there is no lease") as lost:
            hold_until_lost(client)
        assert lost.value.lease_ref == "lease-abc"
        with pytest.raises(KeyError, match="mine") as caught:
            hold_until_lost(client, KeyError("mine"))
        assert "is lost: there is no lease" in caught.value.__notes__[0]
    assert threads() == []


@pytest.mark.usefixtures("often")
def test_a_daemon_that_comes_back_is_found_again(daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.renew", first_times(1, lambda asked: asked.hang_up()))
    with Client(daemon.path) as client:
        with client.lease("qwen3", ttl=TTL_S) as lease:
            until_asked(daemon, "lease.renew", 3)
            lease.check()
            with pytest.raises(ConnectionLost):
                client.status()
        assert ops(daemon)[-1] == "lease.release"


def test_a_daemon_that_hangs_is_a_loss_when_the_time_is_up(daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.renew", never)
    with Client(daemon.path) as client, pytest.raises(LeaseLost):
        hold_until_lost(client, ttl=0.9)


@pytest.mark.usefixtures("often")
def test_a_client_that_was_closed_renews_no_more(daemon: ScriptedDaemon) -> None:
    def close_inside(client: Client) -> None:
        with client.lease("qwen3", ttl=TTL_S) as lease:
            client.close()
            wait_lost(lease)

    with Client(daemon.path) as client, pytest.raises(LeaseLost, match="the client is closed"):
        close_inside(client)
    assert ops(daemon) == ["lease.ensure", "lease.release"]  # the latter on a connection of its own


def test_leaving_at_once_does_not_wait_for_the_next_renewal(daemon: ScriptedDaemon) -> None:
    with Client(daemon.path) as client:
        start = time.monotonic()
        with client.lease("qwen3", ttl=3600):
            pass
        assert time.monotonic() - start < 60


def test_a_grant_that_crosses_the_cancel_is_given_back(daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.ensure", grant_late)
    with Client(daemon.path, timeout_s=0.1) as client:
        with pytest.raises(TimeoutError), client.lease("qwen3"):
            raise AssertionError("it was not granted")
        assert ops(daemon) == ["lease.ensure", "lease.release"]
    assert threads() == []


def test_waiting_for_room_is_not_silence(daemon: ScriptedDaemon) -> None:
    """`wait_s` comes on top of the client's own timeout."""

    def refuse_late(asked: Asked) -> None:
        time.sleep(0.3)
        asked.send(Error(asked.id, ErrorCode.CONFLICT, "no room", {"plan": PLAN}))

    daemon.script = when("lease.ensure", refuse_late)
    with Client(daemon.path, timeout_s=0.1) as client:
        for ask in (client.lease("q", wait_s=60).__enter__, lambda: client.ensure("q", wait_s=60)):
            with pytest.raises(NoRoom) as caught:
                ask()
            assert caught.value.plan.missing_bytes == 2 * 2**30


def test_a_lease_is_entered_once(daemon: ScriptedDaemon) -> None:
    with Client(daemon.path) as client:
        lease = client.lease("qwen3")
        with pytest.raises(ClientClosed, match="not held"):
            _ = lease.endpoint
        with lease, pytest.raises(ClientClosed, match="entered once"):
            lease.__enter__()
