"""The daemon goes over to its next self: same pid, nobody refused, servers and leases kept."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import inferd_daemon
import inferd_proto
from inferd_daemon.fronts.listener import HALF_MESSAGE_S
from inferd_daemon.supervision.succession.handover import HANDOVER_VERSION
from tests.support import models
from tests.support.changed_code import changed
from tests.support.daemon import STOP_S, RunningDaemon, running_daemon, wait_until
from tests.support.lease_client import (
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
    start_again,
    wait_runtime,
)
from tests.support.llama_server import llama_server_path
from tests.support.processes import is_alive
from tests.support.wire_client import HELLO, WireClient, connected

BOTH = """
default_route = "demo"
[limits]
idle_ttl = "1m"
[backends.demo]
kind = "libllama"
model = "demo"
threads = 1
[routes.demo]
backends = ["demo"]
"""
SLOW = """\
[daemon]
drain_timeout_s = {drain}
[backends.mock]
kind = "mock"
token_ms = 10
[routes.mock]
backends = ["mock"]
"""
WITHIN_S = 30.0
"""A preflight and a start on a busy machine, bytecode not written."""
TTL_MS = 2_000
"""Over in a drain."""
LONGEST_GAP_S = 30.0
"""Between two tokens: each takes under a millisecond, the rest is for a busy machine."""


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    """With a libllama worker, and a real llama-server for leases."""
    with leasing_daemon(BOTH, server=llama_server_path()) as running:
        wait_until(lambda: "runtime ready" in running.events(), 10, "the worker")
        yield running


def upgrades(daemon: RunningDaemon) -> int:
    return daemon.events().count("upgraded")


def upgrade(daemon: RunningDaemon) -> None:
    """Upgrade by signal; returns once the next self serves."""
    before = upgrades(daemon)
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: upgrades(daemon) > before, WITHIN_S, f"an upgrade; it said:\n{daemon.log}")


def pids(client: WireClient) -> dict[str, int | None]:
    return {runtime["instance_key"]: runtime["pid"] for runtime in runtimes(client)}


def worker_of(client: WireClient) -> int:
    (found,) = (runtime["pid"] for runtime in runtimes(client) if runtime["name"] == "demo")
    pid: int = found
    return pid


def descriptors(pid: int) -> list[str]:
    """What a process has open, by kind."""
    directory = Path(f"/proc/{pid}/fd")
    found = []
    for name in os.listdir(directory):
        try:
            found.append(os.readlink(directory / name).partition(":")[0])
        except FileNotFoundError:  # the one that lists, or a short-lived one
            continue
    return sorted(found)


def steady_descriptors(pid: int) -> list[str]:
    """What it has open for good: what it also has open now and then is not among it."""
    seen: Counter[tuple[str, ...]] = Counter()

    def often_the_same() -> bool:
        seen[tuple(descriptors(pid))] += 1
        time.sleep(0.02)
        return max(seen.values()) >= 10

    wait_until(often_the_same, WITHIN_S, "the same descriptors again and again")
    # One that goes while they are listed is not in its list, nor what comes behind it.
    return min((list(names) for names, times in seen.items() if times > 2), key=len)


def settled(pid: int) -> bool:
    """Whether an upgraded daemon has its journal open, and its code no more."""
    names = {name.rpartition("/")[2] for name in descriptors(pid)}
    return "journal" in names and "memfd" not in names


def test_everything_is_kept(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as client, connected(daemon.socket) as owner:
        asked = time.monotonic()
        free = ensure(client, boot(), bind="none", ttl_ms=600_000)
        granted = time.monotonic()
        bound = ensure(owner, boot(ctx_size=256), ttl_ms=None)
        before, listed = pids(client), leases(client)
        upgrade(daemon)
        ask(client, "daemon.upgrade")
        wait_until(lambda: upgrades(daemon) == 2, WITHIN_S, "the second upgrade")

        status = ask(client, "status")  # on the connection that it had
        assert (status["pid"], status["upgrades"]) == (daemon.pid, 2)
        assert status["ready"]
        assert pids(client) == before
        assert len(before) == 3
        assert {runtime["state"] for runtime in runtimes(client)} == {"ready"}
        assert [runtime["restarts"] for runtime in runtimes(client)] == [0, 0, 0]
        assert leases(client) == listed
        least_ms = (time.monotonic() - granted) * 1000
        left_ms = ask(client, "lease.get", lease_ref=free["lease"]["lease_ref"])["left_ms"]
        most_ms = (time.monotonic() - asked) * 1000
        assert 600_000 - most_ms - 500 < left_ms < 600_000 - least_ms + 500
        for ensured in (free, bound):
            assert complete(ensured["endpoint"]).status == 200
        client.generate(max_tokens=3)
        assert client.hear_end()["type"] == "done"

        # what was bound to a connection still is
        assert ask(client, "lease.get", lease_ref=bound["lease"]["lease_ref"])["left_ms"] is None
        owner.sock.close()
        wait_until(lambda: leases(client) == listed[:1], 2, "the end of the bound lease")
        assert daemon.events().count("runtime started") == 3


def test_processes_are_still_children_that_die_with_the_daemon(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as client:
        ensured = ensure(client, boot(), bind="none", ttl_ms=600_000)
        key, endpoint = ensured["lease"]["instance_key"], ensured["endpoint"]
        upgrade(daemon)
        upgrade(daemon)
        for runtime in runtimes(client):
            os.kill(runtime["pid"], signal.SIGKILL)
        completes_again(endpoint)
        last_error = wait_runtime(client, key, "ready")["last_error"]
        assert "SIGKILL" in last_error  # its status came to its parent
        upgrade(daemon)
        wait_until(lambda: all(pids(client).values()), 5, "the worker")
        living = [pid for pid in pids(client).values() if pid is not None]
    assert all(map(is_alive, living))
    daemon.process.kill()
    wait_until(lambda: not any(map(is_alive, living)), 2, "the end of the children")
    daemon.process.wait(STOP_S)
    start_again(daemon, llama_server_path())
    completes_again(endpoint)


def test_a_runtime_that_is_loading_or_has_died_is_taken_over_too() -> None:
    with (
        running_daemon("--demo") as daemon,  # its worker loads for a while
        connected(daemon.socket) as client,
    ):
        wait_until(lambda: "runtime started" in daemon.events(), 10, "its start")
        upgrade(daemon)
        wait_until(lambda: ask(client, "status")["ready"], 10, "the worker")
        assert daemon.events().count("runtime started") == 1
        worker = worker_of(client)
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: daemon.events().count("upgrading") == 2, WITHIN_S, "its decision")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: upgrades(daemon) == 2, WITHIN_S, "an upgrade")
        wait_until(
            lambda: daemon.events().count("runtime ready") == 2 and worker_of(client) != worker,
            10,
            "another worker",
        )
        client.generate(max_tokens=2)
        assert client.hear_end()["type"] == "done"


def test_nothing_leaks_from_self_to_self_or_to_children(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as client:
        first = ensure(client, boot())["lease"]["instance_key"]
        server_before = descriptors(wait_runtime(client, first, "ready")["pid"])
        upgrade(daemon)
        wait_until(lambda: settled(daemon.pid), 2, "the end of its start")
        before = steady_descriptors(daemon.pid)
        upgrade(daemon)
        upgrade(daemon)
        wait_until(lambda: descriptors(daemon.pid) == before, 2, "what was open before")
        ensure(client, boot(ctx_size=256))
        for runtime in runtimes(client):
            environ = Path(f"/proc/{runtime['pid']}/environ").read_bytes()
            assert b"HANDOVER" not in environ
        second = next(r for r in runtimes(client) if r["name"] != "demo" and r["leases"] == 1)
        most = len(server_before) + 1
        wait_until(lambda: len(descriptors(second["pid"])) <= most, 2, "the end of what leaked")


def test_no_connect_fails_and_all_are_answered(daemon: RunningDaemon) -> None:
    stop, answered, failed = threading.Event(), [0] * 4, list[Exception]()

    def knock(number: int) -> None:
        while not stop.is_set():
            try:
                with connected(daemon.socket, WITHIN_S) as client:
                    ask(client, "status")
                answered[number] += 1
            except (OSError, EOFError, Refused) as error:
                failed.append(error)

    threads = [threading.Thread(target=knock, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    def all_are_answered() -> bool:
        return bool(failed) or min(answered) > most_before

    try:
        for _ in range(2):
            most_before = max(answered)
            wait_until(all_are_answered, WITHIN_S, "an answer for each")
            upgrade(daemon)
        most_before = max(answered)
        wait_until(all_are_answered, WITHIN_S, "an answer for each")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Room for so many open files in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def burst(daemon: RunningDaemon, count: int) -> int:
    """Upgrade; so many connects while nobody accepts. How many of them are answered.

    Raises BlockingIOError where the backlog is full.
    """
    upgrading = daemon.events().count("upgrading")
    before = upgrades(daemon)
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: daemon.events().count("upgrading") > upgrading, WITHIN_S, "its decision")
    with ExitStack() as clients:
        waiting = []
        for _ in range(count):
            client = clients.enter_context(closing(socket.socket(socket.AF_UNIX)))
            client.setblocking(False)
            client.connect(str(daemon.socket))
            waiting.append(client)
        wait_until(lambda: upgrades(daemon) > before, WITHIN_S, "an upgrade")
        payload = json.dumps({"wire_version": 1, "op": "status", "id": "s"}).encode()
        answered = 0
        for client in waiting:
            client.settimeout(WITHIN_S)
            client.sendall(inferd_proto.pack(inferd_proto.FrameType.JSON, payload))
            said = b""
            while b'"upgrades"' not in said and (more := client.recv(65_536)):
                said += more
            answered += b'"upgrades"' in said
    return answered


def test_a_thousand_connects_between_two_selves() -> None:
    with running_daemon("--backend", "mock") as daemon, many_files(2048):
        assert burst(daemon, 1000) == 1000


@contextmanager
def streaming(endpoint: Json) -> Iterator[Iterator[tuple[float, bytes]]]:
    """Chunks of a completion without an end, straight from the server, with their times."""
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(LONGEST_GAP_S)
    connection.sock.connect(endpoint["uds"])
    asked = {"messages": HELLO, "max_tokens": 100_000, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), endpoint["headers"])
    with connection.getresponse() as response:
        yield ((time.monotonic(), line) for line in response)
    connection.close()


def test_a_stream_from_an_endpoint_never_notices(daemon: RunningDaemon, tmp_path: Path) -> None:
    model = tmp_path / "endless.gguf"
    models.build_generate_model(model, layers=1, feed_forward=64)
    with connected(daemon.socket) as client:
        endpoint = ensure(client, boot(model=str(model), ctx_size=0))["endpoint"]
        with streaming(endpoint) as chunks:
            next(chunks)
            thread = threading.Thread(target=upgrade, args=(daemon,))
            thread.start()
            times, after = [], 0
            for at, line in chunks:
                times.append(at)
                after += not thread.is_alive()
                if b'finish_reason":"' in line or after > 20:
                    break
            thread.join()
            assert upgrades(daemon) == 1
            gaps = [later - sooner for sooner, later in pairwise(times)]
            assert len(times) > 20
            assert max(gaps) < LONGEST_GAP_S
        assert ask(client, "status")["upgrades"] == 1


def test_a_relayed_request_is_finished_first_and_later_ones_wait() -> None:
    with (
        running_daemon(config=SLOW.format(drain=100)) as daemon,
        connected(daemon.socket) as client,
        connected(daemon.socket, WITHIN_S) as other,
    ):
        client.generate("old", max_tokens=150)
        client.hear()
        ask(other, "daemon.upgrade")
        daemon.wait_for("upgrading")
        other.generate("new", max_tokens=2)
        with connected(daemon.socket, WITHIN_S) as late:
            late.say(op="status", id="s")
            assert client.hear_end("old")["usage"]["output_tokens"] == 150
            assert late.hear()["value"]["upgrades"] == 1
        assert other.hear_end("new")["type"] == "done"
        client.generate("next", max_tokens=2)
        assert client.hear_end("next")["type"] == "done"


def test_a_relayed_request_over_the_deadline_ends_alone() -> None:
    with (
        running_daemon(config=SLOW.format(drain=0.2)) as daemon,
        connected(daemon.socket, WITHIN_S) as client,
    ):
        client.say(op="watch", id="w")
        client.generate("long", max_tokens=100_000)
        client.hear()
        daemon.process.send_signal(signal.SIGUSR2)
        # Who does not read what comes meanwhile may be cut before the last of it.
        assert client.hear_end("long")["code"] == "backend_unavailable"
        wait_until(lambda: upgrades(daemon) == 1, WITHIN_S, "an upgrade")
        client.generate("next", max_tokens=2)
        assert client.hear_end("next")["type"] == "done"


def test_a_long_drain_ends_no_lease_that_its_owner_would_keep() -> None:
    config = SLOW.format(drain=120) + "[limits]\nmax_runtimes = 1\n"
    with (
        leasing_daemon(config, server=llama_server_path()) as daemon,
        connected(daemon.socket, 60) as client,
        connected(daemon.socket, 60) as heard,
        connected(daemon.socket, 60) as unheard,
        connected(daemon.socket, 60) as patient,
    ):
        refs = [
            ensure(owner, boot(), ttl_ms=600_000)["lease"]["lease_ref"]
            for owner in (heard, unheard)
        ]

        def renew(*which: str, ttl_ms: int = TTL_MS) -> None:
            for ref in which:
                ask(heard, "lease.renew", lease_ref=ref, ttl_ms=ttl_ms)

        client.generate("old", max_tokens=1_000_000)
        client.hear()
        patient.say(id="e", op="lease.ensure", target=boot(ctx_size=256), wait_ms=600_000)
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrading" in daemon.events(), WITHIN_S, "its decision")
        renew(*refs)
        # Who waits for room keeps nobody: it hears at once that there is none to be had.
        told = patient.hear_end("e")
        assert told["code"] == "backend_unavailable"
        assert "upgraded" in told["message"]
        # What comes behind a request that has to wait is not looked at.
        unheard.generate("later", max_tokens=1)
        unheard.say(id="n", op="lease.renew", lease_ref=refs[1], ttl_ms=600_000)
        ended = time.monotonic() + 1.5 * TTL_MS / 1000
        while time.monotonic() < ended:
            renew(refs[0])
            time.sleep(0.1)
        assert set(leases(heard)) == set(refs)
        assert upgrades(daemon) == 0
        renew(refs[0], ttl_ms=600_000)
        client.say(id="old", op="cancel")
        assert client.hear_end("old")["stop_reason"] == "cancelled"
        ends: dict[str, Json] = {}
        while len(ends) < 2:  # the two are answered side by side
            if (answer := unheard.hear())["type"] != "frame":
                ends[answer["id"]] = answer
        assert ends["later"]["type"] == "done"
        assert ends["n"]["value"]["lease_ref"] == refs[1]
        assert ask(heard, "status")["upgrades"] == 1
        assert set(leases(heard)) == set(refs)


@pytest.mark.parametrize("leaves", [False, True], ids=["cancels", "hangs up"])
def test_who_calls_an_ensure_off_during_a_drain_gets_no_lease(leaves: bool, tmp_path: Path) -> None:
    server, gate = tmp_path / "slow-server", tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    server.write_text(f'#!/bin/sh\n{wait}\nexec {llama_server_path()} "$@"\n')
    server.chmod(0o755)
    with (
        leasing_daemon(SLOW.format(drain=120), server=server) as daemon,
        connected(daemon.socket, 60) as client,
        connected(daemon.socket, 60) as owner,
    ):
        owner.say(id="e", op="lease.ensure", target=boot(), ttl_ms=60_000)
        wait_until(lambda: "runtime started" in daemon.events(), WITHIN_S, "its start")
        daemon.process.send_signal(signal.SIGUSR2)
        daemon.wait_for("upgrading")
        if leaves:
            owner.sock.close()
        else:
            owner.say(id="e", op="cancel")
            assert owner.hear_end("e")["type"] == "error"
        wait_until(lambda: upgrades(daemon) == 1, WITHIN_S, "an upgrade")
        assert leases(client) == []
        gate.touch()
        wait_until(lambda: "runtime ready" in daemon.events(), WITHIN_S, "its readiness")
        assert leases(client) == []


def test_half_a_message_is_heard_to_its_end(tmp_path: Path) -> None:
    patient = changed(tmp_path, "inferd_daemon.fronts.listener", HALF_MESSAGE_S=60.0)
    with (
        running_daemon("--backend", "mock", environ=patient) as daemon,
        connected(daemon.socket) as client,
    ):
        payload = json.dumps({"wire_version": 1, "op": "status", "id": "s"}).encode()
        message = inferd_proto.pack(inferd_proto.FrameType.JSON, payload)
        client.sock.sendall(message[:20])
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrading" in daemon.events(), WITHIN_S, "its decision")
        client.sock.sendall(message[20:])
        assert client.hear()["value"]["upgrades"] == 0
        wait_until(lambda: upgrades(daemon) == 1, WITHIN_S, "an upgrade")
        assert ask(client, "status")["upgrades"] == 1


def test_who_stalls_in_a_message_keeps_nobody_waiting() -> None:
    with (
        running_daemon("--backend", "mock") as daemon,
        connected(daemon.socket) as stalled,
        connected(daemon.socket, WITHIN_S) as client,
    ):
        stalled.sock.sendall(b"\x7f")
        ask(client, "status")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrading" in daemon.events(), WITHIN_S, "its decision")
        wait_until(lambda: upgrades(daemon) == 1, 10, "an upgrade")
        (gap_ms,) = (line["gap_ms"] for line in daemon.log_lines() if line["event"] == "upgraded")
        assert gap_ms >= HALF_MESSAGE_S * 1000
        assert ask(client, "status")["connections"] == 1
        with pytest.raises(EOFError):
            stalled.hear()


FAILING_EXEC = """
import os
real = os.execve
def fail_once(*_):
    os.execve = real
    raise OSError(7, "Argument list too long")
os.execve = fail_once
"""


def test_an_exec_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING_EXEC)
    with (
        running_daemon("--demo", environ={"PYTHONPATH": str(tmp_path)}) as daemon,
        connected(daemon.socket) as client,
    ):
        wait_until(lambda: "runtime ready" in daemon.events(), 10, "the worker")
        worker, before = worker_of(client), steady_descriptors(daemon.pid)
        daemon.process.send_signal(signal.SIGUSR2)
        daemon.wait_for("upgrade failed, going on", WITHIN_S)
        assert ask(client, "status")["upgrades"] == 0
        assert worker_of(client) == worker
        wait_until(lambda: descriptors(daemon.pid) == before, 2, "what was open before")
        client.generate(max_tokens=2)
        assert client.hear_end()["type"] == "done"
        upgrade(daemon)
        assert ask(client, "status")["upgrades"] == 1
        assert worker_of(client) == worker


def test_signals_that_come_between_two_selves_are_heard() -> None:
    with running_daemon("--backend", "mock") as daemon:
        for _ in range(30):
            daemon.process.send_signal(signal.SIGUSR2)
            time.sleep(0.02)
        wait_until(lambda: upgrades(daemon) >= 1, WITHIN_S, "an upgrade")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: upgrades(daemon) >= 2, WITHIN_S, "another upgrade")
        upgrading = daemon.events().count("upgrading")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(
            lambda: daemon.events().count("upgrading") > upgrading, WITHIN_S, "the next exec"
        )
        time.sleep(0.03)
        assert daemon.stop() == 0
        assert daemon.events()[-1] == "stopped"
        assert not daemon.socket.exists()


@contextmanager
def running_copy() -> Iterator[tuple[Path, RunningDaemon]]:
    """A daemon that runs a copy of its code: where it is, and the daemon."""
    with TemporaryDirectory(prefix="inferd-code-") as name:
        code = Path(name)
        for package in (inferd_daemon, inferd_proto):
            source = Path(package.__path__[0])
            shutil.copytree(
                source, code / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.gguf")
            )
        with running_daemon("--backend", "mock", environ={"PYTHONPATH": name}) as daemon:
            yield code, daemon


def test_the_new_code_runs() -> None:
    with running_copy() as (code, daemon), connected(daemon.socket) as client:
        assert ask(client, "status")["version"] == inferd_proto.__version__
        version = code / "inferd_proto" / "__init__.py"
        text = version.read_text()
        version.write_text(text.replace(f'"{inferd_proto.__version__}"', '"99.0.0"'))
        assert ask(client, "daemon.upgrade") == {"state": "upgrading"}
        wait_until(lambda: upgrades(daemon) == 1, WITHIN_S, "an upgrade")
        assert ask(client, "status")["version"] == "99.0.0"


def ctl(daemon: RunningDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    """What inferdctl said."""
    command = [sys.executable, "-m", "inferd_client.ctl", *words, "--socket", str(daemon.socket)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_inferdctl_upgrades_and_drains() -> None:
    with running_copy() as (code, daemon):
        done = ctl(daemon, "daemon", "upgrade")
        assert done.stderr == ""
        version = inferd_proto.__version__
        assert done.stdout == f"inferd {version} (pid {daemon.pid}) has taken over\n"
        done = ctl(daemon, "daemon", "upgrade", "--json")
        assert json.loads(done.stdout) == {"pid": daemon.pid, "version": version, "upgrades": 2}
        with (code / "inferd_daemon" / "app.py").open("a") as opened:
            opened.write("raise RuntimeError('broken')\n")
        done = ctl(daemon, "daemon", "upgrade")
        assert (done.returncode, done.stdout) == (1, "")
        assert "RuntimeError: broken" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert ctl(daemon, "daemon", "drain").stdout == "the daemon stops\n"
        assert daemon.process.wait(STOP_S) == 0


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("app.py", "raise RuntimeError('broken')", "RuntimeError: broken"),
        ("backends/sse.py", "}", "SyntaxError: unmatched '}'"),
        (
            "supervision/succession/handover.py",
            f"HANDOVER_VERSION = {HANDOVER_VERSION + 1}",
            f"hands over version {HANDOVER_VERSION}, this one takes",
        ),
    ],
)
def test_code_that_does_not_start_is_refused_and_the_old_goes_on(
    file: str, change: str, reason: str
) -> None:
    with running_copy() as (code, daemon), connected(daemon.socket) as client:
        with (code / "inferd_daemon" / file).open("a") as opened:
            opened.write(f"\n{change}\n")
        with pytest.raises(Refused) as refused:
            ask(client, "daemon.upgrade")
        assert refused.value.code == "conflict"
        assert reason in refused.value.message
        daemon.process.send_signal(signal.SIGUSR2)
        wait_until(
            lambda: daemon.events().count("upgrade refused, going on") == 2, WITHIN_S, "the log"
        )
        status = ask(client, "status")
        assert (status["upgrades"], status["ready"]) == (0, True)
        client.generate(max_tokens=2)
        assert client.hear_end()["type"] == "done"


def test_a_configuration_that_takes_a_restart_is_refused(daemon: RunningDaemon) -> None:
    path = daemon.directory / "config.toml"
    right = path.read_text()
    with connected(daemon.socket) as client:
        for wrong, reason in (
            (f'[daemon]\nstate_dir = "{daemon.directory}/other"\n{right}', "state_dir would move"),
            (right.replace('kind = "libllama"', 'kind = "magic"'), "magic"),
        ):
            path.write_text(wrong.replace('default_route = "demo"\n', ""))
            with pytest.raises(Refused) as refused:
                ask(client, "daemon.upgrade")
            assert reason in refused.value.message
        path.write_text(right)
        assert ask(client, "status")["upgrades"] == 0


def test_a_configuration_that_cannot_be_put_together_is_refused() -> None:
    right = '[backends.m]\nkind = "mock"\n'
    with running_daemon(config=right) as daemon, connected(daemon.socket) as client:
        daemon.wait_for("listening")
        journal = next(path for path in daemon.directory.rglob("journal") if path.is_file())
        wait_until(journal.read_bytes, 5, "its first entry")
        written = (journal.stat().st_ino, journal.read_bytes())
        wrong = f'[backends.{"long" * 16}]\nkind = "libllama"\nmodel = "demo"\n'
        (daemon.directory / "config.toml").write_text(wrong)
        with pytest.raises(Refused, match="too long for a Unix socket"):
            ask(client, "daemon.upgrade")
        (daemon.directory / "config.toml").write_text(right)
        assert (journal.stat().st_ino, journal.read_bytes()) == written
        assert ask(client, "status")["upgrades"] == 0
        upgrade(daemon)


def test_what_was_checked_is_what_runs_whatever_the_file_says_by_then() -> None:
    with (
        running_daemon(config=SLOW.format(drain=10)) as daemon,
        connected(daemon.socket) as client,
        connected(daemon.socket, WITHIN_S) as other,
    ):
        client.generate("old", max_tokens=50)
        client.hear()
        ask(other, "daemon.upgrade")
        daemon.wait_for("upgrading")
        (daemon.directory / "config.toml").write_text("half a li")
        assert client.hear_end("old")["type"] == "done"
        # The former self answers short requests as long as it is there.
        wait_until(lambda: ask(other, "status")["upgrades"] == 1, WITHIN_S, "an upgrade")
        other.generate("new", max_tokens=2)
        assert other.hear_end("new")["type"] == "done"


def test_a_runtime_that_is_configured_no_more_is_ended(daemon: RunningDaemon) -> None:
    with connected(daemon.socket) as client:
        endpoint = ensure(client, boot())["endpoint"]
        worker = worker_of(client)
        before = {key: pid for key, pid in pids(client).items() if pid != worker}
        (daemon.directory / "config.toml").write_text('[backends.m]\nkind = "mock"\n')
        upgrade(daemon)
        assert pids(client) == before
        assert not is_alive(worker)
        assert complete(endpoint).status == 200
