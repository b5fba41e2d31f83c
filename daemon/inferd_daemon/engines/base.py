"""What an engine tells its supervisor: how one runtime is started, reached and judged.

An engine describes; it never spawns, signals or restarts. One object stands for one runtime and
outlives its processes: the endpoint stays the same over restarts.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from msgspec import Struct

from inferd_proto import JsonObject

from ..backends.runtime import Endpoint, ModelFacts
from ..errors import InferdError
from .failures import Failure, classify
from .runtime_socket import RuntimeSocket


class Launch(Struct, frozen=True):
    """One start of a process. Nothing secret stands in `argv`.

    `environment` is the whole environment of the child; `pass_fds` are descriptors it inherits
    under the same numbers.
    """

    argv: list[str]
    environment: dict[str, str]
    pass_fds: tuple[int, ...] = ()
    directory: Path | None = None


class Belongings(Struct, frozen=True):
    """What an engine holds beside its living process, for the daemon's next self.

    `descriptor` is a channel to the process; `values` are the engine's own.
    """

    descriptor: int | None = None
    values: JsonObject = {}


class Timing(Struct, frozen=True):
    """Deadlines and intervals of one runtime, in seconds."""

    ready_timeout_s: float = 60.0
    readiness_interval_s: float = 0.01
    health_interval_s: float = 5.0
    stop_timeout_s: float = 10.0


class Health(Enum):
    """One look at a runtime."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    LOADING = "loading"
    """It answers, and does not serve: not yet, or not well any more."""
    NO_ANSWER = "no answer"
    UNSEEN = "unseen"
    """The daemon itself had no means to look: nothing is known of the runtime."""


class EngineFailure(InferdError):
    """A runtime cannot be started or did not become ready; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Service(ABC):
    """What answers requests, whoever runs it: where, and how one sees that it does."""

    name: str
    """Names the runtime in logs and errors."""
    timing: Timing
    endpoint: Endpoint

    @abstractmethod
    async def look(self) -> Health:
        """One health check; the caller sets the deadline."""

    async def learn(self) -> ModelFacts:
        """What the loaded model is, asked once it is healthy; the caller sets the deadline.

        Raises EngineFailure.
        """
        return ModelFacts()


class Engine(Service):
    """One process to be: how to start it, and how to read its end."""

    socket: RuntimeSocket | None = None
    """Where it listens; None where that is a port."""

    @abstractmethod
    def prepare(self) -> Launch:
        """Make ready for one start: directories, a free address, channels to the child.

        Called before every start, in the main thread; quick. Raises EngineFailure where a start
        cannot succeed.
        """

    def spawned(self) -> None:
        """The child runs: let go of what only the child needs, send what it waits for."""

    async def rest(self) -> None:
        """Wait until the process works on no request, as far as that matters to its end."""

    def discard(self) -> None:
        """The process is gone: remove its socket file and close channels to it. Idempotent."""

    def forget_address(self) -> None:
        """It does not run, and nobody knows of its address any more: it may get another one."""

    def belongings(self) -> Belongings:
        """What `take_over` needs, while the process lives. Changes nothing."""
        return Belongings()

    def take_over(self, belongings: Belongings) -> None:
        """The process of the daemon's former self lives on: be as `prepare` and `learn` left it."""

    def let_go(self) -> None:
        """The process belongs to the daemon's next self: close nothing of what it needs."""

    def explain(self, returncode: int, lines: Sequence[str]) -> Failure:
        """Why the process ended. `lines` are the last of its own log."""
        return classify(returncode, lines)
