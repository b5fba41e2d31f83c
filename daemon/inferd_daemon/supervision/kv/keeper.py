"""Carries the caches of one llama-server over its stops: saved before, restored after the start.

A convenience and no more: whatever goes wrong is logged and keeps no process from starting or
stopping, and nothing here takes longer than its deadline.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from ...backends.thread import in_thread
from ...engines.llama_server.cache_identity import take_identity
from ...engines.llama_server.engine import LlamaServerEngine
from ...engines.llama_server.slots import (
    SlotError,
    SlotRefused,
    list_slots,
    read_build,
    restore_slot,
    save_slot,
)
from ..processes.identity import read_boot_id
from ..processes.process import Process
from .manifest import KvFile, KvManifest, merged, restorable
from .store import KvStore

RESTORE_TIMEOUT_S = 10.0
"""A cache that takes longer to read and check than this is hardly sooner there than computed."""
SAVE_TIMEOUT_S = 8.0
"""Less than what `runtime.stop` waits above the stop timeout."""
ALIVE_TIMEOUT_S = 2.0
"""A server that does not list its slots in that time hangs; its end shall not wait for it."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class KvKeeper:
    """Of one runtime: tell it of each process that is `ready` or `adopted`, before its end of
    `ending`, and after it of `ended`. None of them raises.
    """

    def __init__(
        self, engine: LlamaServerEngine, store: KvStore, wall: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._store = store
        self._wall = wall
        self._key = engine.spec.instance_key()
        self._identity: str | None = None
        """Of what the present process has loaded; None where that is not known."""
        self._process = ""
        self._files: list[KvFile] = []

    async def ready(self, process: Process) -> None:
        """The process is ready and has served nobody: give it what was kept."""
        await self._within(RESTORE_TIMEOUT_S, "restored", lambda: self._restore(process))

    async def adopted(self, process: Process) -> None:
        """The process was started by the daemon's former self, which told it the same."""
        await self._within(RESTORE_TIMEOUT_S, "recognised", lambda: self._recognise(process))

    async def ending(self, process: Process) -> None:
        """The process is about to be ended, and works for nobody who counts: keep what it knows."""
        await self._within(SAVE_TIMEOUT_S, "saved", lambda: self._keep(process))

    def ended(self) -> None:
        """The process is gone."""
        self._identity = None

    async def _within(self, seconds: float, done: str, work: Callable[[], Awaitable[None]]) -> None:
        name = self._engine.name
        with trio.move_on_after(seconds) as scope:
            try:
                await work()
            except (SlotError, OSError) as error:
                _log.warning(f"kv not {done}", runtime=name, reason=str(error))
        if scope.cancelled_caught:
            _log.warning(f"kv not {done}", runtime=name, reason=f"not done in {seconds:g} s")

    async def _restore(self, process: Process) -> None:
        self._process, self._files = _mark(process), []
        build = await read_build(self._engine.endpoint)
        identity = await _thread(take_identity, self._engine.spec, process.pid, build)
        manifest = await _thread(self._store.load, self._key)
        files = [
            file
            for file in restorable(manifest, self._key, identity)
            if await _thread(self._store.is_whole, self._key, file)
        ]
        saved_at = 0.0 if manifest is None else manifest.saved_at
        # Noted before the server sees a file: what kills it must not kill the next one.
        await self._write(identity, files, saved_at, restoring=bool(files), durable=False)
        self._identity = identity
        if not files:
            return
        restored: list[KvFile] = []
        for file in files:
            try:
                await restore_slot(self._engine.endpoint, file.slot, file.name)
            except SlotRefused as error:
                _log.warning("kv refused", runtime=self._engine.name, reason=str(error))
            else:
                restored.append(file)
        await self._write(identity, restored, saved_at, durable=False)
        tokens = sum(file.tokens for file in restored)
        _log.info("kv restored", runtime=self._engine.name, slots=len(restored), tokens=tokens)

    async def _recognise(self, process: Process) -> None:
        self._process = _mark(process)
        manifest = await _thread(self._store.load, self._key)
        if manifest is not None and manifest.process == self._process:
            self._identity, self._files = manifest.identity, manifest.files

    async def _keep(self, process: Process) -> None:
        if self._identity is None:  # taken over a moment ago, it may not be recognised yet
            await self._recognise(process)
        if self._identity is not None:
            await self._save(self._identity)

    async def _save(self, identity: str) -> None:
        endpoint = self._engine.endpoint
        with trio.move_on_after(ALIVE_TIMEOUT_S) as alive:
            slots = await list_slots(endpoint)
        if alive.cancelled_caught:
            raise SlotError("the server does not answer")
        fresh: list[KvFile] = []
        room = True
        try:
            for slot in slots:
                # One that still works would be waited for; what it had before is kept.
                if slot.is_processing or not room:
                    continue
                name = f"slot-{slot.id}.new"
                tokens = await save_slot(endpoint, slot.id, name)
                if tokens:
                    fresh.append(await _thread(self._store.seal, self._key, slot.id, name, tokens))
                    room = await _thread(self._store.make_room, self._key)
        finally:
            files = merged(self._files, fresh) if room else []
            with trio.CancelScope(shield=True):
                await self._write(identity, files, self._wall())
        tokens = sum(file.tokens for file in fresh) if room else 0
        _log.info("kv saved", runtime=self._engine.name, slots=len(fresh), tokens=tokens)

    async def _write(
        self,
        identity: str,
        files: list[KvFile],
        saved_at: float,
        *,
        restoring: bool = False,
        durable: bool = True,
    ) -> None:
        manifest = KvManifest(
            instance_key=self._key,
            identity=identity,
            process=self._process,
            restoring=restoring,
            saved_at=saved_at if files else 0.0,
            files=files,
        )
        await in_thread(self._store.write, None, manifest, durable=durable)
        self._files = files


def _mark(process: Process) -> str:
    return f"{read_boot_id()}/{process.pid}/{process.start_ticks}"


async def _thread(work: Callable[..., T], *args: object) -> T:
    """Blocking work that may be left alone when time is up: it only reads, or finishes a file.

    Raises OSError where no thread can be had.
    """
    began = False

    def run() -> T:
        nonlocal began
        began = True
        return work(*args)

    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    except RuntimeError as error:
        if began:
            raise
        raise OSError(errno.EAGAIN, "cannot start a thread: too many processes") from error
