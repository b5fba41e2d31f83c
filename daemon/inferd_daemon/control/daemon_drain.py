"""`daemon.drain`: stop as on SIGTERM: running requests finish, no new ones are taken."""

import structlog

from inferd_proto import JsonObject

from .call import Call
from .claimant import require_admin

_log = structlog.get_logger(__name__)


async def daemon_drain(call: Call) -> JsonObject:
    """`{"state": "draining"}`."""
    require_admin(call)
    _log.info("stopping", verb="daemon.drain", pid=call.peer.pid)
    # what comes behind this on the same connection is refused, too
    call.view.draining = True
    call.view.stop_asked.set()
    return {"state": "draining"}
