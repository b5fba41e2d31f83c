"""Has leased runtimes that failed or were left stopped tried again, after longer and longer rests.

Their owners hold an address and wait for it: nobody would ask to have them started. What nobody
holds rests until somebody asks.
"""

import os

import structlog
import trio

from ...errors import RequestError
from ..runtimes.machine import SETTLED, State
from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from .keeper import LeaseKeeper
from .lease import Claimant
from .placing import Placing

FIRST_REST_S = 30.0
LONGEST_REST_S = 300.0
LOOK_S = 0.05
_AT_REST = frozenset({State.FAILED, State.STOPPED})

_log = structlog.get_logger(__name__)


class Revival:
    """Keep `run` running."""

    def __init__(
        self,
        runtimes: Runtimes,
        keeper: LeaseKeeper,
        placing: Placing,
        *,
        first_rest_s: float = FIRST_REST_S,
    ) -> None:
        self._runtimes = runtimes
        self._keeper = keeper
        self._placing = placing
        self._first_rest_s = first_rest_s
        self._tended: dict[str, trio.CancelScope] = {}

    def hurry(self, key: str) -> None:
        """Somebody has come back to a lease on it: it is tried now, where it rests."""
        if key in self._tended:
            self._tended[key].cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after each leased runtime that does not run, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                for runtime in self._runtimes:
                    if self._lies(runtime) and runtime.key not in self._tended:
                        self._tended[runtime.key] = trio.CancelScope()
                        nursery.start_soon(self._tend, runtime.key)
                await self._runtimes.wait_changed()
                # Leases come and go by the thousand; one look serves them all.
                await trio.sleep(LOOK_S)

    async def _tend(self, key: str) -> None:
        """Until it serves, or is no more our concern."""
        rest_s = self._first_rest_s
        try:
            while self._lies(self._runtimes.get(key)):
                with trio.move_on_after(rest_s) as self._tended[key]:
                    await trio.sleep_forever()
                rest_s = min(rest_s * 2, LONGEST_REST_S)
                runtime = self._runtimes.get(key)
                # Somebody else may have had it started, or it may be held no more.
                if runtime is not None and self._lies(runtime):
                    await self._try(runtime)
                await self._settled(key)
        finally:
            del self._tended[key]

    async def _try(self, runtime: Managed) -> None:
        name = runtime.blueprint.name
        _log.info("leased runtime tried again", runtime=name)
        with self._keeper.pinned(runtime.key, os.geteuid()):
            try:
                await self._placing.place(runtime.blueprint, Claimant(os.geteuid(), admin=True))
            except RequestError as error:
                _log.warning("leased runtime not started", runtime=name, reason=error.message)

    async def _settled(self, key: str) -> None:
        while (runtime := self._runtimes.get(key)) is not None:
            if runtime.state in SETTLED and not (runtime.wanted and runtime.state is State.STOPPED):
                return
            await self._runtimes.wait_changed()

    def _lies(self, runtime: Managed | None) -> bool:
        return (
            runtime is not None
            and runtime.state in _AT_REST
            and not runtime.occupies
            and self._keeper.count(runtime.key) > 0
        )
