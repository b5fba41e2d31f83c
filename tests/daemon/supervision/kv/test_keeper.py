"""Caches over the stops of real servers: what comes back, what must not, what must not hurt."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import trio

from inferd_daemon.engines.http_probe import ProbeError, fetch
from inferd_daemon.engines.llama_server.boot_spec import normalise
from inferd_daemon.engines.llama_server.engine import LlamaServerEngine
from inferd_daemon.engines.llama_server.slots import list_slots
from inferd_daemon.models.demo import demo_model_path
from inferd_daemon.supervision.kv import keeper as room
from inferd_daemon.supervision.kv.keeper import KvKeeper
from inferd_daemon.supervision.kv.manifest import KvManifest
from inferd_daemon.supervision.kv.store import KvStore
from inferd_daemon.supervision.processes.logs import RuntimeLog
from inferd_daemon.supervision.processes.process import Process
from inferd_daemon.supervision.runtimes.backoff import RestartPolicy
from inferd_daemon.supervision.runtimes.machine import State
from inferd_daemon.supervision.runtimes.supervisor import Supervisor
from tests.support.llama_server import llama_server_path
from tests.support.models import build_generate_model

PROMPT = " ".join(f"word{number}" for number in range(60))
WITHIN_S = 60.0
"""All that is waited for takes seconds at most, on a machine that has time."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up here because the machine is busy."""
    for name in ("RESTORE_TIMEOUT_S", "SAVE_TIMEOUT_S", "ALIVE_TIMEOUT_S"):
        monkeypatch.setattr(room, name, 2 * WITHIN_S)


@pytest.fixture(params=["real", "bundled"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """A daemon's environment that leads to one of the two servers."""
    if request.param == "real":
        return {"INFERD_LLAMA_SERVER": str(llama_server_path())}
    return {"PATH": "/nowhere"}


@pytest.fixture
def real() -> dict[str, str]:
    return {"INFERD_LLAMA_SERVER": str(llama_server_path())}


class Timings(NamedTuple):
    """Of one prompt: how many of its tokens were known already, and how many were computed."""

    known: int
    computed: int


class Kept:
    """One runtime that keeps its caches."""

    def __init__(self, supervisor: Supervisor, store: KvStore) -> None:
        self.supervisor, self.store = supervisor, store
        assert isinstance(supervisor.engine, LlamaServerEngine)
        self.key = supervisor.engine.spec.instance_key()

    @property
    def place(self) -> Path:
        return self.store.place(self.key)

    @property
    def manifest(self) -> KvManifest:
        manifest = self.store.load(self.key)
        assert manifest is not None
        return manifest

    @property
    def process(self) -> Process:
        assert self.supervisor.process is not None
        return self.supervisor.process

    async def start(self) -> None:
        self.supervisor.start()
        with trio.fail_after(WITHIN_S):
            assert (await self.supervisor.wait_settled()).ready

    async def stop(self) -> None:
        self.supervisor.stop()
        with trio.fail_after(WITHIN_S):
            while self.supervisor.state is not State.STOPPED:
                await self.supervisor.wait_changed()

    async def swap(self) -> None:
        """As when another runtime needed the room meanwhile."""
        await self.stop()
        await self.start()

    async def ask(self, prompt: str = PROMPT, slot: int = 0, **fields: Any) -> Timings:  # noqa: ANN401
        body = {"prompt": prompt, "n_predict": 1, "id_slot": slot, "cache_prompt": True, **fields}
        with trio.fail_after(WITHIN_S):
            status, text = await fetch(self.supervisor.endpoint, "/completion", body)
        assert status == 200, text
        timings = msgspec.json.decode(text)["timings"]
        return Timings(timings["cache_n"], timings["prompt_n"])


@asynccontextmanager
async def keeping(
    directory: Path,
    inherited: dict[str, str],
    *,
    limit_bytes: int = 1 << 30,
    store_at: Path | None = None,
    **fields: Any,  # noqa: ANN401 (of a boot spec)
) -> AsyncIterator[Kept]:
    """A runtime, started."""
    given = {"model": str(demo_model_path()), "ctx_size": 1024, "parallel": 1, "threads": 1}
    # None is found to hang because it has no turn.
    spec = normalise({**given, "health_interval_ms": 60_000, **fields})
    store = KvStore(store_at or directory / "kv", limit_bytes)
    engine = LlamaServerEngine(
        "kept",
        spec,
        directory / "rt",
        environment=inherited,
        slot_directory=store.place(spec.instance_key()),
    )
    supervisor = Supervisor(
        engine,
        RuntimeLog(directory / "logs" / "kept.log"),
        policy=RestartPolicy(first_s=0.01),
        kv=KvKeeper(engine, store, time.time),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        kept = Kept(supervisor, store)
        await kept.start()
        yield kept
        nursery.cancel_scope.cancel()


async def test_a_prompt_goes_on_where_it_was(tmp_path: Path, environment: dict[str, str]) -> None:
    async with keeping(tmp_path, environment, parallel=2) as kept:
        first = await kept.ask()
        assert first.known == 0
        assert (await kept.ask("something else", slot=1)).known == 0
        for _ in range(2):  # what was restored is saved again, asked or not
            await kept.swap()
        assert await kept.ask() == (first.computed - 1, 1)
        assert (await kept.ask("something else", slot=1)).computed == 1
        assert sorted(file.slot for file in kept.manifest.files) == [0, 1]
        assert not kept.manifest.restoring


async def test_without_keeping_it_begins_anew(tmp_path: Path, real: dict[str, str]) -> None:
    async with keeping(tmp_path, real) as kept:
        first = await kept.ask()
        await kept.stop()
        shutil.rmtree(kept.place)
        await kept.start()
        assert await kept.ask() == first


async def test_the_daemons_end_keeps_it_too(tmp_path: Path, real: dict[str, str]) -> None:
    async with keeping(tmp_path, real) as kept:
        await kept.ask()
    async with keeping(tmp_path, real) as kept:
        assert (await kept.ask()).computed == 1


async def test_a_crash_brings_back_what_was_saved_last(
    tmp_path: Path, real: dict[str, str]
) -> None:
    async with keeping(tmp_path, real) as kept:
        await kept.ask()
        await kept.swap()
        await kept.ask("quite another prompt, which nobody saves")
        pid = kept.process.pid
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(WITHIN_S):
            while kept.supervisor.process is None or kept.process.pid == pid:
                await kept.supervisor.wait_changed()
            assert (await kept.supervisor.wait_settled()).ready
        assert (await kept.ask()).computed == 1


Damage = Callable[[Kept], None]


def truncate(kept: Kept) -> None:
    """As a crash of the machine may leave it; the server that restored it would abort."""
    path = kept.place / "slot-0.kv"
    os.truncate(path, path.stat().st_size - 1000)


def overwrite(kept: Kept) -> None:
    (kept.place / "slot-0.kv").write_bytes(b"x" * kept.manifest.total_bytes)


def remove(kept: Kept) -> None:
    (kept.place / "slot-0.kv").unlink()


def tear_manifest(kept: Kept) -> None:
    path = kept.place / "manifest.json"
    os.truncate(path, path.stat().st_size // 2)


def blame(kept: Kept) -> None:
    """The last process that was given it did not live to tell."""
    kept.store.write(msgspec.structs.replace(kept.manifest, restoring=True))


@pytest.mark.parametrize("damage", [truncate, overwrite, remove, tear_manifest, blame])
async def test_a_cache_that_is_not_whole_is_not_restored(
    tmp_path: Path, real: dict[str, str], damage: Damage
) -> None:
    async with keeping(tmp_path, real) as kept:
        first = await kept.ask()
        await kept.stop()
        damage(kept)
        await kept.start()
        assert kept.supervisor.status().restarts == 0
        assert await kept.ask() == first
        await kept.swap()  # and from here on it keeps again
        assert (await kept.ask()).computed == 1


async def test_a_file_that_kills_the_server_kills_it_once(
    tmp_path: Path, real: dict[str, str]
) -> None:
    """Whole by its hash and deadly all the same: what no check can tell."""
    async with keeping(tmp_path, real) as kept:
        first = await kept.ask()
        await kept.stop()
        truncate(kept)
        manifest = kept.manifest
        deadly = (kept.place / "slot-0.kv").read_bytes()
        (kept.place / "slot-0.new").write_bytes(deadly)
        file = kept.store.seal(kept.key, 0, "slot-0.new", 5)
        kept.store.write(msgspec.structs.replace(manifest, files=[file]))
        kept.supervisor.start()
        with trio.fail_after(WITHIN_S):
            while kept.supervisor.state is not State.READY:
                await kept.supervisor.wait_changed()
        assert kept.supervisor.status().restarts == 1
        assert await kept.ask() == first


async def test_another_model_in_its_place_gets_nothing_of_the_former(
    tmp_path: Path, real: dict[str, str]
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copyfile(demo_model_path(), model)
    async with keeping(tmp_path, real, model=str(model)) as kept:
        first = await kept.ask()
        await kept.stop()
        other = tmp_path / "other.gguf"
        shutil.copyfile(demo_model_path(), other)
        other.replace(model)  # same name, same size, same content: it cannot be known
        await kept.start()
        assert await kept.ask() == first


async def test_another_program_gets_nothing_of_the_formers(
    tmp_path: Path, real: dict[str, str]
) -> None:
    program = tmp_path / "llama-server"
    source = Path(real["INFERD_LLAMA_SERVER"])
    shutil.copy(source, program)
    libraries = {"LD_LIBRARY_PATH": str(source.parent)}
    async with keeping(tmp_path, real, binary_path=str(program), environment=libraries) as kept:
        first = await kept.ask()
        await kept.swap()
        assert (await kept.ask()).computed == 1
        await kept.stop()
        fresh = tmp_path / "fresh"
        shutil.copy(source, fresh)
        fresh.replace(program)  # an upgrade of the binary
        await kept.start()
        assert await kept.ask() == first


async def test_a_model_that_is_replaced_while_it_runs_does_not_inherit(
    tmp_path: Path, real: dict[str, str]
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copyfile(demo_model_path(), model)
    async with keeping(tmp_path, real, model=str(model)) as kept:
        first = await kept.ask()
        fresh = tmp_path / "fresh.gguf"
        shutil.copyfile(demo_model_path(), fresh)
        fresh.replace(model)
        await kept.swap()
        assert await kept.ask() == first


async def test_a_slot_at_work_is_not_waited_for(tmp_path: Path, real: dict[str, str]) -> None:
    model = tmp_path / "endless.gguf"
    build_generate_model(model, layers=16)
    async with keeping(tmp_path, real, model=str(model), ctx_size=32_768, parallel=2) as kept:
        await kept.ask("the idle one", slot=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream_for_ever, kept)
            with trio.fail_after(WITHIN_S):
                while await busy_slots(kept) != [0]:  # noqa: ASYNC110 (it can only be asked)
                    await trio.sleep(0.005)
            await kept.stop()  # which is over long before the slot is
            nursery.cancel_scope.cancel()
        assert [file.slot for file in kept.manifest.files] == [1]
        await kept.start()
        assert (await kept.ask("the idle one", slot=1)).computed == 1


async def stream_for_ever(kept: Kept) -> None:
    body = {"prompt": "on and on", "n_predict": -1, "stream": True, "id_slot": 0}
    with contextlib.suppress(ProbeError):
        await fetch(kept.supervisor.endpoint, "/completion", body)


async def busy_slots(kept: Kept) -> list[int]:
    slots = await list_slots(kept.supervisor.endpoint)
    return [slot.id for slot in slots if slot.is_processing]


async def test_who_ends_it_before_it_was_recognised_keeps_it_as_well(
    tmp_path: Path, real: dict[str, str]
) -> None:
    async with keeping(tmp_path, real) as kept:
        await kept.ask()
        assert isinstance(kept.supervisor.engine, LlamaServerEngine)
        of_the_next_self = KvKeeper(kept.supervisor.engine, kept.store, time.time)
        await of_the_next_self.ending(kept.process)
        assert [file.slot for file in kept.manifest.files] == [0]


async def test_a_hung_server_ends_nearly_as_soon_as_without(
    tmp_path: Path, real: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "ALIVE_TIMEOUT_S", 1.0)
    async with keeping(tmp_path, real, stop_timeout_ms=500) as kept:
        await kept.ask()
        os.kill(kept.process.pid, signal.SIGSTOP)
        began_at = trio.current_time()
        await kept.stop()
        assert trio.current_time() - began_at < WITHIN_S / 2


async def test_no_place_to_keep_it_hurts_nobody(tmp_path: Path, real: dict[str, str]) -> None:
    (tmp_path / "file").write_text("in the way")
    async with keeping(tmp_path, real, store_at=tmp_path / "file" / "kv") as kept:
        first = await kept.ask()
        await kept.swap()
        assert await kept.ask() == first


async def test_what_does_not_fit_is_not_kept(tmp_path: Path, real: dict[str, str]) -> None:
    async with keeping(tmp_path, real, limit_bytes=1000) as kept:
        first = await kept.ask()
        await kept.stop()
        assert sorted(os.listdir(kept.place)) == ["manifest.json"]
        await kept.start()
        assert await kept.ask() == first
