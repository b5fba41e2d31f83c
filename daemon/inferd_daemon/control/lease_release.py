"""`lease.release`: give a lease back."""

from inferd_proto import JsonObject, LeaseRelease

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of


async def lease_release(call: Call) -> JsonObject:
    """`{"lease_ref"}`, as often as it is asked."""
    asked = read_arguments(call.arguments, LeaseRelease)
    await call.view.leases.keeper.release(asked.lease_ref, claimant_of(call))
    return {"lease_ref": asked.lease_ref}
