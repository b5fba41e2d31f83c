"""`daemon.drain`: stop as on SIGTERM: running requests finish, no new ones are taken."""

from inferd_proto import JsonObject

from .call import Call
from .claimant import require_admin


async def daemon_drain(call: Call) -> JsonObject:
    """`{"state": "draining"}`."""
    require_admin(call)
    call.view.stop_asked.set()
    return {"state": "draining"}
