"""Who is at the other end of a Unix socket, by the kernel's word alone (SO_PEERCRED)."""

import socket
import struct

from ..control.call import Peer

_UCRED = struct.Struct("3i")


def peer_of(sock: socket.socket) -> Peer:
    """The peer of a connected Unix socket. Raises OSError where the kernel has none."""
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
