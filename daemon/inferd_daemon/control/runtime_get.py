"""`runtime.get`: one runtime."""

from inferd_proto import JsonObject, RuntimeRef

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of
from .runtime_sight import find_runtime


async def runtime_get(call: Call) -> JsonObject:
    """The runtime as `runtime.list` shows it."""
    asked = read_arguments(call.arguments, RuntimeRef)
    runtime = find_runtime(call.view, claimant_of(call), asked.instance_key)
    return call.view.leases.describe(runtime)
