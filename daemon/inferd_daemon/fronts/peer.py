"""Who is at the other end of a Unix socket, by the kernel's word alone (SO_PEERCRED)."""

import array
import socket
import struct

from ..control.call import Peer

SO_PEERGROUPS = 59
"""Linux's number for it; Python has no name."""
MAX_GROUPS = 255
"""getsockopt of Python takes at most 1,024 bytes."""
_UCRED = struct.Struct("3i")


def peer_of(sock: socket.socket) -> Peer:
    """The peer of a connected Unix socket. Raises OSError where the kernel has none."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid, gid, _groups_of(sock))


def _groups_of(sock: socket.socket) -> tuple[int, ...]:
    """The peer's supplementary groups; none where the kernel does not tell, or there are more."""
    try:
        listed = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_GROUPS * 4)
    except OSError:
        return ()
    return tuple(array.array("I", listed))
