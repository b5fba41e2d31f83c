"""One call of a control verb: who asks, on which connection, with which arguments."""

from typing import NamedTuple

from inferd_proto import JsonObject

from .view import DaemonView


class Peer(NamedTuple):
    """Credentials that the kernel noted when the peer connected; `groups` besides `gid`."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Call(NamedTuple):
    """What a verb gets. `connection` names the peer's connection among the daemon's, for what is
    bound to it; numbers are never used twice.
    """

    view: DaemonView
    peer: Peer
    connection: int
    arguments: JsonObject
