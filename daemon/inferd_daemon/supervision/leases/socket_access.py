"""Who but the daemon's own user may connect to a runtime's socket: one group, and only if needed.

The key of the runtime is still required.
"""

import os
from typing import NamedTuple

from inferd_proto import CompatibilityResult

from ...engines.base import Engine
from ...engines.runtime_socket import RuntimeSocket
from ...engines.secret import Secret
from ..runtimes.blueprint import Former
from ..runtimes.managed import Managed
from .compatibility import incompatible
from .lease import Claimant


class Owner(NamedTuple):
    """Who asks for a lease, with its groups by the kernel's word, the primary one first."""

    claimant: Claimant
    groups: tuple[int, ...] = ()


class SocketAccess:
    """`socket_group` is that of the daemon's own socket; None where it has none."""

    def __init__(self, socket_group: int | None = None) -> None:
        self._socket_group = socket_group

    def open_to(self, runtime: Managed, owner: Owner, fits: CompatibilityResult) -> bool:
        """Let an owner of another uid connect; True where that changed something.

        Raises RequestError (`incompatible`).
        """
        uid = owner.claimant.uid
        if uid in (0, os.geteuid()):
            return False
        former = group_of(runtime)
        if former in owner.groups:
            return False
        if former is not None:
            raise incompatible(
                f"the runtime's socket is open to group {former}, and uid {uid} is not in it: "
                "configure a `socket_group` that all of its owners are in",
                fits,
            )
        group, socket = self._group_for(owner), _socket_of(runtime)
        if group is None or socket is None:
            raise incompatible(f"the runtime's socket cannot be opened to uid {uid}", fits)
        try:
            socket.open_to(group)
        except OSError as error:
            raise incompatible(
                f"the daemon's user cannot open the runtime's socket to group {group} "
                f"({error.strerror}): configure a `socket_group` that it is in",
                fits,
            ) from error
        return True

    def _group_for(self, owner: Owner) -> int | None:
        if self._socket_group in owner.groups:
            return self._socket_group
        return owner.groups[0] if owner.groups else None


def group_of(runtime: Managed) -> int | None:
    """The group that may connect to the runtime's socket."""
    socket = _socket_of(runtime)
    return None if socket is None else socket.group


def _socket_of(runtime: Managed) -> RuntimeSocket | None:
    engine = runtime.supervisor.engine
    return engine.socket if isinstance(engine, Engine) else None


def former_of(runtime: Managed) -> Former:
    """The address and key that its owners know."""
    endpoint = runtime.supervisor.endpoint
    key = None if endpoint.key is None else Secret(endpoint.key)
    return Former(key, endpoint.port, group_of(runtime))
