"""A configured runtime as its backend sees it: each request holds it, and has it started.

Whatever keeps it from running is the backend's fault to its caller, who chose a route, no spec.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from inferd_proto import ErrorCode

from ..backends.base import Readiness
from ..backends.runtime import Endpoint, ModelFacts
from ..errors import BackendFault, RequestError
from .leases.eviction import is_refusal
from .leases.journal_file import JournalUnavailable
from .leasing import Leasing
from .runtimes.blueprint import Blueprint
from .runtimes.machine import SERVING, State
from .runtimes.managed import Managed

NOTICE_S = 0.5
"""The kernel tells of a process's end within milliseconds; this is for a loaded machine."""
FAILED_REST_S = 30.0
"""A runtime that failed is not asked for so long; then a request may start it again."""
ROOM_PATIENCE_S = 60.0
"""How long a request waits for others to end: routes that share a machine take turns."""
_PENDING = frozenset({State.STARTING, State.RESTARTING, State.DRAINING, State.ADOPTED})


class OnDemand:
    """The runtime of `blueprint`, which is configured and thus always in the table."""

    def __init__(self, blueprint: Blueprint, leasing: Leasing) -> None:
        self._blueprint = blueprint
        self._leasing = leasing

    @property
    def endpoint(self) -> Endpoint:
        """Final once it is held."""
        return self._runtime.supervisor.endpoint

    @property
    def facts(self) -> ModelFacts | None:
        """None until it was ready once."""
        return self._runtime.supervisor.facts

    def readiness(self) -> Readiness:
        """Ready where a request may be sent: what does not run is started for it."""
        runtime = self._runtime
        supervisor = runtime.supervisor
        if runtime.state in SERVING:
            return Readiness(True)
        if runtime.state in _PENDING or (runtime.wanted and runtime.state is State.STOPPED):
            reason = supervisor.readiness().reason or f"{self._blueprint.name} is starting"
            return Readiness(False, reason, pending=True)
        if runtime.state is State.STOPPED:
            return Readiness(True)
        if runtime.state is State.FAILED and supervisor.status().in_state_s > FAILED_REST_S:
            return Readiness(True)
        return supervisor.readiness()

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Have it ready, and keep it for the block.

        Raises BackendFault where it does not start, RequestError where that is not its fault:
        no room in time (`queue_full`), no journal.
        """
        with self._leasing.ensure.holding(self._blueprint):
            await self._have_ready()
            yield

    def on_ending(self, call: Callable[[], bool]) -> None:
        """As the protocol says."""
        mine = self._blueprint.instance_key
        self._leasing.runtimes.on_ending.append(lambda key: key == mine and call())

    async def replaced(self) -> bool:
        """Wait for the process after the one that could not be reached; False where it lives on.

        Raises BackendFault where there is none.
        """
        with trio.move_on_after(NOTICE_S):
            while self._runtime.state in SERVING:
                await self._leasing.runtimes.wait_changed()
        if self._runtime.state in SERVING:
            return False
        await self._have_ready()
        return True

    async def _have_ready(self) -> None:
        try:
            await self._leasing.ensure.have_ready(self._blueprint, ROOM_PATIENCE_S)
        except JournalUnavailable:
            raise
        except RequestError as error:
            if is_refusal(error):
                raise RequestError(
                    ErrorCode.QUEUE_FULL, error.message, details=error.details
                ) from error
            raise BackendFault(error.message) from error

    @property
    def _runtime(self) -> Managed:
        runtime = self._leasing.runtimes.get(self._blueprint.instance_key)
        assert runtime is not None  # a configured runtime is never taken out of the table
        return runtime
