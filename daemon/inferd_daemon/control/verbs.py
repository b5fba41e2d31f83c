"""The tables of control verbs: those that answer once, and those that stream."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from inferd_proto import ErrorCode

from ..errors import RequestError
from .call import Call
from .capabilities import capabilities
from .route_list import route_list
from .status import status

Verb = Callable[[Call], Awaitable[object]]
StreamVerb = Callable[[Call], AsyncGenerator[object, None]]

VERBS: dict[str, Verb] = {
    "capabilities": capabilities,
    "route.list": route_list,
    "status": status,
}
"""Answer with one plain JSON value."""

STREAMS: dict[str, StreamVerb] = {}
"""Answer with plain JSON values, one after the other, until they end or the caller cancels."""


def unknown_op(op: str) -> RequestError:
    """There is no such operation; names those that there are."""
    known = ", ".join(sorted(["cancel", "embed", "generate", "rerank", *VERBS, *STREAMS]))
    return RequestError(ErrorCode.INVALID_REQUEST, f"unknown op {op[:80]!r}; there is {known}")
