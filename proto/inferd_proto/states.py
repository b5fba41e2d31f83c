"""The life of one request on a connection, as a table that both roles obey.

The same states serve the side that asks and the side that answers: each side steps its own
copy by what it sends and what it receives.
"""

from enum import Enum

from .errors import LocalProtocolError


class State(Enum):
    """Where one request stands."""

    IDLE = "idle"
    UPLOADING = "uploading"
    RUNNING = "running"
    CANCELLING = "cancelling"
    ENDED = "ended"

    __hash__ = (
        object.__hash__
    )  # the table is looked at for every token; Enum's is five times slower

    def __repr__(self) -> str:
        return self.value


class Signal(Enum):
    """What moves a request on."""

    REQUEST = "request"
    REQUEST_WITH_BLOBS = "request with attachments"
    BLOB = "blob"
    LAST_BLOB = "last blob"
    PART = "part of the answer"
    CANCEL = "cancel"
    TERMINAL = "terminal answer"

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.value


TRANSITIONS: dict[tuple[State, Signal], State] = {
    (State.IDLE, Signal.REQUEST): State.RUNNING,
    (State.IDLE, Signal.REQUEST_WITH_BLOBS): State.UPLOADING,
    (State.UPLOADING, Signal.BLOB): State.UPLOADING,
    (State.UPLOADING, Signal.LAST_BLOB): State.RUNNING,
    (State.UPLOADING, Signal.TERMINAL): State.ENDED,
    (State.RUNNING, Signal.PART): State.RUNNING,
    (State.RUNNING, Signal.CANCEL): State.CANCELLING,
    (State.RUNNING, Signal.TERMINAL): State.ENDED,
    (State.CANCELLING, Signal.PART): State.CANCELLING,
    (State.CANCELLING, Signal.CANCEL): State.CANCELLING,
    (State.CANCELLING, Signal.TERMINAL): State.ENDED,
}


def step(state: State, signal: Signal) -> State:
    """The state after `signal`. Raises LocalProtocolError where the table has no such row."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        raise LocalProtocolError(f"a request that is {state!r} takes no {signal!r}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram; PROTOCOL.md shows it and a test holds them equal."""
    rows = [
        f"    {a.value} --> {b.value}: {signal.value}" for (a, signal), b in TRANSITIONS.items()
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> idle", *rows, "    ended --> [*]"])
