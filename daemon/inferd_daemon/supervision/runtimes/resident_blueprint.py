"""Blueprints of libllama workers, which run as long as the daemon: it starts them itself."""

import hashlib
from pathlib import Path

import msgspec

from inferd_proto import JsonObject

from ...config import LibllamaConfig
from ...engines.libllama.engine import LibllamaEngine
from ..processes.logs import RuntimeLog
from .blueprint import Blueprint, Former, Hooks, keep_open
from .boot_blueprint import Site
from .llama_manifest import llama_manifest
from .supervisor import Supervisor

REVIVE_AFTER_S = 60.0
"""A worker that kept crashing is tried again now and then: no request would ask for it."""


class ResidentBlueprint(Blueprint):
    """One worker, by its backend's table."""

    kind = "resident"
    idle_ttl_s = None
    resident = True

    def __init__(self, name: str, config: LibllamaConfig, site: Site) -> None:
        text = msgspec.json.encode([name, config], order="deterministic")
        self.instance_key = f"libllama-{hashlib.sha256(text).hexdigest()[:32]}"
        self.name = self.route = name
        self.model_identity = config.alias or config.model.rpartition("/")[2].removesuffix(".gguf")
        self.manifest = llama_manifest(
            "libllama",
            embeddings=config.embeddings,
            reranking=config.reranking,
            projector=config.mmproj is not None,
        )
        self._config = config
        self._directory = site.runtimes / self.name
        self._log_path = site.logs / f"{self.name}.log"

    def make(self, hooks: Hooks, former: Former | None = None) -> Supervisor:
        """The supervisor of its worker."""
        kept = former or Former()
        engine = LibllamaEngine(self.name, self._config, self._directory, key=kept.key)
        keep_open(engine, kept)
        return Supervisor(
            engine,
            RuntimeLog(self._log_path),
            held=hooks.held,
            on_change=hooks.on_change,
            marks=hooks.marks,
            revive_after_s=REVIVE_AFTER_S,
        )

    def places(self) -> list[Path]:
        """Its socket's directory, and its log."""
        return [self._directory, self._log_path]

    async def estimate(self) -> int:
        """Not counted: it runs in any case."""
        return 0

    def to_json(self) -> JsonObject:
        """Nothing: the configuration has it."""
        return {}
