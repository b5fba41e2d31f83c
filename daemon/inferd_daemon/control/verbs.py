"""The table of control verbs."""

from collections.abc import Awaitable, Callable

from inferd_proto import ErrorCode, JsonObject

from ..errors import RequestError
from .capabilities import capabilities
from .route_list import route_list
from .status import status
from .view import DaemonView

Verb = Callable[[DaemonView, JsonObject], Awaitable[JsonObject]]

VERBS: dict[str, Verb] = {
    "capabilities": capabilities,
    "route.list": route_list,
    "status": status,
}


async def call(view: DaemonView, op: str, arguments: JsonObject) -> JsonObject:
    """The value of one control operation. Raises RequestError (`invalid_request`) if unknown."""
    verb = VERBS.get(op)
    if verb is None:
        known = ", ".join(["cancel", "embed", "generate", "rerank", *VERBS])
        raise RequestError(ErrorCode.INVALID_REQUEST, f"unknown op {op[:80]!r}; there is {known}")
    return await verb(view, arguments)
