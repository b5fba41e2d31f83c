"""Scripts for leases: a scripted daemon that answers everything but the operation at hand."""

import itertools
import threading
from collections.abc import Awaitable, Callable
from random import Random

import anyio

from inferd_proto import Control, ErrorCode, JsonObject, Result
from tests.clients.lease_records import ENSURED, LEASE
from tests.clients.scripted_daemon import PATIENCE_S, Asked, Script, ScriptedDaemon, friendly


def ops(daemon: ScriptedDaemon) -> list[str]:
    """The operations that were asked for, in order."""
    return [asked.request.op for asked in daemon.asked if isinstance(asked.request, Control)]


def arguments(daemon: ScriptedDaemon, op: str) -> dict[str, object]:
    """What the last request for `op` carried."""
    for asked in reversed(daemon.asked):
        if isinstance(asked.request, Control) and asked.request.op == op:
            return asked.request.arguments
    raise AssertionError(f"{op} was not asked for")


async def until_asked(daemon: ScriptedDaemon, op: str, times: int) -> None:
    """Wait until `op` was asked for so often; the test's own deadline ends it."""
    while ops(daemon).count(op) < times:  # noqa: ASYNC110 (it is counted in other threads)
        await anyio.sleep(0.005)


async def give_up(daemon: ScriptedDaemon, ensure: Callable[[], Awaitable[object]]) -> None:
    """Cancel `ensure` once the daemon was asked, and before it has answered."""

    async def ask() -> None:
        await ensure()
        raise AssertionError("it was granted")

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until_asked(daemon, "lease.ensure", 1)
        group.cancel_scope.cancel()


def when(op: str, script: Script) -> Script:
    """`script` for one operation, a friendly answer for the others."""

    def answer(asked: Asked) -> None:
        request = asked.request
        if isinstance(request, Control) and request.op == op:
            script(asked)
        else:
            friendly(asked)

    return answer


def refuse(code: ErrorCode, message: str) -> Script:
    """An error as the answer."""
    return lambda asked: asked.fail(code, message)


def never(asked: Asked) -> None:
    """No answer until the client gives up; then the end of a request that was cancelled."""
    if asked.cancelled.wait(PATIENCE_S):
        asked.fail(ErrorCode.TIMEOUT, "cancelled")


def grant_late(asked: Asked) -> None:
    """The grant crosses the client's cancel."""
    assert asked.cancelled.wait(PATIENCE_S)
    asked.send(Result(asked.id, ENSURED))


def first_times(count: int, script: Script, then: Script = friendly) -> Callable[[Asked], None]:
    """`script` so many times, `then` from there on."""
    left = [count]

    def answer(asked: Asked) -> None:
        left[0] -= 1
        (script if left[0] >= 0 else then)(asked)

    return answer


def vanish(daemon: ScriptedDaemon) -> Script:
    """The daemon's end: its connections break, and its socket is gone."""

    def script(asked: Asked) -> None:
        daemon.path.unlink(missing_ok=True)
        asked.hang_up()

    return script


class Ledger:
    """A script that knows which of the leases it granted still live.

    A grant takes up to `slow_s`; a cancel that comes meanwhile is heeded, or crosses the grant, by
    the toss of a seeded coin.
    """

    def __init__(self, seed: int, slow_s: float) -> None:
        self.living: set[object] = set()
        self.granted = 0
        self._random = Random(seed)
        self._slow_s = slow_s
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> None:
        request = asked.request
        if not isinstance(request, Control):
            friendly(asked)
        elif request.op == "lease.ensure":
            self._grant(asked)
        elif request.op == "lease.release":
            with self._lock:
                self.living.discard(request.arguments["lease_ref"])
            asked.send(Result(asked.id, request.arguments))
        else:
            friendly(asked)

    def _grant(self, asked: Asked) -> None:
        with self._lock:
            delay_s, heeds = self._random.uniform(0, self._slow_s), self._random.random() < 0.5
        if asked.cancelled.wait(delay_s) and heeds:
            asked.fail(ErrorCode.TIMEOUT, "cancelled")
            return
        with self._lock:
            ref = f"lease-{next(self._numbers)}"
            self.living.add(ref)
            self.granted += 1
        lease: JsonObject = LEASE | {"lease_ref": ref, "ttl_ms": None, "left_ms": None}
        asked.send(Result(asked.id, ENSURED | {"lease": lease}))
