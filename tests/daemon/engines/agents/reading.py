"""Reading a CLI's output as a run does: in any pieces, to its end."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from inferd_daemon.backends.base import Finished, TextDeltas, ThinkingDeltas
from inferd_daemon.engines.agents.dialogue import AgentDialogue, AgentEvent, Failed
from inferd_daemon.engines.agents.profile import Place
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import AgentRequest, Turn

SAMPLES = Path(__file__).with_name("samples")
PLACE = Place(*(Path("/run/a", name) for name in Place._fields))
MODELS = {"amp": "low"}


class Reading(NamedTuple):
    """What a run amounts to."""

    text: tuple[str, ...]
    thinking: str
    end: Finished | Failed


def dialogue(provider: str, *turns: Turn) -> AgentDialogue:
    """A fresh one."""
    said = turns or (Turn("user", "Say hello."),)
    request = AgentRequest(MODELS.get(provider, "fake-model"), said)
    return PROFILES[provider].dialogue(request, PLACE)


def read(
    talk: AgentDialogue, pieces: Iterable[bytes], *, returncode: int = 0, stderr: str = ""
) -> Reading:
    """All of it, and the end of the process if nothing else was the end."""
    events: list[AgentEvent] = []
    for piece in pieces:
        events += talk.feed(piece)
    events += talk.end(returncode, stderr)
    return summed(events)


def summed(events: Iterable[AgentEvent]) -> Reading:
    """Checks that there is one end, and nothing after it."""
    *deltas, end = events
    assert isinstance(end, Finished | Failed)
    assert all(isinstance(event, TextDeltas | ThinkingDeltas) for event in deltas)
    text = [d for event in deltas if isinstance(event, TextDeltas) for d in event.deltas]
    thinking = [d for event in deltas if isinstance(event, ThinkingDeltas) for d in event.deltas]
    return Reading(tuple(text), "".join(thinking), end)
