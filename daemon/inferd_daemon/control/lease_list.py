"""`lease.list`: the live leases that the caller may see."""

import msgspec

from inferd_proto import JsonObject, LeaseList

from .arguments import read_arguments
from .call import Call
from .claimant import claimant_of


async def lease_list(call: Call) -> JsonObject:
    """`{"leases": [...]}`, oldest first."""
    asked = read_arguments(call.arguments, LeaseList)
    keeper = call.view.leases.keeper
    now = keeper.now()
    leases = keeper.table.visible(
        now,
        claimant_of(call),
        owner_ref=asked.owner_ref,
        instance_key=asked.instance_key,
        uid=asked.uid,
    )
    return {"leases": [msgspec.to_builtins(lease.to_wire(now)) for lease in leases]}
