"""Blueprints of llama-servers, by boot spec: from a caller, a route's table, or the journal."""

import contextlib
import errno
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from inferd_proto import JsonObject

from ...backends.thread import in_thread
from ...engines.base import EngineFailure
from ...engines.failures import Cause, failure
from ...engines.llama_server.boot_spec import BootSpec
from ...engines.llama_server.engine import LlamaServerEngine
from ...engines.llama_server.gguf import read_head
from ...engines.llama_server.memory_estimate import estimate
from ..kv.keeper import KvKeeper
from ..kv.store import KvStore
from ..processes.logs import RuntimeLog
from .blueprint import Blueprint, Former, Hooks, keep_open
from .llama_manifest import llama_manifest
from .supervisor import Supervisor

DIRECTORY_CHARS = 16
"""Of the key's hash: the path of a Unix socket has room for no more, and 64 bits do."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""The machine's fault, not the file's."""


class Site(NamedTuple):
    """Where runtimes are made: `runtimes` holds their directories, `logs` their logs."""

    runtimes: Path
    logs: Path
    environment: Mapping[str, str]


class BootBlueprint(Blueprint):
    """One llama-server to be. What it remembers is kept in `kv_store` while it does not run."""

    kind = "boot"

    def __init__(
        self,
        spec: BootSpec,
        site: Site,
        *,
        idle_ttl_s: float | None,
        route: str | None = None,
        kv_store: KvStore | None = None,
    ) -> None:
        self.spec = spec
        self.instance_key = spec.instance_key()
        self.name = route or spec.model_identity
        self.model_identity = spec.model_identity
        self.idle_ttl_s = idle_ttl_s
        self.route = route
        self.files = [spec.model, *([] if spec.mmproj is None else [spec.mmproj])]
        self.transport = "uds" if spec.port is None else "tcp"
        self.manifest = llama_manifest(
            "llama_server",
            embeddings=spec.embeddings,
            reranking=spec.reranking,
            projector=spec.mmproj is not None,
        )
        self._site = site
        self._kv_store = kv_store
        self._directory = site.runtimes / self.instance_key[-DIRECTORY_CHARS:]
        self._log_path = site.logs / f"{self.instance_key}.log"

    def make(self, hooks: Hooks, former: Former | None = None) -> Supervisor:
        """The supervisor of its server, at an address that follows from the instance key."""
        kept, store = former or Former(), self._kv_store
        engine = LlamaServerEngine(
            self.name,
            self.spec,
            self._directory,
            environment=self._site.environment,
            key=kept.key,
            port=kept.port,
            slot_directory=None if store is None else store.place(self.instance_key),
        )
        keep_open(engine, kept)
        log = RuntimeLog(self._log_path)
        return Supervisor(
            engine,
            log,
            held=hooks.held,
            on_change=hooks.on_change,
            marks=hooks.marks,
            kv=None if store is None else KvKeeper(engine, store, time.time),
        )

    async def estimate(self) -> int:
        """By the heads of its files.

        Raises EngineFailure where the model cannot be opened, OSError where no thread can be had.
        """
        return await in_thread(_estimate, None, self.spec)

    def places(self) -> list[Path]:
        """Its socket's directory, and its log."""
        return [self._directory, self._log_path]

    def clean_up(self) -> None:
        """Remove its directory, where it is empty, and its log."""
        with contextlib.suppress(OSError):
            self._directory.rmdir()
        for path in self._log_path.parent.glob(f"{self._log_path.name}*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def to_json(self) -> JsonObject:
        """What `normalise` makes the spec from again."""
        return self.spec.to_json()


def _estimate(spec: BootSpec) -> int:
    try:
        head = read_head(Path(spec.model))
        projector = None if spec.mmproj is None else read_head(Path(spec.mmproj))
    except EngineFailure as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in OUT_OF_RESOURCES:
            raise EngineFailure(failure(Cause.NO_PROCESS, error.failure.reason)) from error
        if error.failure.cause is Cause.MODEL_MISSING:
            raise
        # A file that we cannot read the engine may: its word counts, and it says it soon.
        return Path(spec.model).stat().st_size
    return estimate(spec, head, projector).total
