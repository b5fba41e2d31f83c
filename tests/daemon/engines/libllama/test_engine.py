"""The libllama worker as a process: what it opens, what it tells, how it fails and how it goes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.config import LibllamaConfig
from inferd_daemon.engines.failures import Cause
from inferd_daemon.engines.http_probe import fetch
from inferd_daemon.engines.libllama.engine import LibllamaEngine, engine_environment
from inferd_daemon.errors import BackendFault, OperatorError
from inferd_daemon.models.demo import demo_model_path
from inferd_daemon.supervision.runtimes.backoff import RestartPolicy
from inferd_daemon.supervision.runtimes.machine import State
from tests.support import models
from tests.support.daemon import wait_until
from tests.support.processes import is_alive, until
from tests.support.serving import DEADLINE_S, Serving, answer, ask, serving


def read_all(*paths: str) -> bytes:
    return b"".join(Path(path).read_bytes() for path in paths)


def internet_sockets(pid: int) -> list[str]:
    """The lines of /proc/net for the TCP and UDP sockets that `pid` holds."""
    links: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            links.append(os.readlink(entry))
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found: list[str] = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        found += [row for row in rows if row.split()[9] in inodes]
    return found


async def stopped(one: Serving) -> None:
    one.supervisor.stop()
    with trio.fail_after(DEADLINE_S):
        while one.supervisor.state is not State.STOPPED:
            await one.supervisor.wait_changed()


def test_the_port_check_sees_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert len(internet_sockets(os.getpid())) >= 1


async def test_it_opens_no_port_and_its_socket_is_private(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        await answer(demo.backend, ask())
        assert internet_sockets(demo.pid) == []
        path = demo.supervisor.endpoint.uds
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_nothing_is_told_without_the_key(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        endpoint = demo.supervisor.endpoint
        for path in ("/props", "/slots", "/v1/models"):
            status, _ = await fetch(Endpoint(uds=endpoint.uds), path)
            assert status == 401
            status, _ = await fetch(endpoint, path)
            assert status == 200


async def test_key_and_prompt_stand_nowhere(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        key = demo.supervisor.endpoint.key
        assert key is not None
        assert len(key) >= 40
        await answer(demo.backend, ask("my secret question"))
        seen = read_all(f"/proc/{demo.pid}/cmdline", f"/proc/{demo.pid}/environ")
        log = read_all(str(demo.supervisor.log.path))
        assert key.encode() not in seen + log
        assert b"secret question" not in log
        assert key not in repr(demo.supervisor.endpoint)
        assert key not in repr(demo.supervisor.status())


def test_the_environment_carries_no_settings_and_no_secrets() -> None:
    inherited = {
        "PATH": "/bin",
        "LLAMA_ARG_CTX_SIZE": "7",
        "OPENAI_API_KEY": "k",
        "HF_TOKEN": "t",
        "DATABASE_PASSWORD": "p",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "LISTEN_FDS": "1",
        "HOME": "/root",
    }
    assert engine_environment(inherited) == {
        "PATH": "/bin",
        "HOME": "/root",
        "GGML_NO_BACKTRACE": "1",
    }


async def test_it_tells_what_it_serves(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo", parallel=2, ctx_size=2048) as demo:
        facts = demo.supervisor.facts
        assert facts is not None
        assert (facts.model, facts.slots, facts.n_ctx) == ("demo", 2, 2048)
        assert facts.accelerator
        assert facts.template_tools
        assert demo.backend.capabilities.n_ctx == 2048


async def test_unloading_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo", stop_timeout_s=30) as demo:
        pid = demo.pid
        directory = demo.supervisor.endpoint.uds
        assert directory is not None
        await stopped(demo)
        assert demo.supervisor.last_returncode == 0  # of its own accord
        assert not is_alive(pid)
        assert list(directory.parent.iterdir()) == []
        with pytest.raises(BackendFault, match="stopped"):
            await answer(demo.backend, ask())
        demo.supervisor.start()
        assert (await answer(demo.backend, ask())).text


async def test_unloading_in_the_middle_of_a_load_does_not_wait_for_it(tmp_path: Path) -> None:
    model = tmp_path / "slow.gguf"
    os.mkfifo(model)  # nobody writes to it: a load that never ends
    async with serving(tmp_path, model, wait=False, stop_timeout_s=30) as slow:
        path = slow.supervisor.endpoint.uds
        assert path is not None
        await until(path.exists)
        await stopped(slow)
        assert slow.supervisor.last_returncode == -signal.SIGINT  # the first, not the last resort
        assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "cause", "words"),
    [
        (None, Cause.MODEL_MISSING, "No such file or directory"),
        (models.truncate, Cause.MODEL_CORRUPT, "corrupted or incomplete"),
        (models.spoil_magic, Cause.MODEL_CORRUPT, "invalid magic characters: 'GGML'"),
        (models.spoil_version, Cause.MODEL_UNSUPPORTED, "this GGUF file is version 99"),
        (lambda _, path: path.mkdir(), Cause.MODEL_CORRUPT, "failed to read magic"),
        (lambda _, path: path.touch(), Cause.MODEL_CORRUPT, "failed to read magic"),
    ],
)
async def test_a_bad_model_is_one_clear_error_and_no_restart(
    spoil: Callable[[Path, Path], None] | None, cause: Cause, words: str, tmp_path: Path
) -> None:
    model = tmp_path / "bad.gguf"
    if spoil is not None:
        spoil(demo_model_path(), model)
    async with serving(tmp_path, model, wait=False) as bad:
        with pytest.raises(BackendFault) as refused:
            await answer(bad.backend, ask())
        assert bad.supervisor.machine.restarts == 0
        assert words in refused.value.message
        assert bad.supervisor.machine.last_failure is not None
        assert bad.supervisor.machine.last_failure.cause is cause
        assert bad.supervisor.state is State.FAILED


async def test_a_model_that_was_repaired_starts_when_asked(tmp_path: Path) -> None:
    model = tmp_path / "late.gguf"
    async with serving(tmp_path, model) as late:
        assert late.supervisor.state is State.FAILED
        model.write_bytes(demo_model_path().read_bytes())
        late.supervisor.start()
        assert (await answer(late.backend, ask())).text


async def test_a_model_larger_than_the_machine_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "large.gguf"
    model.write_bytes(demo_model_path().read_bytes())
    os.truncate(model, 2**43)
    async with serving(tmp_path, model) as large:
        readiness = large.supervisor.readiness()
        assert "insufficient memory: the model file has 8192.0 GiB" in readiness.reason
        assert large.supervisor.machine.last_failure is not None
        assert large.supervisor.machine.last_failure.cause is Cause.OUT_OF_MEMORY


async def test_a_context_larger_than_memory_is_refused_and_kills_nobody(tmp_path: Path) -> None:
    model = tmp_path / "wide.gguf"
    # 2 * 300 layers * 364 numbers of two bytes for each cell: 300 GB for 700,000 cells.
    models.build_generate_model(model, layers=300, feed_forward=1)
    async with serving(tmp_path, model, ctx_size=700_000) as wide:
        assert wide.supervisor.machine.last_failure is not None
        assert wide.supervisor.machine.last_failure.cause is Cause.OUT_OF_MEMORY
        assert "insufficient memory" in wide.supervisor.readiness().reason


async def test_a_missing_projector_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo", mmproj=str(tmp_path / "none.gguf")) as blind:
        assert blind.supervisor.machine.last_failure is not None
        assert blind.supervisor.machine.last_failure.cause is Cause.PROJECTOR_UNUSABLE


async def test_a_load_beyond_its_deadline_is_stopped(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo", ready_timeout_s=0.001) as late:
        assert "not ready after 0.001 s" in late.supervisor.readiness().reason
        assert late.supervisor.process is None


async def test_the_worker_goes_when_the_daemon_lets_go(tmp_path: Path) -> None:
    at_rest = RestartPolicy(first_s=DEADLINE_S, longest_s=DEADLINE_S)
    async with serving(tmp_path, "demo", policy=at_rest) as demo:
        pid, path = demo.pid, demo.supervisor.endpoint.uds
        assert path is not None
        demo.supervisor.engine.discard()
        await until(lambda: not is_alive(pid))
        assert not path.exists()


def freeze(pid: int) -> None:
    """SIGSTOP; returns when the last thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


async def test_a_worker_that_was_stopped_hears_the_first_interrupt(tmp_path: Path) -> None:
    """Whichever of its threads the kernel has take it."""
    at_rest = RestartPolicy(first_s=DEADLINE_S, longest_s=DEADLINE_S)
    async with serving(tmp_path, "demo", policy=at_rest) as demo:
        freeze(demo.pid)
        os.kill(demo.pid, signal.SIGINT)
        os.kill(demo.pid, signal.SIGCONT)
        await until(lambda: demo.supervisor.process is None)
        assert demo.supervisor.last_returncode == 0


DAEMON = """
import sys, trio
from pathlib import Path
from tests.support.serving import serving

async def main():
    async with serving(Path(sys.argv[1]), "demo") as demo:
        print(demo.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_a_killed_daemon_takes_its_worker_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DAEMON, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        lines = iter(daemon.stdout.readline, b"")
        pid = int(next(line for line in lines if line.strip().isdigit()))
        assert is_alive(pid)
        daemon.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), 5, "the end of the worker")


def test_a_socket_path_that_is_too_long_is_the_operators_to_change(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="too long for a Unix socket"):
        LibllamaEngine("x", LibllamaConfig(model="demo"), tmp_path / ("d" * 120))


async def test_the_endpoint_stays_over_restarts(tmp_path: Path) -> None:
    async with serving(tmp_path, "demo") as demo:
        before, pid = demo.supervisor.endpoint, demo.pid
        await demo.supervisor.restart()
        with trio.fail_after(DEADLINE_S):
            assert (await demo.supervisor.wait_settled()).ready
        assert demo.supervisor.endpoint == before
        assert demo.pid != pid
