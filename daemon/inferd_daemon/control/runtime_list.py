"""`runtime.list`: the runtimes that run, ran a while ago, or are configured."""

from inferd_proto import JsonObject

from .call import Call
from .claimant import claimant_of
from .runtime_sight import visible_runtimes


async def runtime_list(call: Call) -> JsonObject:
    """`{"runtimes": [...]}`."""
    view = call.view
    runtimes = visible_runtimes(view, claimant_of(call))
    return {"runtimes": [view.leases.describe(runtime) for runtime in runtimes]}
