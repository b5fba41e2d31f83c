"""Who asks over HTTP: the configured client whose key came with the request, or nobody known."""

from typing import NamedTuple

from starlette.requests import Request

from ...routing.shares import PeerKey

HTTP_UID = -1
"""HTTP tells of no user: all of its callers are one, whose configured clients divide its share."""
UNNAMED = "http"
SCOPE_KEY = "inferd.caller"
"""Where the guard leaves the client's name, in the ASGI scope."""


class Caller(NamedTuple):
    """`name` is for logs and metrics, `peer` for the queues."""

    name: str
    peer: PeerKey


def caller_of(request: Request) -> Caller:
    """As the guard has found it."""
    name: str = request.scope.get(SCOPE_KEY, UNNAMED)
    return Caller(name, PeerKey(HTTP_UID, name))
