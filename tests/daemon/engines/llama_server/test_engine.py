"""Engine `llama_server` on real processes: the real binary and the bundled one alike."""

import os
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.engines.base import EngineFailure, Health
from inferd_daemon.engines.failures import Cause, Failure
from inferd_daemon.engines.llama_server.address import base_url, headers, root_url
from inferd_daemon.engines.llama_server.binary import BUNDLED, find_command
from inferd_daemon.engines.llama_server.boot_spec import BootSpecError, normalise
from inferd_daemon.engines.llama_server.engine import LlamaServerEngine
from inferd_daemon.engines.secret import Secret
from inferd_daemon.models.demo import demo_model_path
from inferd_daemon.supervision.processes.process import Process, spawn
from inferd_daemon.supervision.runtimes.readiness import wait_ready
from tests.support.llama_server import llama_server_path
from tests.support.models import (
    build_embedding_model,
    build_generate_model,
    build_rerank_model,
    truncate,
)
from tests.support.processes import until

DEMO = str(demo_model_path())
READY_S = 60.0
HERE = "127.61.7.4"
"""Loopback as well, where no other test takes a port that is free here for a while."""


@pytest.fixture(params=["real", "bundled"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A daemon's environment that leads to one of the two servers, with traps in it."""
    inherited = {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "LLAMA_ARG_PORT": "1",
        "LLAMA_ARG_CTX_SIZE": "not a number",
        "LLAMA_API_KEY": "somebody else's",
    }
    if request.param == "real":
        inherited["INFERD_LLAMA_SERVER"] = str(llama_server_path())
    return inherited


class Running:
    """A process, its engine and its log."""

    def __init__(self, engine: LlamaServerEngine, process: Process, log: Path) -> None:
        self.engine, self.process, self.log = engine, process, log

    async def get(self, path: str, *, body: object = None, key: bool = True) -> httpx.Response:
        return await _get(self.engine.endpoint, path, body=body, key=key)


async def _get(
    endpoint: Endpoint, path: str, *, body: object = None, key: bool = True
) -> httpx.Response:
    transport = PlainTransport(uds=str(endpoint.uds) if endpoint.uds else None)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        with trio.fail_after(READY_S):
            return await client.request(
                "GET" if body is None else "POST",
                root_url(endpoint) + path,
                json=body,
                headers=headers(endpoint) if key else {},
            )


@asynccontextmanager
async def _started(engine: LlamaServerEngine, log: Path) -> AsyncIterator[Running]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = spawn(engine.prepare(), log_fd=descriptor)
    finally:
        os.close(descriptor)
    engine.spawned()
    try:
        yield Running(engine, process, log)
    finally:
        if process.returncode is None:
            await process.kill()
        process.close()
        engine.discard()


@asynccontextmanager
async def _ready(engine: LlamaServerEngine, log: Path) -> AsyncIterator[Running]:
    async with _started(engine, log) as running:
        with trio.fail_after(READY_S):
            await wait_ready(engine)
            await engine.learn()
        yield running


def _engine(
    tmp_path: Path,
    environment: dict[str, str],
    raw: dict[str, object],
    *,
    key: Secret | None = None,
    port: int | None = None,
) -> LlamaServerEngine:
    spec = normalise({"model": DEMO, "ctx_size": 512, "parallel": 1} | raw)
    directory = tmp_path / "rt"
    return LlamaServerEngine("test", spec, directory, environment=environment, key=key, port=port)


async def _end_of(engine: LlamaServerEngine, log: Path) -> Failure:
    async with _started(engine, log) as running:
        with trio.fail_after(READY_S):
            returncode = await running.process.wait()
    return engine.explain(returncode, _text(log).splitlines())


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _proc(process: Process, name: str) -> bytes:
    return Path(f"/proc/{process.pid}/{name}").read_bytes()


def _hears(process: Process, number: signal.Signals) -> bool:
    """Whether it has a handler for the signal."""
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)", _proc(process, "status").decode(), re.MULTILINE)
    return bool(int(mask, 16) & 1 << number - 1)


# -- serving -------------------------------------------------------------------------------


async def test_serves_on_a_private_socket_with_a_key(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    engine = _engine(tmp_path, environment, {"alias": "demo"})
    async with _ready(engine, tmp_path / "log") as running:
        uds = engine.endpoint.uds
        assert uds is not None
        assert stat.S_IMODE(uds.stat().st_mode) == 0o600
        assert stat.S_IMODE(uds.parent.stat().st_mode) == 0o700
        assert base_url(engine.endpoint) == "http://localhost/v1"
        assert (await running.get("/v1/models", key=False)).status_code == 401
        models = (await running.get("/v1/models")).json()
        assert models["data"][0]["id"] == "demo"
        answer = await running.get(
            "/v1/chat/completions",
            body={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
        )
        assert answer.json()["usage"]["completion_tokens"] == 4
        assert not _tcp_ports(running.process.pid)

        key = engine.endpoint.key
        assert key is not None
        assert len(key) >= 40
        assert key.encode() not in _proc(running.process, "cmdline")
        # A server may answer a moment before it has set its own handlers.
        await until(lambda: _hears(running.process, signal.SIGINT))
        # 1 is that of one who is late, and was interrupted again.
        assert await running.process.stop(READY_S) in (0, 1)
        assert key not in _text(running.log)
    assert not uds.exists()


async def test_address_and_key_stay_over_restarts_and_a_stale_socket(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    engine = _engine(tmp_path, environment, {})
    endpoint = engine.endpoint
    assert endpoint.uds is not None
    async with _ready(engine, tmp_path / "log") as running:
        os.kill(running.process.pid, signal.SIGKILL)
        await running.process.wait()
        assert endpoint.uds.exists()  # nobody removed it
        async with _ready(engine, tmp_path / "log") as again:
            assert engine.endpoint == endpoint
            assert (await again.get("/v1/models")).status_code == 200


async def test_a_former_key_is_kept(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = _engine(tmp_path, environment, {}, key=Secret("of-the-former-run"))
    async with _ready(engine, tmp_path / "log") as running:
        assert engine.endpoint.key == "of-the-former-run"
        assert (await running.get("/v1/models")).status_code == 200


async def test_a_key_file(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key\nsecond-key\n")
    engine = _engine(tmp_path, environment, {"api_key_file": str(file)})
    async with _ready(engine, tmp_path / "log") as running:
        assert engine.endpoint.key == "first-key"
        assert (await running.get("/v1/models")).status_code == 200
        assert b"first-key" not in _proc(running.process, "environ")


async def test_a_free_port_is_found_kept_and_prefixed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    raw: dict[str, object] = {"host": HERE, "port": 0, "api_prefix": "/llm"}
    engine = _engine(tmp_path, environment, raw)
    async with _ready(engine, tmp_path / "log") as running:
        port = engine.endpoint.port
        assert port
        assert base_url(engine.endpoint) == f"http://{HERE}:{port}/llm/v1"
        assert _tcp_ports(running.process.pid) == {(HERE, port)}
        (model,) = (await running.get("/v1/models")).json()["data"]
        assert model["id"] == engine.name
        await running.process.stop(5)
        async with _ready(engine, tmp_path / "log"):
            assert engine.endpoint.port == port
    restored = _engine(tmp_path, environment, raw, port=port)
    assert restored.endpoint.port == port


async def test_a_port_that_was_found_and_is_forgotten_may_be_another(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    engine = _engine(tmp_path, environment, {"host": HERE, "port": 0})
    async with _ready(engine, tmp_path / "log"):
        port = engine.endpoint.port
        assert port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HERE, port))
        taken.listen()
        with pytest.raises(EngineFailure, match="already in use"):
            engine.prepare()
        engine.forget_address()
        engine.prepare()
        assert engine.endpoint.port != port


async def test_a_port_in_use_is_told_before_the_start(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        engine = _engine(tmp_path, environment, {"port": taken.getsockname()[1]})
        with pytest.raises(EngineFailure, match=r"port.*Address already in use") as caught:
            engine.prepare()
    assert caught.value.failure.cause is Cause.ADDRESS_UNUSABLE
    await trio.lowlevel.checkpoint()


async def test_embeddings(tmp_path: Path, environment: dict[str, str]) -> None:
    model = tmp_path / "embed.gguf"
    build_embedding_model(model)
    engine = _engine(tmp_path, environment, {"model": str(model), "embeddings": True})
    async with _ready(engine, tmp_path / "log") as running:
        answer = await running.get("/v1/embeddings", body={"input": ["one", "two"]})
        assert len(answer.json()["data"]) == 2


async def test_reranking(tmp_path: Path, environment: dict[str, str]) -> None:
    model = tmp_path / "rerank.gguf"
    build_rerank_model(model)
    engine = _engine(tmp_path, environment, {"model": str(model), "reranking": True})
    async with _ready(engine, tmp_path / "log") as running:
        answer = await running.get("/v1/rerank", body={"query": "a", "documents": ["b", "c"]})
        assert len(answer.json()["results"]) == 2


async def test_what_the_server_says_of_itself(tmp_path: Path, environment: dict[str, str]) -> None:
    raw: dict[str, object] = {"parallel": 2, "ctx_size": 1024, "model_identity": "mine"}
    engine = _engine(tmp_path, environment, raw)
    async with _ready(engine, tmp_path / "log"):
        facts = await engine.learn()
    assert (facts.model, facts.slots, facts.n_ctx) == ("mine", 2, 512)


async def test_slots_are_saved_where_the_daemon_says(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    spec = normalise({"model": DEMO, "ctx_size": 512, "parallel": 1})
    slots = tmp_path / "slots"
    engine = LlamaServerEngine(
        "test", spec, tmp_path / "rt", environment=environment, slot_directory=slots
    )
    async with _ready(engine, tmp_path / "log") as running:
        await running.get("/completion", body={"prompt": "hello", "n_predict": 4})
        saved = await running.get("/slots/0?action=save", body={"filename": "a.bin"})
        assert saved.json()["n_saved"] > 0
        assert (slots / "a.bin").stat().st_size > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a socket to a group takes root")
async def test_open_to_a_group(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = _engine(tmp_path, environment, {})
    async with _ready(engine, tmp_path / "log"):
        assert engine.endpoint.uds is not None
        assert engine.socket is not None
        engine.socket.open_to(12345)
        status = engine.endpoint.uds.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 12345)
        assert stat.S_IMODE(engine.endpoint.uds.parent.stat().st_mode) == 0o710
        await _get(engine.endpoint, "/health")
    async with _ready(engine, tmp_path / "log"):
        assert stat.S_IMODE(engine.endpoint.uds.stat().st_mode) == 0o660


# -- ending --------------------------------------------------------------------------------


async def test_stops_in_mid_stream(tmp_path: Path, environment: dict[str, str]) -> None:
    model = tmp_path / "endless.gguf"
    build_generate_model(model)
    engine = _engine(tmp_path, environment, {"model": str(model), "ctx_size": 8192})
    async with _ready(engine, tmp_path / "log") as running:
        streaming = trio.Event()

        async def read() -> None:
            transport = PlainTransport(uds=str(engine.endpoint.uds))
            url = base_url(engine.endpoint) + "/chat/completions"
            body = {"messages": [{"role": "user", "content": "go"}], "stream": True}
            async with (
                httpx.AsyncClient(transport=transport, trust_env=False) as client,
                client.stream("POST", url, json=body, headers=headers(engine.endpoint)) as answer,
            ):
                try:
                    async for _ in answer.aiter_raw():
                        streaming.set()
                except httpx.HTTPError:
                    return  # the server is gone

        with trio.fail_after(READY_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await streaming.wait()
                with trio.fail_after(30):
                    await running.process.stop(2.5)


def _freeze(pid: int) -> None:
    """SIGSTOP; returns when the last thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


async def test_a_stopped_process_gives_no_answer(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    engine = _engine(tmp_path, environment, {})
    async with _ready(engine, tmp_path / "log") as running:
        assert await engine.look() is Health.HEALTHY
        _freeze(running.process.pid)
        with trio.move_on_after(0.2) as waited:
            await engine.look()
        assert waited.cancelled_caught
    with trio.fail_after(READY_S):
        assert await engine.look() is Health.NO_ANSWER


# -- failing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "cause", "told"),
    [
        ({"model": "/no/such.gguf"}, Cause.MODEL_MISSING, "`model`.*No such file"),
        ({"model": "/tmp"}, Cause.MODEL_MISSING, "`model`.*is a directory"),
        ({"model": "/dev/null"}, Cause.MODEL_MISSING, "`model`.*not a regular file"),
        ({"mmproj": "/no/such.gguf"}, Cause.PROJECTOR_UNUSABLE, "`mmproj`.*No such file"),
        ({"binary_path": "/no/such"}, Cause.BAD_OPTION, "`binary_path`.*does not exist"),
        ({"binary_path": "/tmp"}, Cause.BAD_OPTION, "`binary_path`.*is a directory"),
        ({"binary_path": "/dev/null"}, Cause.BAD_OPTION, "`binary_path`.*not executable"),
        ({"binary_path": "no-such"}, Cause.BAD_OPTION, "`binary_path`.*not on PATH"),
    ],
)
def test_told_before_the_start(
    tmp_path: Path, raw: dict[str, object], cause: Cause, told: str
) -> None:
    with pytest.raises(EngineFailure, match=told) as caught:
        _engine(tmp_path, {}, raw).prepare()
    assert caught.value.failure.cause is cause


async def test_a_corrupt_model(tmp_path: Path, environment: dict[str, str]) -> None:
    model = tmp_path / "cut.gguf"
    truncate(Path(DEMO), model)
    ended = await _end_of(_engine(tmp_path, environment, {"model": str(model)}), tmp_path / "log")
    assert ended.cause is Cause.MODEL_CORRUPT


async def test_an_unknown_flag(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = _engine(tmp_path, environment, {"extra_args": ["--bogus-flag"]})
    ended = await _end_of(engine, tmp_path / "log")
    assert ended.cause is Cause.BAD_OPTION
    assert "--bogus-flag" in ended.reason


async def test_a_bad_value(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = _engine(tmp_path, environment, {"extra_args": ["--batch-size", "many"]})
    assert (await _end_of(engine, tmp_path / "log")).cause is Cause.BAD_OPTION


def test_a_key_file_that_cannot_serve(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# nothing\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, why in (
        (empty, "holds no key"),
        (tmp_path / "none", "No such file"),
        (fifo, "not a regular file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(BootSpecError, match=f"api_key_file.*{why}"):
            _engine(tmp_path, {}, {"api_key_file": str(path)})


def test_a_socket_path_too_long_is_told_at_once(tmp_path: Path) -> None:
    spec = normalise({"model": DEMO})
    with pytest.raises(BootSpecError, match="shorter runtime directory"):
        LlamaServerEngine("test", spec, tmp_path / ("x" * 100), environment={})


# -- which binary --------------------------------------------------------------------------


def test_the_order_of_the_search(tmp_path: Path) -> None:
    for name in ("spec", "variable", "llama-server"):
        (tmp_path / name).touch(mode=0o755)
    plain = normalise({"model": DEMO})
    named = normalise({"model": DEMO, "binary_path": str(tmp_path / "spec")})
    by_name = normalise({"model": DEMO, "binary_path": "spec"})
    everything = {"PATH": str(tmp_path), "INFERD_LLAMA_SERVER": str(tmp_path / "variable")}
    assert find_command(named, everything) == [str(tmp_path / "spec")]
    assert find_command(by_name, everything) == [str(tmp_path / "spec")]
    assert find_command(plain, everything) == [str(tmp_path / "variable")]
    assert find_command(plain, {"PATH": str(tmp_path)}) == [str(tmp_path / "llama-server")]
    assert find_command(plain, {"PATH": "/nowhere"}) == list(BUNDLED)
    with pytest.raises(EngineFailure, match="INFERD_LLAMA_SERVER"):
        find_command(plain, {"PATH": str(tmp_path), "INFERD_LLAMA_SERVER": "/no/such"})


def _tcp_ports(pid: int) -> set[tuple[str, int]]:
    """Where a process listens on TCP."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed since it was listed: a connection, not what it listens on
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and columns[9] in inodes:
            address, port = columns[1].split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found
