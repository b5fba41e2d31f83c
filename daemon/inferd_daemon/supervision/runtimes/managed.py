"""One runtime of the table, with what the daemon knows of it beside its process.

It says what is, and decides nothing: the table and those who hold runtimes change it.
"""

import signal

import trio

from inferd_proto import ErrorCode, RuntimeState
from inferd_proto import Runtime as WireRuntime

from ...errors import RequestError
from ..processes.memory import resident_bytes
from .blueprint import Blueprint
from .machine import WITH_PROCESS, State
from .runtime_life import RuntimeLife

END_SLACK_S = 10.0
"""Above a runtime's own stop timeout: what the kernel takes to let go of it."""


class Managed:
    """One runtime with what the daemon knows of it beside its process.

    `wanted` from its admission until it is asked to stop or is given up. `refusal` is why its
    start was not even tried, or was called off. `idle_since` is None while it is held, or was
    never.
    """

    def __init__(self, blueprint: Blueprint, supervisor: RuntimeLife, now: float) -> None:
        self.blueprint = blueprint
        self.supervisor = supervisor
        self.scope = trio.CancelScope()
        self.estimated_bytes: int | None = None
        self.wanted = False
        self.was_ready = False
        self.refusal: RequestError | None = None
        self.last_used = now
        self.idle_since: float | None = None
        self.restarts_before = 0
        """How often it had been restarted when it was admitted last."""
        self.kept_bytes: int | None = None
        """What stays its own between the two processes of a restart; None while there is none."""
        self.stops = 0
        """How often it was asked to end."""
        self.noted_pid: int | None = None
        """Of the process that the journal knows of."""
        self.told = ""
        """What the last published change said of it."""

    def __repr__(self) -> str:
        return f"{self.key} ({self.supervisor!r})"

    @property
    def key(self) -> str:
        """Its instance key."""
        return self.blueprint.instance_key

    @property
    def state(self) -> State:
        """Where its machine stands."""
        return self.supervisor.state

    @property
    def occupies(self) -> bool:
        """Whether it has memory and a place, or is about to."""
        return self.wanted or self.restarting or self.state in WITH_PROCESS

    @property
    def restarting(self) -> bool:
        """Whether its process is to end for another one, which has its place."""
        return self.kept_bytes is not None

    @property
    def leaving(self) -> bool:
        """Whether its place is free soon."""
        return not self.wanted and not self.restarting and self.state in WITH_PROCESS

    @property
    def end_allowance_s(self) -> float:
        """How long its end may take once it was asked to end."""
        return self.supervisor.engine.timing.stop_timeout_s + END_SLACK_S

    def not_ended(self) -> RequestError:
        """The error (`timeout`) for who waited so long for its end."""
        process = self.supervisor.process
        which = "" if process is None else f" (pid {process.pid})"
        return RequestError(
            ErrorCode.TIMEOUT,
            f"{self.blueprint.name}{which} was asked to end and has not after "
            f"{self.end_allowance_s:g} s: stop it once more, by force, or see what its process "
            "waits for",
        )

    @property
    def memory_bytes(self) -> int:
        """The larger of what was estimated and what is seen."""
        process = self.supervisor.process
        seen = resident_bytes(process.pid) if process is not None else 0
        return max(seen, self.estimated_bytes or 0, self.kept_bytes or 0)

    def kill(self) -> None:
        """SIGKILL to its process; its supervisor has it reaped."""
        process = self.supervisor.process
        if process is not None:
            process.signal_group(signal.SIGKILL)

    def to_wire(self, leases: int, idle_left_s: float | None) -> WireRuntime:
        """What `runtime.list` shows."""
        status = self.supervisor.status()
        process = self.supervisor.process
        return WireRuntime(
            instance_key=self.key,
            name=self.blueprint.name,
            engine=self.blueprint.manifest.backend,
            state=RuntimeState(self.shown_state.value),
            health=describe_health(self.state),
            pid=status.pid,
            memory_bytes=resident_bytes(process.pid) if process is not None else None,
            estimated_bytes=self.estimated_bytes,
            leases=leases,
            idle_left_ms=None if idle_left_s is None else int(idle_left_s * 1000),
            endpoint=repr(self.supervisor.endpoint) or None,
            restarts=status.restarts,
            last_error=status.last_error,
            model_identity=self.blueprint.model_identity,
        )

    @property
    def shown_state(self) -> State:
        """Between its admission and its first process it is starting, to all the world."""
        return State.STARTING if self.wanted and self.state is State.STOPPED else self.state


def describe_health(state: State) -> str:
    """The last verdict of the health checks: healthy, degraded, unavailable or unknown."""
    return {
        State.READY: "healthy",
        State.DEGRADED: "degraded",
        State.UNAVAILABLE: "unavailable",
    }.get(state, "unknown")
