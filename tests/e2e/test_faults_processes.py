"""No descriptors, no processes, no program to run: refused by name, and over when the cause is."""

import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import models
from tests.support.daemon import RunningDaemon, wait_until
from tests.support.lease_client import (
    ENDLESS_ROUTE,
    Json,
    Refused,
    ask,
    boot,
    complete,
    completes_again,
    ensure,
    leases,
    leasing_daemon,
    runtimes,
    wait_runtime,
)
from tests.support.llama_server import llama_server_path
from tests.support.plain_user import limit_processes, plain_daemon, plain_directory
from tests.support.processes import is_alive
from tests.support.traces import wrong_traces
from tests.support.wire_client import WireClient, connected

HEALTH_MS = 1000
"""Who is not run for so long twice in a row is taken for hung."""


@pytest.fixture
def server() -> Path:
    return llama_server_path()


@pytest.fixture
def daemon(server: Path, tmp_path: Path) -> Iterator[RunningDaemon]:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    route = ENDLESS_ROUTE.format(model=model, idle_ttl="0.2s")
    with leasing_daemon(route + '[limits]\nidle_ttl = "0.2s"\n', server=server) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[WireClient]:
    with connected(daemon.socket) as connected_client:
        ask(connected_client, "status")  # it has raised its limits and accepted us by then
        yield connected_client


@contextmanager
def no_descriptors(daemon: RunningDaemon) -> Iterator[None]:
    """It cannot open a single one."""
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # The lowest free number decides, not how many there are.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))


def runtime_of(client: WireClient, ensured: Json) -> Json:
    """What `runtime.get` says of the runtime of a lease."""
    shown: Json = ask(client, "runtime.get", instance_key=ensured["lease"]["instance_key"])
    return shown


def test_without_descriptors_what_runs_runs_on(daemon: RunningDaemon, client: WireClient) -> None:
    kept = ensure(client, boot(health_interval_ms=HEALTH_MS))
    pid = runtime_of(client, kept)["pid"]
    with no_descriptors(daemon):
        time.sleep(3 * HEALTH_MS / 1000)
        # It could not look, which says nothing of the runtime.
        assert runtime_of(client, kept)["state"] == "ready"
        assert complete(kept["endpoint"]).status == 200
        ask(client, "lease.renew", lease_ref=kept["lease"]["lease_ref"], ttl_ms=60_000)
    assert runtime_of(client, kept)["pid"] == pid


def test_without_descriptors_what_must_end_ends(daemon: RunningDaemon, client: WireClient) -> None:
    idle, forced = ensure(client, boot()), ensure(client, boot(ctx_size=1024))
    pids = [runtime_of(client, one)["pid"] for one in (idle, forced)]
    with no_descriptors(daemon):
        ask(client, "lease.release", lease_ref=idle["lease"]["lease_ref"])
        ask(client, "runtime.stop", instance_key=forced["lease"]["instance_key"], force=True)
        wait_until(lambda: not any(map(is_alive, pids)), 3, "their end")
    assert complete(ensure(client, boot())["endpoint"]).status == 200


def test_a_server_that_dies_without_descriptors_comes_back_with_them(
    daemon: RunningDaemon, client: WireClient
) -> None:
    kept = ensure(client, boot())
    with no_descriptors(daemon):
        os.kill(runtime_of(client, kept)["pid"], signal.SIGKILL)
        wait_until(lambda: runtime_of(client, kept)["state"] == "restarting", 2, "its end")
        client.generate("g", model="endless")
        end = client.hear_end("g")
        assert (end["type"], end["code"]) == ("error", "backend_unavailable")
    completes_again(kept["endpoint"])
    assert leases(client) == [kept["lease"]["lease_ref"]]
    client.generate("h", model="endless", max_tokens=2)
    assert client.hear_end("h")["stop_reason"] == "max_tokens"


def test_without_processes_starts_are_refused_until_there_are_some(server: Path) -> None:
    with (
        plain_directory() as directory,
        plain_daemon(directory, server) as daemon,
        connected(daemon.socket) as client,
    ):
        kept = ensure(client, boot())
        ref = kept["lease"]["lease_ref"]
        limit_processes(daemon, 1)
        with pytest.raises(Refused) as refused:
            ensure(client, boot(ctx_size=1024))
        assert refused.value.code == "backend_unavailable"
        assert refused.value.details == {"cause": "no_process"}
        assert leases(client) == [ref]
        assert complete(kept["endpoint"]).status == 200
        os.kill(runtime_of(client, kept)["pid"], signal.SIGKILL)
        wait_until(lambda: runtime_of(client, kept)["state"] == "restarting", 2, "its end")
        limit_processes(daemon, None)
        completes_again(kept["endpoint"])
        assert complete(ensure(client, boot(ctx_size=1024))["endpoint"]).status == 200
        assert ask(client, "lease.renew", lease_ref=ref, ttl_ms=60_000)["lease_ref"] == ref


def test_programs_that_are_no_server(client: WireClient, tmp_path: Path) -> None:
    script = tmp_path / "engine"
    script.write_text("#!/nowhere/sh\n")
    for mode, path in ((0o644, script), (0o755, script), (0o755, tmp_path), (0o755, "/none")):
        if path == script:
            script.chmod(mode)
        with pytest.raises(Refused) as refused:
            ensure(client, boot(binary_path=str(path)))
        assert refused.value.code in ("invalid_request", "backend_unavailable")
        assert str(path) in refused.value.message
    for program, words in (("/bin/false", "exit code 1"), ("/bin/true", "exit code 0")):
        with pytest.raises(Refused, match=words) as refused:
            ensure(client, boot(binary_path=program))
        assert refused.value.code == "backend_unavailable"


def test_a_server_that_never_gets_ready_leaves_nothing(
    daemon: RunningDaemon, client: WireClient, tmp_path: Path
) -> None:
    script = tmp_path / "engine"
    script.write_text("#!/bin/sh\ntrap '' INT TERM\nsleep 1000 &\nwhile :; do sleep 1000; done\n")
    script.chmod(0o755)
    spec = boot(binary_path=str(script), ready_timeout_ms=200, stop_timeout_ms=200)
    with pytest.raises(Refused, match=r"not ready after 0\.2 s") as refused:
        ensure(client, spec)
    assert refused.value.code == "timeout"
    wait_until(lambda: not wrong_traces(daemon, runtimes(client)), 2, "order")
    assert daemon.processes() == [daemon.pid]


def test_what_a_wrapper_started_in_other_sessions_goes_with_it(
    client: WireClient, server: Path, tmp_path: Path
) -> None:
    script, pids = tmp_path / "engine", tmp_path / "pids"
    script.write_text(
        f"#!/bin/sh\nsetsid sleep 1000 &\necho $! >>{pids}\n"
        f"env -i /usr/bin/env PATH=$PATH setsid sh -c 'echo $$ >>{pids}; sleep 1000; true' &\n"
        f'{server} "$@"\n'
    )
    script.chmod(0o755)
    key = ensure(client, boot(binary_path=str(script)))["lease"]["instance_key"]
    wait_until(lambda: pids.read_text().count("\n") == 2, 2, "the last of them")
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(map(is_alive, started))
    ask(client, "runtime.stop", instance_key=key, force=True)
    wait_until(lambda: not any(map(is_alive, started)), 2, "their end")


HANGS_ONCE = """#!{python}
import os, socket, sys, time
if os.path.exists("{mark}"):
    os.execv("{server}", ["{server}", *sys.argv[1:]])
open("{mark}", "w").close()
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--host") + 1])
listener.listen()
time.sleep(1000)
"""


def test_a_server_that_hangs_while_it_loads_is_noticed_long_before_its_deadline(
    daemon: RunningDaemon, client: WireClient, server: Path, tmp_path: Path
) -> None:
    script = tmp_path / "engine"
    script.write_text(
        HANGS_ONCE.format(python=sys.executable, mark=tmp_path / "hung", server=server)
    )
    script.chmod(0o755)
    spec = boot(binary_path=str(script), health_interval_ms=HEALTH_MS)
    begun = time.monotonic()
    with pytest.raises(Refused, match="hung while it loaded") as refused:
        ensure(client, spec)
    assert time.monotonic() - begun < 50
    assert (refused.value.code, refused.value.details["cause"]) == ("backend_unavailable", "hung")
    assert complete(ensure(client, spec)["endpoint"]).status == 200


def test_an_owner_that_leaves_before_its_runtime_is_ready_leaves_nothing(
    daemon: RunningDaemon, client: WireClient
) -> None:
    for wait_s in (0.0, 0.005, 0.02, 0.05):
        with connected(daemon.socket) as leaving:
            leaving.say(id="e", op="lease.ensure", target=boot(), ttl_ms=None)
            time.sleep(wait_s)
        wait_until(lambda: not leases(client), 2, "the end of its lease")
        wait_until(lambda: daemon.processes() == [daemon.pid], 5, "the end of its runtime")
    wait_until(lambda: not wrong_traces(daemon, runtimes(client)), 2, "order")


def test_a_port_that_another_takes_while_the_server_is_down_is_had_again(
    daemon: RunningDaemon, client: WireClient
) -> None:
    kept = ensure(client, boot(port=0), transport="tcp")
    port = int(kept["endpoint"]["base_url"].rpartition(":")[2].partition("/")[0])
    pid = runtime_of(client, kept)["pid"]
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The daemon must not start the next one before the port is taken.
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: binds(thief, port), 2, "its port")
            thief.listen()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        wait_until(lambda: runtime_of(client, kept)["restarts"] > 1, 5, "a start in vain")
        assert str(port) in runtime_of(client, kept)["last_error"]
    completes_again(kept["endpoint"])
    assert wait_runtime(client, kept["lease"]["instance_key"], "ready")["leases"] == 1


def binds(sock: socket.socket, port: int) -> bool:
    """Whether the port was free, and is this socket's now."""
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
