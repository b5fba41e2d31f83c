"""Who a caller is to the leases, and whether it may do everything."""

import os

from inferd_proto import ErrorCode

from ..errors import RequestError
from ..supervision.leases.lease import Claimant
from ..supervision.leases.socket_access import Owner
from .call import Call


def claimant_of(call: Call) -> Claimant:
    """The caller by the kernel's word: the daemon's user, root and the admin group are admins."""
    peer, group = call.peer, call.view.admin_group
    admin = peer.uid in (0, os.geteuid()) or (
        group is not None and group in (peer.gid, *peer.groups)
    )
    return Claimant(peer.uid, peer.pid, call.connection, admin)


def owner_of(call: Call) -> Owner:
    """The caller with its groups."""
    return Owner(claimant_of(call), (call.peer.gid, *call.peer.groups))


def require_admin(call: Call) -> Claimant:
    """The caller, who may do everything. Raises RequestError (`permission_denied`)."""
    claimant = claimant_of(call)
    if not claimant.admin:
        raise RequestError(
            ErrorCode.PERMISSION_DENIED,
            "only the daemon's user, root and the admin group may do this",
        )
    return claimant
