"""What a backend sees of the process behind it: where it answers, what it is, whether it is ready.

The supervisor of the process gives this view; backends never import it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from .base import Readiness


class Endpoint(Struct, frozen=True):
    """Where a runtime answers HTTP: a Unix socket, or a host and port where `uds` is None.

    `port` None with a host: that of the scheme, `https` with `tls`. `key` is the bearer token that
    it asks for, `headers` what else a request must bear; neither is ever logged. `health_path`
    tells below the API prefix whether it serves.
    """

    uds: Path | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    api_prefix: str = ""
    key: str | None = None
    tls: bool = False
    headers: dict[str, str] = {}
    health_path: str = "/health"

    def __repr__(self) -> str:
        if self.uds:
            return str(self.uds)
        return self.host if self.port is None else f"{self.host}:{self.port}"


class ModelFacts(Struct, frozen=True):
    """What a runtime says of the model it has loaded; None where it does not say.

    `n_ctx` is the context of one slot in tokens. `template_tools` and `template_thinking` tell
    whether the chat template knows of tools and of thinking.
    """

    model: str = ""
    n_ctx: int | None = None
    slots: int | None = None
    vision: bool = False
    audio: bool = False
    template_tools: bool = False
    template_thinking: bool = False
    accelerator: str | None = None
    gpu_layers: int | None = None
    capabilities: dict[str, bool] | None = None
    """What it says of itself by the names of manifests; None for a llama.cpp, whose other facts
    say it."""


class Runtime(Protocol):
    """A supervised process, as its backend sees it."""

    @property
    def endpoint(self) -> Endpoint:
        """The same over restarts."""

    @property
    def facts(self) -> ModelFacts | None:
        """None until it was ready once."""

    def readiness(self) -> Readiness:
        """Whether it answers now; the reason why not is fit for a client."""

    async def wait_changed(self) -> None:
        """Wait for the next change of its state; the caller sets the deadline."""

    async def wait_settled(self) -> Readiness:
        """Wait while it starts or restarts; the caller sets the deadline."""


class OnDemandRuntime(Protocol):
    """A runtime that runs only while somebody needs it."""

    @property
    def endpoint(self) -> Endpoint:
        """Final once it is held."""

    @property
    def facts(self) -> ModelFacts | None:
        """None until it was ready once."""

    def readiness(self) -> Readiness:
        """Whether a request may be sent: one that does not run can be started."""

    def holding(self) -> AbstractAsyncContextManager[None]:
        """Have it ready, and keep it for the block. Raises BackendFault."""

    def on_ending(self, call: Callable[[], bool]) -> None:
        """Have `call` close its streams each time before the process is asked to end; it returns
        whether there were any.
        """

    async def replaced(self) -> bool:
        """Who holds it could not reach it: wait for its next process; False where it lives.

        Raises BackendFault where there is none.
        """
