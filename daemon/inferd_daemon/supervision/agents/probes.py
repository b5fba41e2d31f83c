"""What is known of each provider's CLI, asked anew when it is too old; one question at a time.

Asking starts the program: half a second of work. Whoever asks at the same moment shares the answer.
"""

from collections.abc import Mapping
from math import inf
from pathlib import Path

import trio

from ...config import AgentConfig
from ...engines.agents.profile import AgentProbe
from ...engines.agents.registry import PROFILES
from .probe import probe

DOUBT_S = 1.0
"""Of a program that is not there, or logged out, no older news counts: someone may just have
mended it."""


class AgentProbes:
    """`configured` by provider; `environment` is the daemon's own."""

    def __init__(
        self, configured: Mapping[str, AgentConfig], environment: Mapping[str, str]
    ) -> None:
        self.environment = environment
        self._configured = configured
        self._known: dict[str, tuple[float, AgentProbe]] = {}
        self._asking = {name: trio.Lock() for name in PROFILES}

    def config(self, provider: str) -> AgentConfig:
        """Its table, or the defaults."""
        return self._configured.get(provider) or AgentConfig()

    async def binary(self, provider: str) -> Path | None:
        """Its program, where one was ever found; else it is looked for."""
        _, known = self._known.get(provider, (-inf, None))
        if known is None or known.binary is None:
            known = await self.ask(provider, max_age_s=DOUBT_S)
        return known.binary

    async def ask(self, provider: str, *, max_age_s: float) -> AgentProbe:
        """What was found, at most so old."""
        async with self._asking[provider]:
            at, known = self._known.get(provider, (-inf, None))
            if known is not None:
                good_for_s = max_age_s if known.ready else min(max_age_s, DOUBT_S)
                if trio.current_time() - at <= good_for_s:
                    return known
            found = await probe(PROFILES[provider], self.environment, self.config(provider).binary)
            self._known[provider] = (trio.current_time(), found)
            return found
