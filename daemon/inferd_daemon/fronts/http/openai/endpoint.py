"""An endpoint: work that answers, and how its failures are told.

Before the answer has begun a failure is a status and a body; after that, one last event.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ....errors import RequestError
from .failures import ErrorShape
from .reply import Reply

Work = Callable[[Reply], Awaitable[None]]


class Endpoint:
    """An ASGI application that answers by `work`, which may raise RequestError.

    What else fails passes: the guard before the application is the last door.
    """

    def __init__(self, work: Work, shape: ErrorShape) -> None:
        self._work = work
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        reply = Reply(scope, receive, send)
        try:
            await self._work(reply)
        except ClientDisconnect:
            return
        except RequestError as error:
            if reply.begun:
                await reply.end(self._shape.event(error))
            else:
                await reply.instead(self._shape.response(error))
