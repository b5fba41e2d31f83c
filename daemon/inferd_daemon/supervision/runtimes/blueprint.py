"""What a runtime is to be, before there is one: its key, what it offers, how it is made.

The seam between the kinds of runtimes and those who look after all of them.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from inferd_proto import BackendManifest, JsonObject, Transport

from ...engines.base import Engine
from ...engines.secret import Secret
from .runtime_life import RuntimeLife


class Former(NamedTuple):
    """The address and key of a former run, to be kept, and the group that may use the socket."""

    key: Secret | None = None
    port: int | None = None
    group: int | None = None


def keep_open(engine: Engine, former: Former) -> None:
    """Let the group in that the former run let in."""
    if former.group is not None and engine.socket is not None:
        # Where the group is gone, its members ask anew and are told.
        with contextlib.suppress(OSError):
            engine.socket.open_to(former.group)


class Hooks(NamedTuple):
    """What a supervisor is given by those who look after all runtimes."""

    held: Callable[[], bool] = lambda: False
    on_change: Callable[[], None] = lambda: None
    marks: Mapping[str, str] = {}


class Blueprint(ABC):
    """One runtime to be. Two blueprints with one `instance_key` mean the same runtime.

    `name` is for people; `route` the backend that configures it, None for a spec of a caller.
    `idle_ttl_s` None: it stays warm for ever.
    """

    kind: ClassVar[str]
    instance_key: str
    name: str
    model_identity: str
    manifest: BackendManifest
    idle_ttl_s: float | None
    transport: Transport = "uds"
    """How its endpoint is reached."""
    route: str | None = None
    resident: bool = False
    """Runs as long as the daemon: not counted against the limits, and never stopped for them."""
    files: Sequence[str] = ()
    """What it has the daemon's user read: the caller must be allowed to read it as well."""
    weightless: bool = False
    """Takes nothing of this machine: never refused for want of room, nor evicted."""
    relayed: bool = False
    """Whether its endpoint is on the daemon's HTTP front in any case."""
    opens_front: bool = False
    """Whether its leases have the HTTP front opened where none is configured."""
    published: JsonObject | None = None
    """What lease owners are told of it besides, as metadata of their endpoint."""
    needs: "Blueprint | None" = None
    """Another runtime that has to be held as long as this one is leased."""
    asks_at: str | None = None
    """The path, with `/v1`, at which it asks the runtime that it needs."""

    @abstractmethod
    def make(self, hooks: Hooks, former: Former | None = None) -> RuntimeLife:
        """Its supervisor, not started. Raises CallerFault, OperatorError."""

    async def offer(self) -> BackendManifest:
        """The manifest, with what only the runtime itself can say where it runs already."""
        return self.manifest

    @abstractmethod
    async def estimate(self) -> int:
        """Bytes of memory that it will take.

        Raises EngineFailure where it cannot be started, OSError where that cannot be told now.
        """

    @abstractmethod
    def to_json(self) -> JsonObject:
        """What the journal keeps of its spec, secrets and all."""

    def places(self) -> list[Path]:
        """The directory and the log that it has on the disk, there or not."""
        return []

    def clean_up(self) -> None:  # noqa: B027 (a kind that leaves nothing)
        """Its runtime is forgotten: remove what it left on the disk. Never raises."""
