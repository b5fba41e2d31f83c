"""What one run of a CLI agent is asked: a conversation, a pinned model, an upstream and limits.

Plain values, checked by whoever builds them; nothing here is ever put on a command line.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from ..secret import Secret

OWN_MODEL = "default"
"""Names what a CLI on its own login asks for when it is told no model."""


class Turn(Struct, frozen=True):
    """One turn of the conversation that is no system text. `name` tells a tool's call."""

    role: Literal["user", "assistant", "tool"]
    text: str
    name: str = ""


class AgentUpstream(Struct, frozen=True):
    """A model server that the CLI is to talk to instead of its vendor's.

    `base_url` is the server's root without `/v1`; every profile adds its own path to it.
    """

    base_url: str
    key: Secret


class AgentLimits(Struct, frozen=True):
    """Bounds of one run."""

    deadline_s: float = 600.0
    """From the spawn to the last event."""
    max_text_bytes: int = 4 << 20
    """UTF-8 bytes of text and reasoning together."""
    max_stdout_bytes: int = 256 << 20
    """Everything the CLI writes: events cost many times their text."""
    grace_s: float = 2.0
    """How long a run that is over may take to go by itself; as long again after SIGTERM."""


class AgentRequest(Struct, frozen=True):
    """One completion. `turns` is not empty, and `system` is what its system texts say, joined.

    `environment` is the daemon's own; a profile lets through what it names, and what the operator
    names in `passes`. Without `upstream` the CLI's own login is used.
    """

    model: str
    turns: tuple[Turn, ...]
    system: str = ""
    max_tokens: int | None = None
    thinking: bool | None = None
    upstream: AgentUpstream | None = None
    environment: Mapping[str, str] = {}
    passes: tuple[str, ...] = ()
    limits: AgentLimits = AgentLimits()

    @property
    def told_model(self) -> str | None:
        """What the CLI is told to ask for; None: it is told nothing."""
        own = self.upstream is None and self.model == OWN_MODEL
        return None if own else self.model
