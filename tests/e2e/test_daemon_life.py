"""The daemon's process from start to stop: sockets, signals, drains."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.daemon import (
    STOP_S,
    RunningDaemon,
    daemon_command,
    environment,
    running_daemon,
    temporary_directory,
    wait_until,
)
from tests.support.lease_client import boot, ensure
from tests.support.wire_client import connected

CONFIG = """\
[daemon]
drain_timeout_s = {drain}
write_timeout_s = 300
log_format = "json"
[backends.mock]
kind = "mock"
token_ms = {token_ms}
[routes.mock]
backends = ["mock"]
"""
UNREAD = 20_000
"""More tokens than a socket holds: the answer does not end before they are read."""


def run_again(daemon: RunningDaemon) -> subprocess.CompletedProcess[str]:
    """A second daemon for the same socket; it must give up by itself."""
    command = daemon_command(daemon.directory, ("--backend", "mock"), None)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(daemon.directory, {}),
        cwd=daemon.directory,
    )


def test_serves_and_stops() -> None:
    with running_daemon("--backend", "mock") as daemon:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
        assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o700
        with connected(daemon.socket) as client:
            client.generate(max_tokens=3)
            assert client.hear_end()["stop_reason"] == "max_tokens"
            client.say(op="status", id="s")
            status = client.hear()["value"]
        assert (status["pid"], status["state"]) == (daemon.pid, "ready")
        assert status["connections"] == 1
        assert daemon.stop() == 0
        assert not daemon.socket.exists()
        assert daemon.events() == ["listening", "stopping", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish_and_refuses_new_ones(
    number: signal.Signals,
) -> None:
    with (
        running_daemon(config=CONFIG.format(drain=300, token_ms=0)) as daemon,
        connected(daemon.socket) as client,
        connected(daemon.socket) as other,
    ):
        client.generate("old", max_tokens=UNREAD)
        client.hear()
        daemon.process.send_signal(number)
        daemon.wait_for("stopping")
        other.generate("new")
        assert other.hear_end("new")["code"] == "backend_unavailable"
        with connected(daemon.socket) as late:
            late.say(op="status", id="s")
            assert late.hear()["value"]["state"] == "draining"
        assert client.hear_end("old")["usage"]["output_tokens"] == UNREAD
        assert daemon.process.wait(STOP_S) == 0
        with pytest.raises(EOFError):
            client.hear()


def test_a_drain_that_takes_too_long_ends_with_error_frames() -> None:
    with (
        running_daemon(config=CONFIG.format(drain=0.2, token_ms=10)) as daemon,
        connected(daemon.socket) as client,
    ):
        for request_id in "ab":
            client.generate(request_id, max_tokens=100_000)
            while client.hear()["id"] != request_id:
                pass
        started = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        ends: dict[str, str] = {}
        while len(ends) < 2:
            answer = client.hear()
            ends |= {answer["id"]: answer["code"]} if answer["type"] == "error" else {}
        assert 0.15 < time.monotonic() - started < 25
        assert ends == {"a": "backend_unavailable", "b": "backend_unavailable"}
        assert daemon.process.wait(STOP_S) == 0


def test_a_second_signal_ends_at_once_even_with_a_reader_that_sleeps() -> None:
    config = CONFIG.format(drain=300, token_ms=0)
    with running_daemon(config=config) as daemon, connected(daemon.socket) as sleeper:
        sleeper.generate(max_tokens=1_000_000)
        wait_until(lambda: _stalled(sleeper.sock), 5, "a full socket")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("stopping")
        time.sleep(0.1)
        assert daemon.process.poll() is None  # it waits for the reader, as it should
        assert daemon.stop() == 0  # long before the drain would be over
        assert "stopping at once" in daemon.events()


def _stalled(sock: socket.socket) -> bool:
    """Whether what waits to be read has stopped growing."""
    before = len(sock.recv(1_000_000, socket.MSG_PEEK))
    time.sleep(0.05)
    return before == len(sock.recv(1_000_000, socket.MSG_PEEK)) > 0


def test_the_socket_of_a_killed_daemon_is_taken_over() -> None:
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock"), None)
        path = directory / "run" / "inferd.sock"
        for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            with subprocess.Popen(
                command, env=environment(directory, {}), stderr=subprocess.DEVNULL
            ) as process:
                wait_until(lambda: _answers(path), 10, "an answer")
                process.send_signal(number)
        assert process.returncode == 0
        assert not path.exists()


def _answers(path: Path) -> object:
    try:
        with connected(path) as client:
            client.say(op="status", id="s")
            return client.hear()["id"] == "s"
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def test_a_second_daemon_names_the_first_and_leaves_it_alone() -> None:
    with running_daemon("--backend", "mock") as daemon:
        second = run_again(daemon)
        assert second.returncode == 1
        assert second.stderr == (
            f"inferd: another inferd (pid {daemon.pid}) holds {daemon.socket}; stop it, or choose"
            " another --socket\n"
        )
        with connected(daemon.socket) as client:
            client.generate(max_tokens=1)
            assert client.hear_end()["type"] == "done"


def test_a_foreign_listener_is_named_and_left_alone() -> None:
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as foreign:
        (directory / "run").mkdir(mode=0o700)
        path = directory / "run" / "inferd.sock"
        foreign.bind(str(path))
        foreign.listen()
        done = subprocess.run(
            daemon_command(directory, ("--backend", "mock"), None),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(directory, {}),
        )
        assert done.returncode == 1
        assert done.stderr == f"inferd: process {os.getpid()} listens at {path} already\n"
        assert path.is_socket()


def test_closed_standard_error_does_not_stop_it() -> None:
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock", "--log-level", "debug"), None)
        process = subprocess.Popen(
            command, env=environment(directory, {}), stderr=subprocess.PIPE, bufsize=0
        )
        assert process.stderr is not None
        with process, process.stderr as pipe:
            assert any(b"listening" in line for line in iter(pipe.readline, b""))
            pipe.close()
            path = directory / "run" / "inferd.sock"
            with connected(path) as client:
                for number in range(3):
                    client.say(op="no such verb", id=str(number))
                    assert client.hear()["code"] == "invalid_request"
            process.terminate()
            assert process.wait(STOP_S) == 0


STUBBORN = """\
[daemon]
log_format = "json"
drain_timeout_s = 300
[backends.b]
kind = "libllama"
model = "demo"
threads = 1
stop_timeout_s = 300
[backends.mock]
kind = "mock"
token_ms = 10
[routes.b]
backends = ["b"]
[routes.mock]
backends = ["mock"]
"""


def _worker_of(daemon: RunningDaemon) -> int:
    (worker,) = (pid for pid in daemon.processes() if pid != daemon.pid)
    return worker


def test_a_signal_while_a_backend_does_not_stop_kills_it(tmp_path: Path) -> None:
    deaf = tmp_path / "engine"
    server = f'"{sys.executable}" -m inferd_daemon.engines.llama_server.bundled_server "$@"'
    deaf.write_text(f"#!/bin/sh\ntrap '' INT\n{server} &\nwhile :; do sleep 1; done\n")
    deaf.chmod(0o755)
    with running_daemon(config=STUBBORN) as daemon, connected(daemon.socket, 90) as client:
        spec = boot(binary_path=str(deaf), stop_timeout_ms=300_000, ready_timeout_ms=60_000)
        ensure(client, spec, ttl_ms=600_000)
        left = {pid for pid in daemon.processes() if pid != daemon.pid}
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(EOFError):  # the drain is over
            client.hear()
        time.sleep(0.3)
        assert daemon.process.poll() is None  # it waits for the worker
        for number in (signal.SIGHUP, signal.SIGTERM):  # the first is no stop here
            daemon.process.send_signal(number)
        assert daemon.process.wait(STOP_S) == 0
        assert "killing what still runs" in daemon.events()
        wait_until(lambda: not left & {*daemon.processes()}, 2, "the end of the engine")


def test_a_second_signal_in_the_drain_kills_what_would_not_stop() -> None:
    with running_daemon(config=STUBBORN) as daemon, connected(daemon.socket) as client:
        daemon.wait_for("runtime ready", 15)
        os.kill(_worker_of(daemon), signal.SIGSTOP)
        client.generate("long", model="mock", max_tokens=100_000)
        client.hear()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("stopping")
        assert daemon.stop() == 0  # long before the drain, or the worker's time, would be over
        assert "stopping at once" in daemon.events()


def test_sighup_begins_anew_and_ends_nothing() -> None:
    with running_daemon("--backend", "mock") as daemon:
        pid = daemon.pid
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("upgraded", 10)
        with connected(daemon.socket) as client:
            client.say(op="status", id="s")
            assert client.hear()["value"]["pid"] == pid


def test_sighup_is_the_end_of_one_that_runs_in_a_terminal() -> None:
    ours, theirs = os.openpty()
    with temporary_directory() as directory:
        process = subprocess.Popen(
            daemon_command(directory, ("--backend", "mock"), None),
            stdin=theirs,
            stderr=subprocess.DEVNULL,
            env=environment(directory, {}),
        )
        os.close(theirs)
        try:
            with process:
                path = directory / "run" / "inferd.sock"
                wait_until(lambda: _answers(path), 10, "an answer")
                process.send_signal(signal.SIGHUP)
                assert process.wait(STOP_S) == 0
                assert not path.exists()
        finally:
            os.close(ours)


def test_a_pipe_that_nobody_reads_does_not_hold_it_up() -> None:
    with temporary_directory() as directory:
        command = daemon_command(directory, ("--backend", "mock", "--log-level", "debug"), None)
        process = subprocess.Popen(
            command, env=environment(directory, {}), stderr=subprocess.PIPE, bufsize=0
        )
        assert process.stderr is not None
        with process, process.stderr as pipe:
            assert any(b"listening" in line for line in iter(pipe.readline, b""))
            with connected(directory / "run" / "inferd.sock") as client:
                # each is a line of over 100 bytes: together more than a pipe holds
                for number in range(1000):
                    client.generate(f"{number}", max_tokens=1)
                    client.hear_end(f"{number}")
                os.set_blocking(pipe.fileno(), False)
                # a request's line may follow its answer: the next one tells of the loss wherever
                # it falls, among what is held now or behind it
                seen = bytearray(_drain(pipe.fileno()))
                client.generate("last", max_tokens=1)
                client.hear_end("last")

                def hear_of_the_loss() -> bool:
                    seen.extend(_drain(pipe.fileno()))
                    return b'"lines_lost":' in seen

                wait_until(hear_of_the_loss, 5, "a line that tells of lost ones")
            process.terminate()
            assert process.wait(STOP_S) == 0


def _drain(descriptor: int) -> bytes:
    """What a pipe holds now."""
    got = b""
    try:
        while piece := os.read(descriptor, 65_536):
            got += piece
    except BlockingIOError:
        pass
    return got
