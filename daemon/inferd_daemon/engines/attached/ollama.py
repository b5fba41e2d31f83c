"""Attached services of kind `ollama`, by its documented `/api/version`, `/api/show`, `/api/ps`.

Ready when it answers and knows the model, healthy when the model is loaded, degraded when it is
installed but cold. Asks nothing that would load a model.
"""

import msgspec
from msgspec import Struct

from ...backends.runtime import ModelFacts
from ..base import Health
from ..failures import Cause
from ..http_probe import ProbeError, missed
from ..model_facts import UNREADABLE
from .service import AttachedService, Sight

CAPABILITIES = {
    "completion": "streaming",
    "tools": "tool_calling",
    "vision": "vision",
    "audio": "audio",
    "embedding": "embeddings",
}
"""Ollama's words for what a model can do, and the manifests'."""


class _Shown(Struct):
    capabilities: list[str] | None = None


class _Running(Struct):
    name: str = ""
    model: str = ""
    context_length: int | None = None


class _Processes(Struct):
    models: list[_Running] | None = None


class OllamaService(AttachedService):
    """One model of an Ollama."""

    backend = "ollama"
    health_path = "/api/version"

    async def observe(self) -> Sight:
        """Whether it answers, runs the model, and where it does not, whether it could."""
        root = self.spec.root_url
        try:
            status, _ = await self.ask("/api/version")
            if refused := self.refused(status):
                return refused
            if status != 200:
                settled = status in (404, 405)
                words = f"{root}/api/version answers {status}" + (
                    ": this is no Ollama" if settled else ""
                )
                return Sight(Health.NO_ANSWER, words, settled=settled)
            running = await self._running()
            # Loaded is installed; but the first look of all also learns what the model can do.
            if running is None or self.facts is None:
                missing = await self._show()
                if missing is not None:
                    return missing
        except ProbeError as error:
            return Sight(missed(error), f"{root} does not answer: {error}")
        if running is None:
            return Sight(Health.DEGRADED, f"{self._model} is installed but not loaded")
        if self.facts is not None and running.context_length:
            self.facts = msgspec.structs.replace(self.facts, n_ctx=running.context_length)
        return Sight(Health.HEALTHY)

    @property
    def _model(self) -> str:
        assert self.spec.model_identity is not None  # normalised so
        return self.spec.model_identity

    async def _running(self) -> _Running | None:
        """The model where it is loaded. An Ollama too old to say counts as cold."""
        status, body = await self.ask("/api/ps")
        try:
            found = msgspec.json.decode(body, type=_Processes) if status == 200 else _Processes()
        except UNREADABLE:
            return None
        for one in found.models or []:
            if same_model(one.model or one.name, self._model):
                return one
        return None

    async def _show(self) -> Sight | None:
        """None where it knows the model, whose facts are known then."""
        # `name` is what an old Ollama calls `model`.
        status, body = await self.ask("/api/show", {"model": self._model, "name": self._model})
        if refused := self.refused(status):
            return refused
        if status == 404:
            return Sight(
                Health.NO_ANSWER,
                f"{self.spec.root_url} does not know {self._model!r} (pull it there first)",
                settled=True,
                cause=Cause.SERVICE_LACKS_MODEL,
            )
        if status != 200:
            words = f"{self.spec.root_url}/api/show answers {status} for {self._model!r}"
            return Sight(Health.NO_ANSWER, words)
        try:
            shown = msgspec.json.decode(body, type=_Shown)
        except UNREADABLE:
            shown = _Shown()
        self.facts = ModelFacts(model=self._model, capabilities=_told(shown.capabilities))
        return None


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: the tag `latest` and the default registry go unsaid."""
    return _full_name(one) == _full_name(other)


def _full_name(name: str) -> str:
    name = name.strip().lower()
    for prefix in ("registry.ollama.ai/", "library/"):
        name = name.removeprefix(prefix)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _told(capabilities: list[str] | None) -> dict[str, bool]:
    """Everything that is not in the list it cannot do; nothing is known without a list."""
    if not capabilities:
        return {}
    return {ours: theirs in capabilities for theirs, ours in CAPABILITIES.items()}
