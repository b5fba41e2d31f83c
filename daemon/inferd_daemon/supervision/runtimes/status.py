"""A runtime's state in words: for `status`, and for a client that is refused. Pure."""

from msgspec import Struct

from ...backends.base import Readiness
from ...backends.runtime import ModelFacts
from .machine import RuntimeMachine, State


class RuntimeStatus(Struct, frozen=True):
    """One runtime at one moment. `in_state_s`: seconds since it came into its state."""

    name: str
    state: str
    pid: int | None
    restarts: int
    in_state_s: float
    last_error: str | None
    facts: ModelFacts | None


def describe_readiness(name: str, machine: RuntimeMachine) -> Readiness:
    """Whether requests may be sent to the runtime `name`, else why not."""
    if machine.serving:
        return Readiness(True)
    last = machine.last_failure
    because = f" ({last.reason})" if last is not None else ""
    sentences = {
        State.STARTING: f"{name} is loading its model{because}",
        State.RESTARTING: f"{name} is about to restart{because}",
        State.FAILED: f"{name} failed{because}",
        State.UNAVAILABLE: f"{name} does not answer",
        State.ADOPTED: f"{name} was taken over a moment ago",
        State.STOPPED: f"{name} is stopped until it is restarted (`inferdctl restart {name}`)",
    }
    pending = machine.state in (State.STARTING, State.RESTARTING, State.ADOPTED)
    return Readiness(False, sentences.get(machine.state, f"{name} is {machine.state!r}"), pending)
