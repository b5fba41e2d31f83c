"""Leases on real llama-servers of a real daemon: shared, held, renewed, restored, refused."""

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inferd_daemon.supervision.leases.journal import LeaseEntry
from inferd_daemon.supervision.leases.journal_file import look_at_journal
from tests.support import models
from tests.support.changed_code import changed
from tests.support.daemon import RunningDaemon, environment, running_daemon, wait_until
from tests.support.lease_client import (
    ENDLESS_ROUTE,
    MODEL,
    Json,
    Refused,
    as_user,
    ask,
    boot,
    complete,
    completes_again,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
    server_environment,
    start_again,
    wait_runtime,
)
from tests.support.llama_server import llama_server_path
from tests.support.processes import is_alive
from tests.support.wire_client import WireClient, connected

NOBODY = 65534


@pytest.fixture
def server() -> Path:
    return llama_server_path()


@pytest.fixture
def daemon(server: Path) -> Iterator[RunningDaemon]:
    with leasing_daemon('[limits]\nidle_ttl = "0.3s"\n', server=server) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as connected_client:
        yield connected_client


@pytest.mark.parametrize("kind", ["real", "bundled"])
def test_a_lease_from_its_spec_to_its_end(kind: str) -> None:
    chosen = llama_server_path() if kind == "real" else ""
    with (
        leasing_daemon('[limits]\nidle_ttl = "0.3s"\n', server=chosen) as daemon,
        connected(daemon.socket) as client,
    ):
        ensured = ensure(client, boot(alias="m"), owner_ref="me", context={"boundary_ref": "b"})
        lease, endpoint = ensured["lease"], ensured["endpoint"]
        key = lease["instance_key"]
        assert ensured["compatibility"]["reason"] == "protocol_match"
        assert (lease["owner_ref"], lease["uid"]) == ("me", os.getuid())
        assert 30_000 < lease["left_ms"] <= 60_000
        assert endpoint["model_identity"] == "m"
        assert endpoint["lease_ref"] == lease["lease_ref"]
        assert endpoint["boundary_ref"] == "b"
        assert stat.S_IMODE(os.stat(endpoint["uds"]).st_mode) == 0o600
        assert complete(endpoint).body["choices"][0]["message"]["content"]
        assert complete(endpoint, key=False).status == 401

        pid = wait_runtime(client, key, "ready")["pid"]
        secret = endpoint["headers"]["Authorization"].removeprefix("Bearer ")
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in daemon.log

        for _ in range(2):
            ask(client, "lease.release", lease_ref=lease["lease_ref"])
        wait_runtime(client, key, "stopped")
        assert not is_alive(pid)
        assert not Path(endpoint["uds"]).exists()


def test_any_number_of_simultaneous_ensures_start_one_process(daemon: RunningDaemon) -> None:
    pids, failed = set(), []

    def one() -> None:
        with connected(daemon.socket) as client:
            try:
                # Held by each to the end: who comes late must find the same process.
                key = ensure(client, boot(), bind="none", ttl_ms=600_000)["lease"]["instance_key"]
                pids.add(ask(client, "runtime.get", instance_key=key)["pid"])
            except (Refused, OSError) as error:
                failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(pids) == 1
    assert daemon.events().count("runtime started") == 1


def test_a_bound_lease_ends_with_its_connection_and_another_does_not(
    daemon: RunningDaemon, client: WireClient
) -> None:
    with connected(daemon.socket) as other:
        bound = ensure(other, boot(), ttl_ms=None)["lease"]
        free = ensure(other, boot(), bind="none")["lease"]
        assert bound["left_ms"] is None
        assert set(leases(client)) == {bound["lease_ref"], free["lease_ref"]}
    wait_until(lambda: leases(client) == [free["lease_ref"]], 2, "the end of the bound lease")


def test_time_runs_out_unless_renewed(client: WireClient) -> None:
    kept = ensure(client, boot(), ttl_ms=10_000)["lease"]["lease_ref"]
    renewed = ask(client, "lease.renew", lease_ref=kept, ttl_ms=600_000)
    assert renewed["left_ms"] > 500_000
    short = ensure(client, boot(), ttl_ms=1000)["lease"]["lease_ref"]
    wait_until(lambda: leases(client) == [kept], 2, "the end of the lease that was not renewed")
    assert ask(client, "lease.get", lease_ref=kept)["left_ms"] > 10_000
    for op, fields in (("lease.get", {}), ("lease.renew", {"ttl_ms": 1000})):
        with pytest.raises(Refused, match="expired") as refused:
            ask(client, op, lease_ref=short, **fields)
        assert refused.value.code == "not_found"
    fixed = ensure(client, boot(), renewable=False)["lease"]["lease_ref"]
    with pytest.raises(Refused) as refused:
        ask(client, "lease.renew", lease_ref=fixed, ttl_ms=1000)
    assert refused.value.code == "conflict"


def test_what_is_leased_is_stopped_by_force_alone(client: WireClient) -> None:
    ensured = ensure(client, boot())
    key, ref = ensured["lease"]["instance_key"], ensured["lease"]["lease_ref"]
    for op in ("runtime.stop", "runtime.restart"):
        with pytest.raises(Refused, match="1 lease holds it") as refused:
            ask(client, op, instance_key=key)
        assert refused.value.code == "conflict"
    before = ask(client, "runtime.get", instance_key=key)
    ask(client, "runtime.restart", instance_key=key, force=True)
    assert leases(client) == [ref]
    completes_again(ensured["endpoint"])
    after = wait_runtime(client, key, "ready")
    assert after["pid"] != before["pid"]
    ask(client, "runtime.stop", instance_key=key, force=True)
    assert leases(client) == []
    assert ask(client, "runtime.get", instance_key=key)["state"] == "stopped"


def test_a_killed_server_comes_back_at_its_address_with_its_leases(client: WireClient) -> None:
    ensured = ensure(client, boot())
    key = ensured["lease"]["instance_key"]
    os.kill(ask(client, "runtime.get", instance_key=key)["pid"], signal.SIGKILL)
    completes_again(ensured["endpoint"])
    runtime = wait_runtime(client, key, "ready")
    assert (runtime["restarts"], runtime["leases"]) == (1, 1)
    assert ask(client, "lease.get", lease_ref=ensured["lease"]["lease_ref"])["left_ms"] > 0


def test_without_room_the_refusal_holds_the_plan_and_waiting_helps(server: Path) -> None:
    config = '[limits]\nmax_runtimes = 1\nidle_ttl = "forever"\n'
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        first = ensure(client, boot(), owner_ref="first")["lease"]
        told = ask(client, "lease.ensure", target=boot(ctx_size=1024), plan=True)
        assert told["verdict"] == "refused"
        with pytest.raises(Refused) as refused:
            ensure(client, boot(ctx_size=1024))
        plan = refused.value.details["plan"]
        assert refused.value.code == "conflict"
        assert plan["missing_runtimes"] == 1
        assert plan["blocked_by"][0]["held_by"][0]["owner_ref"] == "first"

        with connected(daemon.socket) as patient:
            patient.say(id="w", op="lease.ensure", target=boot(ctx_size=1024), wait_ms=60_000)
            time.sleep(0.1)
            assert [runtime["state"] for runtime in runtimes(client)] == ["ready"]
            ask(client, "lease.release", lease_ref=first["lease_ref"])
            second = patient.hear()["value"]["lease"]
            states = {r["instance_key"]: r["state"] for r in runtimes(client)}
            assert states == {
                first["instance_key"]: "stopped",
                second["instance_key"]: "ready",
            }
            began = time.monotonic()
            with pytest.raises(Refused):
                ensure(client, boot(), wait_ms=200)
            assert time.monotonic() - began >= 0.2


def test_a_stop_waits_for_nobody_who_waits_for_room(server: Path) -> None:
    config = "[daemon]\ndrain_timeout_s = 300\n[limits]\nmax_runtimes = 1\n"
    with (
        leasing_daemon(config, server=server) as daemon,
        connected(daemon.socket) as client,
        connected(daemon.socket) as patient,
    ):
        ensure(client, boot())
        patient.say(id="w", op="lease.ensure", target=boot(ctx_size=1024), wait_ms=600_000)
        time.sleep(0.2)  # it waits; asked after the stop, it would be refused as well
        ask(client, "daemon.drain")
        told = patient.hear()
        assert told["code"] == "backend_unavailable"
        assert "stopping" in told["message"]
        assert daemon.process.wait(60) == 0


def test_a_restart_takes_no_place_that_others_hold(server: Path) -> None:
    config = '[limits]\nmax_runtimes = 1\nidle_ttl = "forever"\n'
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        first, second = boot(), boot(ctx_size=1024)
        stopped = ensure(client, first)["lease"]
        ask(client, "lease.release", lease_ref=stopped["lease_ref"])
        running = ensure(client, second)["lease"]
        with pytest.raises(Refused) as refused:
            ask(client, "runtime.restart", instance_key=stopped["instance_key"])
        assert refused.value.code == "conflict"
        blocked_by = refused.value.details["plan"]["blocked_by"]
        assert [one["instance_key"] for one in blocked_by] == [running["instance_key"]]
        # One that runs keeps its own place, and nobody gets it in between.
        ask(client, "runtime.restart", instance_key=running["instance_key"], force=True)
        with pytest.raises(Refused):
            ensure(client, first)
        wait_runtime(client, running["instance_key"], "ready")
        ask(client, "lease.release", lease_ref=running["lease_ref"])
        ask(client, "runtime.restart", instance_key=stopped["instance_key"])
        wait_runtime(client, stopped["instance_key"], "ready")
        states = {r["instance_key"]: r["state"] for r in runtimes(client)}
        assert states == {running["instance_key"]: "stopped", stopped["instance_key"]: "ready"}


def test_idle_ones_are_evicted_the_least_recently_used_first(server: Path) -> None:
    config = '[limits]\nmax_runtimes = 2\nidle_ttl = "forever"\n'
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        keys = []
        for size in (512, 1024):
            lease = ensure(client, boot(ctx_size=size))["lease"]
            keys.append(lease["instance_key"])
            ask(client, "lease.release", lease_ref=lease["lease_ref"])
        ask(client, "lease.release", lease_ref=ensure(client, boot())["lease"]["lease_ref"])
        told = ask(client, "lease.ensure", target=boot(ctx_size=768), plan=True)
        assert [one["instance_key"] for one in told["evict"]] == [keys[1]]
        assert {r["state"] for r in runtimes(client)} == {"ready"}
        third = ensure(client, boot(ctx_size=768))["lease"]["instance_key"]
        states = {r["instance_key"]: r["state"] for r in runtimes(client)}
        assert states == {keys[0]: "ready", keys[1]: "stopped", third: "ready"}


def test_a_runtime_larger_than_the_limit_is_refused_before_it_is_started(server: Path) -> None:
    with (
        leasing_daemon("[limits]\nmemory_bytes = 1000000\n", server=server) as daemon,
        connected(daemon.socket) as client,
    ):
        with pytest.raises(Refused, match="larger than the limits allow") as refused:
            ensure(client, boot(), wait_ms=0)
        assert refused.value.details["plan"]["missing_bytes"] > 0
        assert "runtime started" not in daemon.events()


BAD: list[tuple[Json, str, str]] = [
    ({"target": boot(bogus=1)}, "invalid_request", "`bogus`"),
    ({"target": boot(ctx_size="big")}, "invalid_request", "`ctx_size`"),
    ({"target": boot(extra_args=["--port", "1"])}, "invalid_request", "`extra_args"),
    ({"target": boot(host="0.0.0.0", port=0)}, "invalid_request", "allow_remote"),
    ({"target": boot(execution_surface="ssh_exec")}, "invalid_request", "ssh_exec"),
    ({"target": boot(model="/nowhere.gguf")}, "invalid_request", "No such file"),
    ({"target": boot(model="/tmp")}, "invalid_request", "directory"),
    ({"target": boot(), "ttl_ms": 999}, "invalid_request", "ttl_ms"),
    ({"target": boot(), "ttl_ms": 86_400_001}, "invalid_request", "ttl_ms"),
    ({"target": boot(), "ttl_ms": None, "bind": "none"}, "invalid_request", "ttl_ms"),
    ({"target": boot(metadata={"x": "y" * 4096})}, "invalid_request", "`metadata` is over 4096"),
    (
        {"target": {"root_url": "http://127.0.0.1:9", "metadata": {"x": "y" * (3 << 20)}}},
        "invalid_request",
        "`metadata`",
    ),
    (
        {"target": boot(environment={f"V{n}": "x" * 65_000 for n in range(9)})},
        "invalid_request",
        "shorten the spec",
    ),
    ({"target": "nowhere"}, "not_found", "no route"),
    ({"target": {}}, "invalid_request", "boot spec"),
    ({"target": boot(), "consumer": {"accepted_protocols": ["x"]}}, "incompatible", "protocol"),
]


def test_bad_input_is_refused_before_anything_is_started(client: WireClient) -> None:
    for fields, code, words in BAD:
        with pytest.raises(Refused) as refused:
            ask(client, "lease.ensure", **fields)
        assert (refused.value.code, words in refused.value.message) == (code, True), refused.value
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Refused) as refused:
        ensure(client, boot(port=taken.getsockname()[1]))
    assert refused.value.code == "conflict"
    assert not any(runtime["pid"] for runtime in runtimes(client))


def test_a_model_that_does_not_load_is_told_with_the_servers_own_words(
    client: WireClient, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    models.truncate(Path(MODEL), broken)
    with pytest.raises(Refused) as refused:
        ensure(client, boot(model=str(broken)))
    assert refused.value.code == "invalid_request"
    assert refused.value.details["cause"] == "model_corrupt"
    assert refused.value.details["exit_code"] == 1
    assert any("failed to load model" in line for line in refused.value.details["log"])


def test_a_port_gives_tcp(client: WireClient) -> None:
    ensured = ensure(client, boot(port=0), transport="tcp")
    endpoint = ensured["endpoint"]
    assert endpoint["uds"] is None
    assert endpoint["base_url"].startswith("http://127.0.0.1:")
    assert complete(endpoint).status == 200
    key = ensured["lease"]["instance_key"]
    os.kill(ask(client, "runtime.get", instance_key=key)["pid"], signal.SIGKILL)
    completes_again(endpoint)


def test_kill_9_of_the_daemon_costs_nothing_but_a_moment(server: Path) -> None:
    with leasing_daemon("", server=server) as daemon:
        with connected(daemon.socket) as client:
            bound = ensure(client, boot(), owner_ref="bound", ttl_ms=None)
            free = ensure(client, boot(port=0), bind="none", ttl_ms=300_000)
            released = ensure(client, boot(ctx_size=1024))
            ask(client, "lease.release", lease_ref=released["lease"]["lease_ref"])
            left = Path(released["endpoint"]["uds"]).parent
            assert left.exists()
            pids = [runtime["pid"] for runtime in runtimes(client)]
            daemon.process.kill()
            daemon.process.wait()
        wait_until(lambda: not any(map(is_alive, pids)), 1, "the end of the former servers")
        began = time.monotonic()
        start_again(daemon, server)
        with connected(daemon.socket) as client:
            wanted = {bound["lease"]["lease_ref"], free["lease"]["lease_ref"]}
            assert set(leases(client)) == wanted
            assert (left.exists(), left.parent.exists()) == (False, True)
            assert time.monotonic() - began < 60
            shown = ask(client, "lease.get", lease_ref=free["lease"]["lease_ref"])
            assert 200_000 < shown["left_ms"] < 300_000
            completes_again(bound["endpoint"])
            completes_again(free["endpoint"])
            # Whoever renews a bound lease has it on its own connection from then on.
            ask(client, "lease.renew", lease_ref=bound["lease"]["lease_ref"], ttl_ms=60_000)
        with connected(daemon.socket) as client:
            wait_until(lambda: leases(client) == [free["lease"]["lease_ref"]], 2, "its end")
        daemon.stop()


_HOLDS = """
import sys, time
from inferd_client.blocking import Client
with Client(sys.argv[1]) as client, client.lease("endless", ttl=3600) as lease:
    print(lease.ref, flush=True)
    time.sleep(600)
"""


def test_who_died_with_the_daemon_keeps_its_lease_for_a_moment_only(server: Path) -> None:
    config = ENDLESS_ROUTE.format(model=MODEL, idle_ttl="forever")
    with leasing_daemon(config, server=server) as daemon:
        with (
            subprocess.Popen(
                [sys.executable, "-c", _HOLDS, daemon.socket], stdout=subprocess.PIPE, text=True
            ) as owner,
            connected(daemon.socket) as client,
        ):
            assert owner.stdout is not None
            lost = owner.stdout.readline().strip()
            lives = ensure(client, "endless", ttl_ms=3_600_000)["lease"]["lease_ref"]
            daemon.process.kill()
            daemon.process.wait()
            owner.kill()
        start_again(daemon, server)
        with connected(daemon.socket) as client:
            left = {
                ref: ask(client, "lease.get", lease_ref=ref)["left_ms"] for ref in (lost, lives)
            }
        assert left[lost] <= 30_000
        assert left[lives] > 3_500_000
        daemon.stop()


def test_nothing_runs_for_the_lost_alone_and_their_time_is_given_once(server: Path) -> None:
    config = ENDLESS_ROUTE.format(model=MODEL, idle_ttl="forever")
    with leasing_daemon(config, server=server) as daemon:
        with subprocess.Popen(
            [sys.executable, "-c", _HOLDS, daemon.socket], stdout=subprocess.PIPE, text=True
        ) as owner:
            assert owner.stdout is not None
            lost = owner.stdout.readline().strip()
            daemon.process.kill()
            daemon.process.wait()
            owner.kill()
        journal = daemon.directory / "run" / "state" / "journal"
        left: list[int] = []
        for _ in range(2):
            start_again(daemon, server)
            with connected(daemon.socket) as client:
                left.append(ask(client, "lease.get", lease_ref=lost)["left_ms"])
                (runtime,) = runtimes(client)
                assert (runtime["state"], runtime["pid"]) == ("stopped", None)
                # What was restored is written by nobody's order.
                wait_until(partial(has_shortened, journal, lost), 2, "an entry of what is left")
            daemon.process.kill()
            daemon.process.wait()
        assert left[1] < left[0] <= 30_000
        start_again(daemon, server)
        with connected(daemon.socket) as client:
            # Another program of the same user takes it up: now there is somebody to run it for.
            ask(client, "lease.renew", lease_ref=lost, ttl_ms=60_000)
            wait_runtime(client, runtime["instance_key"], "ready")
        daemon.stop()


def has_shortened(journal: Path, ref: str) -> bool:
    """Whether what is left of a lease of hours is in the journal."""
    entries = look_at_journal(journal).entries
    leases = {
        entry.lease.lease_ref: entry.lease for entry in entries if isinstance(entry, LeaseEntry)
    }
    deadline = leases[ref].deadline
    return deadline is not None and deadline < time.monotonic() + 60


def test_an_orderly_stop_keeps_leases_with_time_left(server: Path) -> None:
    with leasing_daemon("", server=server) as daemon:
        with connected(daemon.socket) as client:
            ensured = ensure(client, boot(), ttl_ms=300_000)
            pid = runtimes(client)[0]["pid"]
            assert daemon.stop() == 0
        assert not is_alive(pid)
        start_again(daemon, server)
        with connected(daemon.socket) as client:
            assert leases(client) == [ensured["lease"]["lease_ref"]]
            completes_again(ensured["endpoint"])
        daemon.stop()


@pytest.mark.parametrize("shared", ["runtime directory", "state directory"])
def test_a_second_daemon_refuses_what_the_first_one_owns(
    daemon: RunningDaemon, shared: str
) -> None:
    run = daemon.directory / ("run" if shared == "runtime directory" else "other")
    state = daemon.directory / "run" / "state"
    second = subprocess.run(
        [sys.executable, "-m", "inferd_daemon", "--backend", "mock"],
        env=environment(
            daemon.directory,
            {"INFERD_RUNTIME_DIR": str(run), "INFERD_STATE_DIR": str(state)},
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert f"another inferd (pid {daemon.pid})" in second.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_gets_its_own_and_no_more(daemon: RunningDaemon, client: WireClient) -> None:
    mine = ensure(client, boot())["lease"]["lease_ref"]
    for directory in (daemon.directory, daemon.socket.parent):
        directory.chmod(0o711)

    private = daemon.directory / "private.gguf"
    private.write_bytes(Path(MODEL).read_bytes())
    private.chmod(0o600)
    closed = daemon.directory / "closed"
    closed.mkdir(mode=0o700)
    (closed / "open.gguf").write_bytes(Path(MODEL).read_bytes())

    def as_nobody() -> dict[str, Any]:
        told: dict[str, Any] = {}
        with connected(daemon.socket) as other:
            ensured = ensure(other, boot())
            free = ensure(other, boot(), bind="none")
            told["own"] = [ensured["lease"]["lease_ref"], free["lease"]["lease_ref"]]
            told["endpoint"] = free["endpoint"]
            told["seen"] = leases(other)
            told["completed"] = complete(ensured["endpoint"]).status
            told["mode"] = stat.S_IMODE(os.stat(ensured["endpoint"]["uds"]).st_mode)
            for name, op, fields in (
                ("renew", "lease.renew", {"lease_ref": mine, "ttl_ms": 5000}),
                ("release", "lease.release", {"lease_ref": mine}),
                ("stop", "runtime.stop", {"instance_key": "x", "force": True}),
                ("drain", "daemon.drain", {}),
                ("run", "lease.ensure", {"target": boot(binary_path="/bin/sh")}),
                ("read", "lease.ensure", {"target": boot(model=str(private))}),
                ("enter", "lease.ensure", {"target": boot(model=str(closed / "open.gguf"))}),
                ("ask after", "lease.ensure", {"target": boot(model=str(closed / "none.gguf"))}),
            ):
                try:
                    told[name] = ask(other, op, **fields)
                except Refused as error:
                    told[name] = error.code
        return told

    told = as_user(NOBODY, os.getegid(), as_nobody)
    assert told.pop("seen") == told.pop("own")
    assert told.pop("completed") == 200
    assert told.pop("mode") == 0o660
    endpoint = told.pop("endpoint")
    assert set(told.values()) == {"permission_denied"}
    assert mine in leases(client)

    daemon.process.kill()
    daemon.process.wait()
    start_again(daemon, llama_server_path())
    completes_again(endpoint)
    wait_until(lambda: is_open(endpoint), 2, "an open socket")
    assert as_user(NOBODY, os.getegid(), lambda: complete(endpoint).status) == 200
    daemon.stop()


WORKER = """
[backends.worker]
kind = "libllama"
model = "demo"
[routes.worker]
backends = ["worker"]
"""


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of all that the test starts."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.usefixtures("umask")
def test_another_user_leases_a_worker_of_the_daemon() -> None:
    with leasing_daemon(WORKER, server="") as daemon, connected(daemon.socket) as client:
        for directory in (daemon.directory, daemon.socket.parent):
            directory.chmod(0o711)

        def as_nobody() -> dict[str, Any]:
            with connected(daemon.socket) as other:
                endpoint: dict[str, Any] = ensure(other, "worker", bind="none")["endpoint"]
                assert complete(endpoint).status == 200
                assert complete(endpoint, key=False).status == 401
                return endpoint

        every_runtime = daemon.socket.parent / "runtimes"
        wait_until(every_runtime.exists, 10.0, "the directory of runtimes")
        assert stat.S_IMODE(every_runtime.stat().st_mode) == 0o700
        endpoint = as_user(NOBODY, os.getegid(), as_nobody)
        assert stat.S_IMODE(every_runtime.stat().st_mode) == 0o711
        (worker,) = runtimes(client)
        wait_until(lambda: is_open(endpoint), 2, "an open socket")
        os.kill(worker["pid"], signal.SIGKILL)
        completes_again(endpoint)
        assert wait_runtime(client, worker["instance_key"], "ready")["restarts"] == 1
        wait_until(lambda: is_open(endpoint), 2, "an open socket")
        assert as_user(NOBODY, os.getegid(), lambda: complete(endpoint).status) == 200
        assert as_user(NOBODY, NOBODY, lambda: connects(endpoint["uds"])) is False
        daemon.process.kill()
        daemon.process.wait()
        start_again(daemon, "")
        completes_again(endpoint)
        wait_until(lambda: is_open(endpoint), 2, "an open socket")
        assert as_user(NOBODY, os.getegid(), lambda: complete(endpoint).status) == 200
        daemon.stop()


def is_open(endpoint: Json) -> bool:
    """To the group: the server listens a moment before the daemon sees it ready and opens it."""
    try:
        return stat.S_IMODE(os.stat(endpoint["uds"]).st_mode) == 0o660
    except FileNotFoundError:
        return False


def connects(path: str) -> bool:
    """Whether the socket lets this user in."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(path) == 0


def test_a_disk_that_takes_nothing_refuses_and_recovers(
    daemon: RunningDaemon, client: WireClient
) -> None:
    kept = ensure(client, boot())["lease"]["lease_ref"]
    hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, hard))
    for op, fields in (
        ("lease.ensure", {"target": boot()}),
        ("lease.ensure", {"target": boot(ctx_size=1024)}),
        ("lease.renew", {"lease_ref": kept, "ttl_ms": 5000}),
        ("lease.release", {"lease_ref": kept}),
    ):
        with pytest.raises(Refused, match="journal") as refused:
            ask(client, op, **fields)
        assert refused.value.code == "backend_unavailable"
    assert ask(client, "lease.get", lease_ref=kept)["left_ms"] > 5_000
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
    other = ensure(client, boot(ctx_size=1024))["lease"]["lease_ref"]
    assert leases(client) == [kept, other]


def open_files(pid: int) -> int:
    """How many a process has, a moment later."""
    time.sleep(0.01)
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("spare", [0, 1, 3])
def test_no_descriptors_left_refuses_and_recovers(
    daemon: RunningDaemon, client: WireClient, spare: int
) -> None:
    ask(client, "status")  # it has raised its limit and accepted us by then
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # The least of some looks: a file that it has open for a moment is none that is left.
    used = min(open_files(daemon.pid) for _ in range(20))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + spare, hard))
    with pytest.raises(Refused) as refused:
        ensure(client, boot())
    assert refused.value.code == "backend_unavailable"
    assert "Too many open files" in refused.value.message
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert complete(ensure(client, boot())["endpoint"]).status == 200


def test_changes_are_watched(daemon: RunningDaemon, client: WireClient) -> None:
    with connected(daemon.socket) as watcher:
        watcher.say(id="w", op="watch")
        assert watcher.hear()["value"]["type"] == "snapshot"
        lease = ensure(client, boot())["lease"]
        ask(client, "lease.release", lease_ref=lease["lease_ref"])
        seen: list[str] = []
        while seen[-1:] != ["stopped"]:
            value = watcher.hear()["value"]
            if value["type"] == "runtime":
                seen += (
                    [value["runtime"]["state"]] if seen[-1:] != [value["runtime"]["state"]] else []
                )
            elif value["type"] == "lease":
                seen.append(value["event"])
    assert seen == ["starting", "ready", "granted", "released", "draining", "stopped"]


def test_the_admin_feed_tells_everything_and_drops_who_does_not_read(
    daemon: RunningDaemon, client: WireClient
) -> None:
    path = daemon.socket.with_name("admin.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as feed, socket.socket(socket.AF_UNIX) as sleeper:
        for one in (feed, sleeper):
            one.settimeout(60)
            one.connect(str(path))
        lines = feed.makefile()
        snapshot = json.loads(lines.readline())
        assert (snapshot["id"], snapshot["type"]) == ("admin", "status")
        ensured = ensure(client, boot())
        told = [json.loads(lines.readline()) for _ in range(3)]
        assert [line["status"] for line in told[:2]] == ["loading_model", "loading_model"]
        spec = boot()
        for line in told[:2]:
            loading = (line["phase"], line["path"], line["n_ctx"])
            assert loading == ("mmap", spec["model"], spec["ctx_size"])
        secret = ensured["endpoint"]["headers"]["Authorization"].removeprefix("Bearer ")
        assert secret not in json.dumps(told)
        ref = ensured["lease"]["lease_ref"]
        for _ in range(900):
            ask(client, "lease.renew", lease_ref=ref, ttl_ms=60_000)
        time.sleep(1.1)  # what comes at once may wait for a second
        ask(client, "lease.renew", lease_ref=ref, ttl_ms=60_000)
        assert_dropped(sleeper)
        assert json.loads(lines.readline())["status"]


def assert_dropped(sleeper: socket.socket) -> None:
    """What is left in the kernel, then the end."""
    while sleeper.recv(1 << 20):
        pass


def test_logs_are_followed(client: WireClient, daemon: RunningDaemon) -> None:
    key = ensure(client, boot())["lease"]["instance_key"]
    with connected(daemon.socket) as follower:
        follower.say(id="l", op="logs", instance_key=key, lines=2)
        assert [follower.hear()["type"] for _ in range(3)] == ["item", "item", "done"]
        follower.say(id="f", op="logs", instance_key=key, lines=0, follow=True)
        ask(client, "runtime.restart", instance_key=key, force=True)
        lines: list[str] = []
        while not any("model loaded" in line for line in lines):
            lines.append(follower.hear()["value"]["line"])


@pytest.fixture
def endless(server: Path, tmp_path: Path) -> Iterator[RunningDaemon]:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    config = ENDLESS_ROUTE.format(model=model, idle_ttl="0.2s") + "[limits]\nmax_runtimes = 1\n"
    with leasing_daemon(config, server=server) as running:
        yield running


def test_a_request_starts_its_runtime_and_holds_it(endless: RunningDaemon) -> None:
    with connected(endless.socket) as client, connected(endless.socket) as other:
        key = runtimes(other)[0]["instance_key"]
        assert ask(other, "runtime.get", instance_key=key)["state"] == "stopped"
        client.generate("g", model="endless")
        assert client.hear()["type"] == "frame"
        with pytest.raises(Refused) as refused:
            ensure(other, boot())
        assert refused.value.code == "conflict"
        time.sleep(0.5)
        assert ask(other, "runtime.get", instance_key=key)["state"] == "ready"
        client.say(op="cancel", id="g")
        assert client.hear_end("g")["stop_reason"] == "cancelled"
        wait_runtime(other, key, "stopped")


def test_routes_that_share_a_place_take_turns(server: Path) -> None:
    config = "[limits]\nmax_runtimes = 1\n"
    for name in ("a", "b"):
        config += f"""
[backends.{name}]
kind = "llama_server"
model = "demo"
threads = 1
metadata = {{ name = "{name}" }}
ctx_size = {512 if name == "a" else 1024}
[routes.{name}]
backends = ["{name}"]
"""
    with leasing_daemon(config, server=server) as daemon, connected(daemon.socket) as client:
        for number in range(6):
            client.generate(str(number), model="ab"[number % 2], max_tokens=20)
        ends: list[Json] = []
        while len(ends) < 6:
            if (answer := client.hear())["type"] != "token" and answer["type"] != "frame":
                ends.append(answer)
        assert [end["type"] for end in ends] == ["done"] * 6, ends
        assert {end["usage"]["output_tokens"] for end in ends} == {20}
        assert daemon.events().count("runtime evicted") >= 1


def test_a_server_killed_in_mid_stream_costs_one_error(endless: RunningDaemon) -> None:
    with connected(endless.socket) as client, connected(endless.socket) as other:
        ensured = ensure(other, "endless")
        key = ensured["lease"]["instance_key"]
        client.generate("g", model="endless")
        client.hear()
        pid = ask(other, "runtime.get", instance_key=key)["pid"]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        end = client.hear_end("g")
        assert (end["type"], end["code"]) == ("error", "backend_unavailable")
        assert time.monotonic() - killed < 20
        completes_again(ensured["endpoint"])
        client.generate("h", model="endless", max_tokens=3)
        assert client.hear_end("h")["stop_reason"] == "max_tokens"
        assert leases(other) == [ensured["lease"]["lease_ref"]]


@pytest.mark.parametrize("op", ["runtime.stop", "runtime.restart"])
def test_a_forced_end_in_mid_stream_is_swift_and_clean(
    server: Path, tmp_path: Path, op: str
) -> None:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    config = ENDLESS_ROUTE.format(model=model, idle_ttl="0.2s")
    config = config.replace("parallel = 1", "parallel = 1\nstop_timeout_ms = 100_000")
    # Interrupted in mid-stream, the server would hang until it is interrupted again.
    slow = changed(tmp_path, "inferd_daemon.supervision.processes.process", SECOND_INTERRUPT_S=60.0)
    with (
        running_daemon(config=config, environ=server_environment(server) | slow) as daemon,
        connected(daemon.socket, 120) as client,
        connected(daemon.socket, 120) as other,
    ):
        client.generate("g", model="endless")
        assert client.hear()["type"] == "frame"
        (key,) = (runtime["instance_key"] for runtime in runtimes(other))
        begun = time.monotonic()
        ask(other, op, instance_key=key, force=True)
        assert time.monotonic() - begun < 50
        end = client.hear_end("g")
        assert (end["type"], end["code"]) == ("error", "backend_unavailable")
        assert '"ended_with":"exit code 0"' in daemon.log
        client.generate("h", model="endless", max_tokens=2)
        assert client.hear_end("h")["stop_reason"] == "max_tokens"


def test_a_hung_server_is_noticed_and_replaced(client: WireClient) -> None:
    ensured = ensure(client, boot(health_interval_ms=1000))
    key = ensured["lease"]["instance_key"]
    pid = ask(client, "runtime.get", instance_key=key)["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_alive(pid), 5, "the end of the hung server")
    completes_again(ensured["endpoint"])
    assert "stopped answering" in ask(client, "runtime.get", instance_key=key)["last_error"]
