"""Backends that do what a test says, and routes to them."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal

from inferd_daemon.backends.base import (
    Backend,
    Batch,
    Capabilities,
    Finished,
    GenerateRequest,
    Readiness,
    TextDeltas,
)
from inferd_daemon.config import BreakerConfig
from inferd_daemon.routing.admission import UNBOUNDED, Admission
from inferd_daemon.routing.breaker import Breaker
from inferd_daemon.routing.gate import Gate
from inferd_daemon.routing.router import Route
from inferd_daemon.routing.upstream import Clock, Upstream
from inferd_proto import Message, Text, Usage

READY = Readiness(True)
BROKEN = Readiness(False, "the model file is missing")
COMING = Readiness(False, "the model is loading", pending=True)


class Told(Backend):
    """A backend whose readiness, capabilities and slots the test sets."""

    kind = "told"

    def __init__(self, name: str, slots: int = 4) -> None:
        self.name = name
        self.told = READY
        self.can = Capabilities()
        self.slot_count = slots

    @property
    def slots(self) -> int:
        return self.slot_count

    @property
    def capabilities(self) -> Capabilities:
        return self.can

    def readiness(self) -> Readiness:
        return self.told

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        yield [TextDeltas([self.name]), Finished("end_turn", Usage(1, 1))]


def upstream(backend: Backend, clock: Clock = lambda: 0.0) -> Upstream:
    """With the breaker as it is by default."""
    return Upstream(backend, Breaker(BreakerConfig()), clock)


def route_of(*tiers: Sequence[Upstream], permits: int | None = None, queue_depth: int = 8) -> Route:
    """A route `r`."""
    admission = Admission(permits or UNBOUNDED, queue_depth)
    return Route("r", tiers, Gate("r", admission))


def said(*turns: str) -> GenerateRequest:
    """A conversation of user and assistant in turn; `system: …` first, if at all."""
    messages: list[Message] = []
    for text in turns:
        role: Literal["system", "user", "assistant"] = "user"
        if text.startswith("system: "):
            role = "system"
        elif messages and messages[-1].role == "user":
            role = "assistant"
        messages.append(Message(role, [Text(text)]))
    return GenerateRequest(messages)
