"""`lease.renew`: more time for a lease."""

import msgspec

from inferd_proto import LeaseRenew

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of


async def lease_renew(call: Call) -> object:
    """The lease, with `ttl_ms` left from now."""
    asked = read_arguments(call.arguments, LeaseRenew)
    keeper = call.view.leases.keeper
    lease = await keeper.renew(asked.lease_ref, asked.ttl_ms, claimant_of(call))
    return msgspec.to_builtins(lease.to_wire(keeper.now()))
