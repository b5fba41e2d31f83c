"""`runtime.restart`: end a runtime's process and start it anew, at the same address."""

from inferd_proto import JsonObject, RuntimeRef

from .arguments import read_arguments
from .call import Call
from .claimant import require_admin
from .runtime_sight import find_runtime
from .runtime_stop import refuse_held


async def runtime_restart(call: Call) -> JsonObject:
    """The runtime, starting. With `force` also a leased one; its leases stay.

    One that does not run needs room as any other. Raises RequestError as `lease.ensure` does.
    """
    asked = read_arguments(call.arguments, RuntimeRef)
    claimant = require_admin(call)
    runtime = find_runtime(call.view, claimant, asked.instance_key)
    refuse_held(call, runtime, force=asked.force)
    leases = call.view.leases
    # Held meanwhile, so that neither its TTL nor an eviction comes between.
    hold = leases.keeper.pinned(runtime.key, call.peer.uid)
    if runtime.occupies:
        await leases.runtimes.restart(runtime, hold)
    elif runtime.blueprint.resident:
        leases.runtimes.start(runtime)
    else:
        with hold:
            runtime = await leases.placing.place(runtime.blueprint, claimant)
    return leases.describe(runtime)
