"""The last door of one HTTP request: whatever fails behind it ends this request alone.

Before the answer has begun a failure is a status and a body; after that, one last event.
"""

from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from inferd_proto import ErrorCode

from ....errors import RequestError
from .failures import ErrorShape
from .reply import Reply

Work = Callable[[Reply], Awaitable[None]]
_log = structlog.get_logger(__name__)


class Endpoint:
    """An ASGI application that answers by `work`, which may raise RequestError."""

    def __init__(self, work: Work, shape: ErrorShape) -> None:
        self._work = work
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        reply = Reply(scope, receive, send)
        try:
            reply.check_serving()
            await self._work(reply)
        except ClientDisconnect:
            return
        except RequestError as error:
            await self._fail(reply, error)
        except Exception:
            _log.exception("HTTP request failed unexpectedly", path=scope["path"])
            message = "internal error; the daemon's log has the details"
            await self._fail(reply, RequestError(ErrorCode.INTERNAL, message))

    async def _fail(self, reply: Reply, error: RequestError) -> None:
        if reply.begun:
            await reply.end(self._shape.event(error))
        else:
            await reply.instead(self._shape.response(error))
