"""One request to the OpenAI surface and its answer, over ASGI: read the body, answer once.

Sends what it is given at once, one message for each call. Whoever runs the application cancels it
when the client leaves.
"""

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..caller import Caller, caller_of

if TYPE_CHECKING:
    from ....control.view import DaemonView
    from ..context import HttpContext

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"


class Reply:
    """`begun` is true once the head of an answer went out: nothing can be put in its place."""

    __slots__ = ("_receive", "_scope", "_send", "begun", "caller", "request", "view")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.request = Request(scope, receive)
        self.caller: Caller = caller_of(self.request)
        context: HttpContext = scope["app"].state.context
        self.view: DaemonView = context.view
        self.begun = False

    async def body(self) -> bytes:
        """All of it; what limits its size stands before this. Raises ClientDisconnect."""
        pieces: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def whole(self, body: bytes, media_type: str = JSON) -> None:
        """A complete answer of status 200."""
        headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(body)),
        ]
        await self._start(headers)
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, media_type: str = EVENTS) -> None:
        """The head of a stream; `send` and `end` follow."""
        headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"cache-control", b"no-cache"),
            # proxies must not gather what is meant to be seen as it comes
            (b"x-accel-buffering", b"no"),
        ]
        await self._start(headers)

    async def send(self, data: bytes) -> None:
        """More of the stream."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last of the stream."""
        await self._send({"type": "http.response.body", "body": data})

    async def instead(self, response: Response) -> None:
        """`response`, where nothing has begun."""
        self.begun = True
        await response(self._scope, self._receive, self._send)

    async def _start(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
