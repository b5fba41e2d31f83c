"""`daemon.upgrade`: check the code that is installed now, then go over to it in place."""

from inferd_proto import JsonObject

from ..errors import BackendFault
from .call import Call
from .claimant import require_admin


async def daemon_upgrade(call: Call) -> JsonObject:
    """`{"state": "upgrading"}` once the new code has shown that it can take over.

    Refused (`conflict`) with the reason where it cannot; the daemon goes on then.
    """
    require_admin(call)
    if call.view.upgrade is None:
        raise BackendFault("this daemon cannot be upgraded in place")
    await call.view.upgrade.ask()
    return {"state": "upgrading"}
