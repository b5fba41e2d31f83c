"""The real CLIs of agents for tests: where they are, and one run of one.

Named by INFERD_CODEX and INFERD_CLAUDE or found on PATH; `.ci/run` installs them. Without one, its
tests are skipped and say how to get it.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest

from inferd_daemon.backends.base import Batch, Finished, TextDeltas, ThinkingDeltas
from inferd_daemon.engines.agents.binary import find_binary
from inferd_daemon.engines.agents.profile import AgentProfile
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import AgentLimits, AgentRequest, AgentUpstream, Turn
from inferd_daemon.engines.secret import Secret
from inferd_daemon.errors import BackendFault
from inferd_daemon.supervision.agents.host import AgentHost
from inferd_daemon.supervision.agents.run import run_agent
from tests.support.processes import bearing

REAL = ("codex", "claude")
"""Those that were seen to work at a local upstream without an account."""
KEY = "sk-test-lease-key"
MARK = "INFERD_INSTANCE"
WAIT_S = 80.0
"""Longer than a CLI takes to begin where nearly nothing gets a turn."""


def cli_path(provider: str) -> Path:
    """The program. Skips the calling test where there is none."""
    profile = PROFILES[provider]
    try:
        return find_binary(profile, os.environ)
    except BackendFault as error:
        if profile.variable in os.environ:
            raise
        pytest.skip(f"{error.message}; or let .ci/run install it")


class Answer(NamedTuple):
    """What a run gave, all of it."""

    text: str
    thinking: str
    end: Finished
    batches: list[Batch]


def request_to(url: str, *turns: Turn | str, **fields: object) -> AgentRequest:
    """A request to the upstream at `url`; a text alone is a user's turn."""
    said = tuple(Turn("user", turn) if isinstance(turn, str) else turn for turn in turns)
    defaults: dict[str, object] = {
        "model": "test-model",
        "turns": said or (Turn("user", "Say hello."),),
        "upstream": AgentUpstream(url, Secret(KEY)),
        "environment": dict(os.environ),
        "limits": AgentLimits(deadline_s=WAIT_S),
    }
    return AgentRequest(**{**defaults, **fields})  # type: ignore[arg-type]


def start(
    provider: str, request: AgentRequest, directory: Path, profile: AgentProfile | None = None
) -> AsyncGenerator[Batch, None]:
    """One run of the real program in a host of the test's own."""
    return run_agent(
        profile or PROFILES[provider],
        request,
        binary=cli_path(provider),
        host=AgentHost(directory / "runs", {MARK: str(directory)}),
    )


def running(directory: Path) -> list[int]:
    """Living processes of runs started there, in whatever session."""
    return bearing(f"{MARK}={directory}")


async def ask(
    provider: str, request: AgentRequest, directory: Path, profile: AgentProfile | None = None
) -> Answer:
    """One run to its end. Raises RequestError."""
    batches: list[Batch] = []
    async with aclosing(start(provider, request, directory, profile)) as run:
        async for batch in run:
            batches.append(batch)  # noqa: PERF401 (the run is to be closed by its scope)
    events = [event for batch in batches for event in batch]
    text = [d for event in events if isinstance(event, TextDeltas) for d in event.deltas]
    thought = [d for event in events if isinstance(event, ThinkingDeltas) for d in event.deltas]
    end = events[-1]
    assert isinstance(end, Finished)
    return Answer("".join(text), "".join(thought), end, batches)
