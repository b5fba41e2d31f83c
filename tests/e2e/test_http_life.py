"""The HTTP front from its start to its stop: where it listens, TLS, drain, upgrade, metrics."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.agent_client import agent_daemon
from tests.support.daemon import (
    STOP_S,
    RunningDaemon,
    daemon_command,
    environment,
    running_daemon,
    temporary_directory,
    wait_until,
)
from tests.support.held_upstream import WORD, held_upstream
from tests.support.http_client import (
    MOCK,
    addresses,
    ask,
    chat,
    connect,
    ended,
    get,
    http_daemon,
    port_of,
    read_answer,
    read_until,
)
from tests.support.lease_client import Refused
from tests.support.lease_client import ask as query
from tests.support.ports import kept_port
from tests.support.wire_client import connected

WITHIN_S = 20.0
"""A preflight and a start on a busy machine, bytecode not written."""
SELF_SIGNED = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
    *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
)
HEAVY = ("hypercorn", "starlette", "prometheus_client", "h11", "h2")


def upgrade(daemon: RunningDaemon) -> None:
    before = daemon.events().count("upgraded")
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(
        lambda: daemon.events().count("upgraded") > before,
        WITHIN_S,
        f"an upgrade; it said:\n{daemon.log}",
    )


def test_nothing_listens_and_nothing_is_loaded_without_the_table() -> None:
    script = (
        "import sys, inferd_daemon.main\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {HEAVY!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    with running_daemon(config=MOCK) as daemon:
        assert not any(event.startswith("listening for HTTP") for event in daemon.events())
        maps = Path(f"/proc/{daemon.pid}/net/tcp").read_text() if daemon.pid else ""
        inodes = {line.split()[9] for line in maps.splitlines()[1:]}
        assert not inodes & sockets_of(daemon)


def imported(daemon: RunningDaemon) -> set[str]:
    """Top-level packages, where it was told to say what it imports."""
    lines = daemon.log.splitlines()
    told = [line.rpartition("|")[2] for line in lines if line.startswith("import time:")]
    return {name.strip().partition(".")[0] for name in told}


def test_the_stack_is_loaded_by_a_daemon_that_needs_it_alone() -> None:
    tell = {"PYTHONPROFILEIMPORTTIME": "1"}
    with running_daemon(config=MOCK, environ=tell) as daemon:
        with connected(daemon.socket) as client:
            assert query(client, "status")["http"] == []
        assert "trio" in imported(daemon)
        assert not imported(daemon) & set(HEAVY)
    with running_daemon(config='[http]\nlisten = "127.0.0.1:0"\n' + MOCK, environ=tell) as daemon:
        wait_until(lambda: {"hypercorn", "starlette"} <= imported(daemon), WITHIN_S, "the stack")


def sockets_of(daemon: RunningDaemon) -> set[str]:
    found = set()
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def test_health_models_and_status() -> None:
    with http_daemon() as daemon:
        health = ask(daemon, get("/health"))
        assert (health.status, json.loads(health.body)) == (200, {"status": "ok"})
        models = json.loads(ask(daemon, get("/v1/models")).body)["data"]
        assert [(one["id"], one["ready"]) for one in models] == [("mock", True), ("slow", True)]
        one = json.loads(ask(daemon, get("/v1/models/slow")).body)
        assert (one["id"], one["object"]) == ("slow", "model")
        assert ask(daemon, get("/v1/models", host="localhost")).status == 200
        assert ask(daemon, get("/v1/models", host="[::1]:99")).status == 200
        with connected(daemon.socket) as client:
            status = query(client, "status")
        assert status["http"] == addresses(daemon)


def test_a_unix_socket_with_its_mode() -> None:
    with temporary_directory() as directory:
        path = directory / "http.sock"
        config = f'[http]\nunix = "{path}"\nunix_mode = "0600"\n{MOCK}'
        with running_daemon(config=config) as daemon:
            daemon.wait_for("listening for HTTP")
            assert path.stat().st_mode & 0o777 == 0o600
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(path))
                    sock.sendall(get("/health", host="whatever"))
                    assert read_answer(sock).status == 200
                upgrade(daemon)
        assert not path.exists()


def test_tls() -> None:
    with temporary_directory() as directory:
        cert, key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(
            [*SELF_SIGNED, "-keyout", str(key), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
        with http_daemon(f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"') as daemon:
            trusting = ssl.create_default_context(cafile=cert)
            port = port_of(daemon)
            client = http.client.HTTPSConnection(
                "localhost", port, timeout=WITHIN_S, context=trusting
            )
            for _ in range(2):
                client.request("POST", "/v1/chat/completions", chat().partition(b"\r\n\r\n")[2])
                answer = client.getresponse()
                assert (answer.status, b"tok15" in answer.read()) == (200, True)
            assert client.sock.version() == "TLSv1.3"
            with connect(daemon) as plain:  # what is no TLS at all
                plain.sendall(get("/health"))
                assert ended(plain)
            with connect(daemon) as silent:
                upgrade(daemon)
                assert ended(silent)
            client.close()
            client.request("GET", "/health")
            assert client.getresponse().status == 200
            client.close()
            assert "failed unexpectedly" not in daemon.log


def test_what_is_wrong_is_said_before_anything_starts() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with taken, temporary_directory() as directory:
        (directory / "short").write_text("short\n")
        for table, reason in (
            (f'[http]\nlisten = "127.0.0.1:{port}"', "http.listen: another program listens on"),
            (f'[http.clients.a]\nkey_file = "{directory}/short"', "under 16 characters"),
            ('[http.clients.a]\nkey_env = "NOT_THERE"', "line 2: http.clients.a.key_env"),
            (
                '[http]\ntls_cert_file = "/no"\ntls_key_file = "/no"',
                "http.tls_cert_file: cannot be read",
            ),
            ('[http]\nunix = "/tmp/x.sock"\nunix_group = "no-such-group"', "there is no group"),
        ):
            ran = subprocess.run(
                daemon_command(directory, (), f"{table}\n{MOCK}"),
                capture_output=True,
                text=True,
                env=environment(directory, {}),
                timeout=100,
                check=False,
            )
            assert ran.returncode == 1
            assert reason in ran.stderr, table
            assert "Traceback" not in ran.stderr


def test_a_stop_lets_running_requests_finish() -> None:
    with (
        held_upstream() as upstream,
        http_daemon(daemon="drain_timeout_s = 100", more=MOCK + upstream.config) as daemon,
    ):
        with connect(daemon) as sock, connect(daemon) as idle:
            sock.sendall(chat("held"))
            wait_until(lambda: b'active{route="held"} 1.0' in metrics(daemon), 5, "it to run")
            daemon.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "stopping" in daemon.events(), 5, "the stop")
            idle.sendall(chat())
            refused = read_answer(idle)
            assert (refused.status, refused.error["code"]) == (503, "backend_unavailable")
            upstream.told.set()
            answer = read_answer(sock)
            assert (answer.status, WORD.encode() in answer.body) == (200, True)
        assert daemon.process.wait(STOP_S) == 0


def metrics(daemon: RunningDaemon) -> bytes:
    return ask(daemon, get("/metrics")).body


def test_a_stop_ends_what_does_not_finish() -> None:
    with http_daemon(daemon="drain_timeout_s = 0.2") as daemon:
        with connect(daemon) as streamed, connect(daemon) as whole:
            streamed.sendall(chat("slow", stream=True, max_tokens=100_000))
            whole.sendall(chat("slow", max_tokens=100_000))
            read_until(streamed, b"tok1 ")
            wait_until(lambda: b'active{route="slow"} 2.0' in metrics(daemon), 5, "both to run")
            daemon.process.send_signal(signal.SIGTERM)
            answer = read_answer(whole)
            assert (answer.status, answer.error["code"]) == (503, "backend_unavailable")
            assert b"the daemon is stopping" in read_until(streamed, b"0\r\n\r\n")
        assert daemon.process.wait(STOP_S) == 0


def test_an_upgrade_refuses_nobody_and_keeps_idle_connections() -> None:
    with http_daemon() as daemon:
        stop = threading.Event()
        failures: list[str] = []
        served = [0]

        def connects() -> None:
            while not stop.is_set():
                try:
                    served[0] += ask(daemon, chat(max_tokens=3)).status == 200
                except (OSError, AssertionError) as error:
                    failures.append(repr(error))

        with connect(daemon) as idle, connect(daemon) as streaming:
            idle.sendall(get("/health"))
            assert read_answer(idle).status == 200
            threads = [threading.Thread(target=connects) for _ in range(4)]
            for thread in threads:
                thread.start()
            streaming.sendall(chat("slow", stream=True, max_tokens=40))
            port = port_of(daemon)
            try:
                for _ in range(2):
                    upgrade(daemon)
                    time.sleep(0.2)
                wait_until(lambda: served[0] > 20, WITHIN_S, "some requests")
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert failures == []
            assert b"tok39 " in read_until(streaming, b"0\r\n\r\n")
            for sock in (idle, streaming):
                sock.sendall(get("/health"))
                assert read_answer(sock).status == 200
        assert port_of(daemon) == port
        assert "failed unexpectedly" not in daemon.log


def test_an_upgrade_takes_over_another_table() -> None:
    with http_daemon() as daemon:
        first = port_of(daemon)
        path = daemon.directory / "config.toml"
        with kept_port() as new:
            with socket.create_server(("127.0.0.1", new)):
                changed = path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{new}")
                path.write_text(changed)
                daemon.process.send_signal(signal.SIGUSR2)
                daemon.wait_for("upgrade refused, going on", WITHIN_S)
                assert "another program listens" in daemon.log
                assert ask(daemon, get("/health")).status == 200
            upgrade(daemon)
        wait_until(lambda: port_of(daemon) == new, 5, "the new port")
        assert ask(daemon, get("/health")).status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first))


def test_metrics_count_both_fronts() -> None:
    with http_daemon() as daemon:
        assert ask(daemon, chat(max_tokens=5)).status == 200
        assert ask(daemon, chat("nothing")).status == 404
        with connected(daemon.socket) as client:
            client.generate(model="mock")
            assert client.hear_end()["type"] == "done"
            for counted in (
                b'inferd_requests_total{kind="generate",outcome="ok",route="mock"} 2.0',
                b'inferd_http_responses_total{status="404"} 1.0',
            ):  # after the answer
                wait_until(lambda: counted in metrics(daemon), 1, f"{counted!r}")  # noqa: B023
            told = query(client, "metrics")["metrics"]
        text = metrics(daemon).decode()
        assert 'inferd_first_token_seconds_bucket{le="+Inf",route="mock"} 2.0' in text
        by_name = {family["name"]: family["samples"] for family in told}
        assert by_name["inferd_requests"] == [
            {"labels": {"route": "mock", "kind": "generate", "outcome": "ok"}, "value": 2}
        ]
        content_type = ask(daemon, get("/metrics")).headers["content-type"]
        assert content_type.startswith("text/plain; version=0.0.4")


def test_the_service_manager_may_listen() -> None:
    with temporary_directory() as directory, socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = daemon_command(directory, (), f'[http]\nlisten = "127.0.0.1:{port}"\n{MOCK}')
        script = (
            "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.set_inheritable(3, True)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\nos.execv(sys.argv[2], sys.argv[2:])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listening.fileno()), *command],
            env=environment(directory, {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "inferd-http"}),
            pass_fds=(listening.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        try:
            assert upgrades(port) == 0
            process.send_signal(signal.SIGUSR2)
            wait_until(lambda: upgrades(port) == 1, WITHIN_S, "an upgrade")
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
            process.wait()


def upgrades(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port), WITHIN_S) as sock:
        sock.sendall(get("/metrics"))
        text = read_answer(sock).body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith("inferd_upgrades_total "))
    return float(line.rpartition(" ")[2])


def test_an_agents_lease_opens_a_door_for_leases_alone(tmp_path: Path) -> None:
    config = '[backends.demo]\nkind = "libllama"\nmodel = "demo"\n'
    config += '[routes.demo]\nbackends = ["demo"]\n'
    with (
        agent_daemon(tmp_path, config) as daemon,
        connected(daemon.socket, 3 * WITHIN_S) as client,
    ):
        with pytest.raises(Refused, match="has no HTTP front"):
            query(client, "lease.ensure", target="demo", transport="tcp", ttl_ms=60_000)
        assert query(client, "status")["http"] == []
        agent = {"agent": "claude", "model": "opus"}
        query(client, "lease.ensure", target=agent, ttl_ms=600_000)
        for expected in ("opened", "the same after an upgrade"):
            ensured = query(client, "lease.ensure", target="demo", transport="tcp", ttl_ms=600_000)
            (address,) = query(client, "status")["http"]
            base_url = ensured["endpoint"]["base_url"]
            assert base_url.startswith(f"{address}/leases/"), expected
            asked = base_url.removeprefix(address) + "/models"
            ((name, value),) = ensured["endpoint"]["headers"].items()
            assert ask(daemon, get(asked, f"{name}: {value}")).status == 200
            assert ask(daemon, get(asked)).status == 401
            assert ask(daemon, get("/health")).status == 200
            for path in ("/v1/models", "/metrics", "/leases"):
                answer = ask(daemon, get(path))
                assert (answer.status, answer.error["code"]) == (404, "not_found")
            assert ask(daemon, get("/health", host="evil.example")).status == 403
            upgrade(daemon)
        assert query(client, "status")["http"] == [address]
