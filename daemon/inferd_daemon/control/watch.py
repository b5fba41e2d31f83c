"""`watch`: the present state, then every change of runtimes, leases and routes."""

from collections.abc import AsyncGenerator
from functools import partial

import msgspec

from inferd_proto import ErrorCode, JsonObject

from ..errors import RequestError
from ..supervision.changes import FellBehind
from ..supervision.leases.lease import Claimant
from .call import Call
from .claimant import claimant_of
from .route_list import describe_routes
from .runtime_sight import visible_runtimes
from .view import DaemonView


async def watch(call: Call) -> AsyncGenerator[object, None]:
    """First `{"type": "snapshot", …}`, then `runtime`, `lease` and `route` objects.

    A caller that does not take them in time gets `queue_full` and has to start over.
    """
    claimant, view = claimant_of(call), call.view
    with view.leases.changes.subscribed(concerns=partial(_may_see, view, claimant)) as subscription:
        yield _snapshot(view, claimant)
        while True:
            try:
                change = await subscription.next()
            except FellBehind:
                raise RequestError(
                    ErrorCode.QUEUE_FULL, "too many changes were not taken: watch again"
                ) from None
            yield change


def _snapshot(view: DaemonView, claimant: Claimant) -> JsonObject:
    keeper = view.leases.keeper
    now = keeper.now()
    return {
        "type": "snapshot",
        "state": view.state,
        "runtimes": [view.leases.describe(one) for one in visible_runtimes(view, claimant)],
        "leases": [
            msgspec.to_builtins(lease.to_wire(now)) for lease in keeper.table.visible(now, claimant)
        ],
        "routes": describe_routes(view),
    }


def _may_see(view: DaemonView, claimant: Claimant, change: JsonObject) -> bool:
    if claimant.admin:
        return True
    match change:
        case {"type": "lease", "lease": {"uid": uid}}:
            return bool(uid == claimant.uid)
        case {"type": "runtime", "runtime": {"instance_key": key}}:
            return any(runtime.key == key for runtime in visible_runtimes(view, claimant))
        case _:
            return True
