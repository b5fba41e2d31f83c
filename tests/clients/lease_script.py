"""Scripts for leases: a scripted daemon that answers everything but the operation at hand."""

from collections.abc import Callable

import anyio

from inferd_proto import Control, ErrorCode, Result
from tests.clients.lease_records import ENSURED
from tests.clients.scripted_daemon import Asked, Script, ScriptedDaemon, friendly


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
    if asked.cancelled.wait(10):
        asked.fail(ErrorCode.TIMEOUT, "cancelled")


def grant_late(asked: Asked) -> None:
    """The grant crosses the client's cancel."""
    assert asked.cancelled.wait(10)
    asked.send(Result(asked.id, ENSURED))


def first_times(count: int, script: Script, then: Script = friendly) -> Callable[[Asked], None]:
    """`script` so many times, `then` from there on."""
    left = [count]

    def answer(asked: Asked) -> None:
        left[0] -= 1
        (script if left[0] >= 0 else then)(asked)

    return answer
