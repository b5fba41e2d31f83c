"""`runtime.stop`: end a runtime that nobody holds; with `force` one that somebody does."""

import trio

from inferd_proto import ErrorCode, JsonObject, RuntimeRef

from ..errors import RequestError
from ..supervision.runtimes.machine import State
from ..supervision.runtimes.managed import Managed
from .arguments import read_arguments
from .call import Call
from .claimant import require_admin
from .runtime_sight import find_runtime


async def runtime_stop(call: Call) -> JsonObject:
    """The runtime, stopped. `force` ends its leases as well, and calls off its start; of one that
    is being stopped already, its patience.
    """
    asked = read_arguments(call.arguments, RuntimeRef)
    runtime = find_runtime(call.view, require_admin(call), asked.instance_key)
    refuse_held(call, runtime, force=asked.force)
    leases = call.view.leases
    leases.keeper.runtime_gone(runtime.key)
    if asked.force and runtime.state is State.DRAINING:
        runtime.kill()
    leases.runtimes.stop(runtime, _called_off(runtime) if asked.force else None)
    with trio.move_on_after(runtime.end_allowance_s):
        await leases.runtimes.wait_stopped(runtime)
        return leases.describe(runtime)
    raise runtime.not_ended()


def refuse_held(call: Call, runtime: Managed, *, force: bool) -> None:
    """Raises RequestError (`conflict`) where it is leased and not forced."""
    keeper = call.view.leases.keeper
    if force or not keeper.held(runtime.key):
        return
    owners = keeper.count(runtime.key)
    match owners:
        case 0:
            why = "it works on requests; let them end"
        case 1:
            why = "1 lease holds it; release it"
        case _:
            why = f"{owners} leases hold it; release them"
    raise RequestError(
        ErrorCode.CONFLICT,
        f"{runtime.blueprint.name} is in use: {why}, or use `force`",
        details={"leases": owners},
    )


def _called_off(runtime: Managed) -> RequestError:
    """What those get who waited for it to be ready."""
    return RequestError(
        ErrorCode.CONFLICT,
        f"{runtime.blueprint.name} was stopped by force while it was waited for: ensure again",
    )
