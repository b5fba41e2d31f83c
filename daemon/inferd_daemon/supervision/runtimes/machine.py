"""The life of one runtime, as a table: what happened in, what to do out.

Pure: time and chance are arguments. It never spawns, signals or waits; the supervisor carries
its actions out and feeds their results back.
"""

from enum import Enum
from typing import NamedTuple

from ...engines.base import Health
from ...engines.failures import Cause, Failure, failure
from .backoff import RestartHistory, RestartPolicy


class State(Enum):
    """Where a runtime stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"
    ADOPTED = "adopted"

    def __repr__(self) -> str:
        return self.value


class Signal(Enum):
    """What moves a runtime on."""

    START = "start asked"
    ADOPT = "process taken over"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    NO_ANSWER = "no answer"
    DIED = "process died"
    GAVE_UP = "starting again will not help"
    BACKOFF_OVER = "backoff over"
    STOP = "stop asked"

    def __repr__(self) -> str:
        return self.value


_S, _E = State, Signal
TRANSITIONS: dict[tuple[State, Signal], State] = {
    (_S.STOPPED, _E.START): _S.STARTING,
    (_S.STOPPED, _E.ADOPT): _S.ADOPTED,
    (_S.STOPPED, _E.STOP): _S.STOPPED,
    (_S.STARTING, _E.HEALTHY): _S.READY,
    (_S.STARTING, _E.DEGRADED): _S.STARTING,
    (_S.STARTING, _E.NO_ANSWER): _S.STARTING,
    (_S.STARTING, _E.DIED): _S.RESTARTING,
    (_S.STARTING, _E.GAVE_UP): _S.FAILED,
    (_S.STARTING, _E.STOP): _S.DRAINING,
    (_S.FAILED, _E.START): _S.STARTING,
    (_S.FAILED, _E.STOP): _S.STOPPED,
    (_S.RESTARTING, _E.BACKOFF_OVER): _S.STARTING,
    (_S.RESTARTING, _E.START): _S.STARTING,
    (_S.RESTARTING, _E.STOP): _S.STOPPED,
    (_S.DRAINING, _E.HEALTHY): _S.DRAINING,
    (_S.DRAINING, _E.DEGRADED): _S.DRAINING,
    (_S.DRAINING, _E.NO_ANSWER): _S.DRAINING,
    (_S.DRAINING, _E.STOP): _S.DRAINING,
    (_S.DRAINING, _E.DIED): _S.STOPPED,
    (_S.DRAINING, _E.GAVE_UP): _S.STOPPED,
}
for _live in (_S.READY, _S.DEGRADED, _S.UNAVAILABLE, _S.ADOPTED):
    TRANSITIONS |= {
        (_live, _E.HEALTHY): _S.READY,
        (_live, _E.DEGRADED): _S.DEGRADED,
        (_live, _E.NO_ANSWER): _S.UNAVAILABLE,
        (_live, _E.DIED): _S.RESTARTING,
        (_live, _E.GAVE_UP): _S.FAILED,
        (_live, _E.STOP): _S.DRAINING,
    }

WITH_PROCESS = frozenset(
    {_S.STARTING, _S.READY, _S.DEGRADED, _S.UNAVAILABLE, _S.DRAINING, _S.ADOPTED}
)
"""States in which a process is there or about to be."""
SERVING = frozenset({_S.READY, _S.DEGRADED})
"""States in which requests are sent to it."""
SETTLED = frozenset({_S.READY, _S.DEGRADED, _S.STOPPED, _S.FAILED})
"""States that do not change by waiting."""
MISSES_BEFORE_KILL = 2
"""One missed answer can be a busy machine; two in a row are a process that hangs."""


class SpawnProcess(NamedTuple):
    """Start the process."""


class StopProcess(NamedTuple):
    """End it politely, by force after its stop timeout."""


class KillProcess(NamedTuple):
    """End it by force, at once: it does not answer."""


class WaitBackoff(NamedTuple):
    """Wait so many seconds, then report `backoff over`."""

    seconds: float


Action = SpawnProcess | StopProcess | KillProcess | WaitBackoff


class MachineError(Exception):
    """The supervisor reported what cannot have happened: a mistake in the daemon."""


class RuntimeMachine:
    """One runtime's state, its restarts, and why its last process ended.

    Each method reports one thing that happened and returns what to do about it.
    """

    def __init__(self, policy: RestartPolicy | None = None) -> None:
        self.policy = policy or RestartPolicy()
        self.state = State.STOPPED
        self.restarts = 0
        self.last_failure: Failure | None = None
        self._misses = 0
        self._verdict: Failure | None = None
        self._history = RestartHistory()

    def __repr__(self) -> str:
        why = f" ({self.last_failure.reason})" if self.last_failure and not self.serving else ""
        return f"{self.state!r} after {self.restarts} restarts{why}"

    @property
    def serving(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state in SERVING

    def start(self) -> list[Action]:
        """Someone wants it to run. A runtime that runs already is left alone."""
        if self.state in WITH_PROCESS:
            return []
        if self.state is not State.RESTARTING:
            self._history = RestartHistory()
        self._step(Signal.START)
        return [self._spawn()]

    def adopt(self) -> list[Action]:
        """Its process runs already, handed over by the daemon's former self."""
        self._step(Signal.ADOPT)
        self._misses, self._verdict = 0, None
        return []

    def stop(self) -> list[Action]:
        """It shall end; nothing restarts it."""
        had_process = self.state in WITH_PROCESS
        draining = self.state is State.DRAINING
        self._step(Signal.STOP)
        return [StopProcess()] if had_process and not draining else []

    def looked(self, health: Health) -> list[Action]:
        """A health check came back. Loading counts as degraded once it has been ready."""
        if health is Health.UNSEEN:
            return []
        if health is not Health.NO_ANSWER:
            self._misses = 0
            self._step(Signal.HEALTHY if health is Health.HEALTHY else Signal.DEGRADED)
            return []
        starting = self.state is State.STARTING
        self._step(Signal.NO_ANSWER)
        if starting or self.state is State.DRAINING:
            return []
        self._misses += 1
        if self._misses != MISSES_BEFORE_KILL:
            return []
        self._verdict = failure(Cause.HUNG, "the engine stopped answering and was replaced")
        return [KillProcess()]

    def not_ready_in_time(self, seconds: float) -> list[Action]:
        """It was still loading at its deadline."""
        if self.state not in (State.STARTING, State.ADOPTED):
            return []
        self._verdict = failure(
            Cause.NOT_READY,
            f"the engine was not ready after {seconds:g} s and was stopped (raise ready_timeout_s)",
        )
        return [StopProcess()]

    def stalled(self) -> list[Action]:
        """It hangs while it loads."""
        if self.state not in (State.STARTING, State.ADOPTED):
            return []
        self._verdict = failure(Cause.HUNG, "the engine hung while it loaded its model")
        return [KillProcess()]

    def exited(
        self,
        explained: Failure,
        now: float,
        chance: float,
        *,
        held: bool = False,
        served_s: float | None = None,
    ) -> list[Action]:
        """The process is gone and reaped, or could not be started at all.

        `explained` is what its log and status say; what the machine itself ended it for goes
        before that. `chance` in [0, 1) is for the jitter. `held` when someone holds it, `served_s`
        how long it had been ready: None where it never was.
        """
        if self.state is State.DRAINING:
            self._step(Signal.DIED)
            return []
        self.last_failure = why = self._verdict or explained
        self._verdict = None
        wait = None
        if why.passing:
            if served_s is not None and served_s >= self.policy.settled_s:
                self._history = RestartHistory()
            wait, self._history = self._history.grant(
                self.policy, now, chance, at_once=held and served_s is not None
            )
            if wait is None and why.cause is Cause.NO_PROCESS:
                # None of its processes died: the machine had no room for one, and may yet have.
                wait = self.policy.longest_s
        if wait is None:
            self._step(Signal.GAVE_UP)
            return []
        self._step(Signal.DIED)
        self.restarts += 1
        return [WaitBackoff(wait)]

    def backoff_over(self) -> list[Action]:
        """The wait before a restart is over."""
        self._step(Signal.BACKOFF_OVER)
        return [self._spawn()]

    def _spawn(self) -> SpawnProcess:
        self._misses, self._verdict = 0, None
        return SpawnProcess()

    def _step(self, signal: Signal) -> None:
        try:
            self.state = TRANSITIONS[self.state, signal]
        except KeyError:
            raise MachineError(f"a runtime that is {self.state!r} takes no {signal!r}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram; ARCHITECTURE.md shows it."""
    rows = [
        f"    {a.value} --> {b.value}: {signal.value}"
        for (a, signal), b in TRANSITIONS.items()
        if a is not b
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> stopped", *rows])
