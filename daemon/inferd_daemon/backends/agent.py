"""Answers by runs of a CLI agent: one process for each request, no tools.

How a run is started, bounded and ended is others' business, seen here as a `Runner` only.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from .base import Backend, Batch, Capabilities, GenerateRequest, Readiness


class Runner(Protocol):
    """One agent with its model, as configured."""

    @property
    def slots(self) -> int:
        """How many runs there may be at once."""

    @property
    def capabilities(self) -> Capabilities:
        """As its profile tells."""

    def readiness(self) -> Readiness:
        """Whether its program can be run."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """One run's answer. Raises RequestError."""


class AgentBackend(Backend):
    """One agent behind a route."""

    kind = "agent"

    def __init__(self, name: str, runner: Runner) -> None:
        self.name = name
        self._runner = runner

    @property
    def slots(self) -> int:
        """As its provider's table says."""
        return self._runner.slots

    @property
    def capabilities(self) -> Capabilities:
        """Generation; neither tools nor media."""
        return self._runner.capabilities

    def readiness(self) -> Readiness:
        """As the runner tells."""
        return self._runner.readiness()

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """See `Runner.generate`."""
        return self._runner.generate(request)
