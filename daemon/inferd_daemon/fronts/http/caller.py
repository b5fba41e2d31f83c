"""Who asks over HTTP: the configured client whose key came with the request, or nobody known.

Pure. To the queues each configured client is a user of its own: they share a route as evenly as
users of the socket do, whatever the others send. Over a Unix socket the kernel names the user.
"""

from collections.abc import Iterable
from typing import NamedTuple

from starlette.requests import Request

from ...routing.shares import NO_UID, PeerKey

FIRST_CLIENT_UID = NO_UID - 1
"""That of the first configured client; the others follow below."""
UNNAMED = "http"
SCOPE_KEY = "inferd.caller"
"""Where the guard leaves the Caller, in the ASGI scope."""


class Caller(NamedTuple):
    """`name` is for logs and metrics, `peer` for the queues."""

    name: str
    peer: PeerKey


NOBODY = Caller(UNNAMED, PeerKey(NO_UID, UNNAMED))


class Callers:
    """`names` are those of the configured clients."""

    def __init__(self, names: Iterable[str]) -> None:
        self._uids = {name: FIRST_CLIENT_UID - index for index, name in enumerate(names)}

    def find(self, name: str | None, uid: int | None) -> Caller:
        """`name` goes with the key that came, if any; `uid` is the kernel's word, if it has one."""
        label = UNNAMED if name is None else name
        if uid is None:
            uid = NO_UID if name is None else self._uids[name]
        return Caller(label, PeerKey(uid, label))


def caller_of(request: Request) -> Caller:
    """As the guard has found it."""
    caller: Caller = request.scope.get(SCOPE_KEY, NOBODY)
    return caller
