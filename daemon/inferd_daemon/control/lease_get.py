"""`lease.get`: one lease."""

import msgspec

from inferd_proto import LeaseGet

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of


async def lease_get(call: Call) -> object:
    """The lease; `not_found` where it was released or its time is over."""
    asked = read_arguments(call.arguments, LeaseGet)
    keeper = call.view.leases.keeper
    lease = keeper.table.get(keeper.now(), asked.lease_ref, claimant_of(call))
    return msgspec.to_builtins(lease.to_wire(keeper.now()))
