"""One request and its answer: hypercorn's HTTP stream, less what each message cost there.

The application's task is cancelled when the client leaves, so that no endpoint has to watch for
it. The head of an answer waits for the first of its body: both are one write.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, cast

import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGISendEvent, TaskGroup, WorkerContext
from hypercorn.utils import UnexpectedMessageError, suppress_body

from .incoming import BadRequest, Headers, Incoming

EXTENSION = "inferd.exchange"
"""Under which the extensions of an ASGI scope hold the Exchange."""
ASGI_VERSION = {"version": "3.0", "spec_version": "2.4"}
"""By 2.4 sending fails where the client is gone: Starlette needs no task that listens for it."""
_EVENTS = b"text/event-stream"
Ender = Literal["client", "shutdown", "timeout", "upload"]


ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Wire(Protocol):
    """The connection as an exchange sees it."""

    config: Config
    context: WorkerContext
    task_group: TaskGroup
    ssl: bool
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    asgi: ASGIApp
    uid: int | None

    async def stream_send(self, event: Event) -> None:
        """The exchange is over."""

    async def more_of(self, incoming: Incoming) -> None:
        """Wait for more of its body."""

    def made_room(self) -> None:
        """The application has taken what there was."""

    def begin_answer(self, incoming: Incoming, status: int, headers: Headers) -> bytes:
        """The head of its answer."""

    async def write(self, head: bytes, body: bytes, more: bool) -> None:
        """Send a part of the answer."""

    def break_off(self) -> None:
        """What was begun cannot be finished."""


class Exchange(HTTPStream):
    """The application runs within `cancel_scope`; `end` cancels it, and `ended_by` says why."""

    def __init__(self, connection: Wire, incoming: Incoming) -> None:
        super().__init__(
            self._run,
            connection.config,
            connection.context,
            connection.task_group,
            connection.ssl,
            connection.client,
            connection.server,
            connection.stream_send,
            STREAM_ID,
        )
        self.incoming = incoming
        self.uid = connection.uid
        """The client's user, by the kernel's word; None where it has none."""
        self.cancel_scope = trio.CancelScope()
        self.ended_by: Ender | None = None
        self.refused: BadRequest | None = None
        """Why the rest of its body was not taken."""
        self.head_sent = False
        self._connection = connection
        self._body_taken = False

    @property
    def unanswered(self) -> bool:
        """Nothing of an answer is out: there may be another one than was begun."""
        return not self.head_sent and self.state is not ASGIHTTPState.CLOSED

    @property
    def status(self) -> int | None:
        """That of the answer; None where nothing of it is out."""
        return self.response["status"] if self.head_sent else None

    @property
    def streams_events(self) -> bool:
        """An event stream has begun and has not ended."""
        if not self.head_sent or self.state is ASGIHTTPState.CLOSED:
            return False
        headers = cast("Headers", self.response.get("headers", []))
        return any(n == b"content-type" and v.startswith(_EVENTS) for n, v in headers)

    def end(self, by: Ender) -> None:
        """Stop the application; whoever is around it may answer in its place."""
        self.ended_by = self.ended_by or by
        self.cancel_scope.cancel()

    def refuse(self, error: BadRequest) -> None:
        """As `end`: what comes of its body cannot be one."""
        self.refused = error
        self.end("upload")

    def let_go(self) -> None:
        """Refer to itself no longer: what is over shall not wait for the collector."""
        del self.app, self.scope

    async def handle(self, event: Event) -> None:
        """What hypercorn's stream does, but that a client that left cancels."""
        if isinstance(event, StreamClosed):
            self.closed = True
            if self.state is not ASGIHTTPState.CLOSED:
                self.end("client")
        else:
            await super().handle(event)

    async def receive(self) -> dict[str, object]:
        """As ASGI has it: the next of the body."""
        incoming = self.incoming
        while not self._body_taken:
            if incoming.held or incoming.complete:
                self._body_taken = incoming.complete
                body = incoming.take()
                self._connection.made_room()
                return {"type": "http.request", "body": body, "more_body": not incoming.complete}
            await self._connection.more_of(incoming)
        if self.state is not ASGIHTTPState.CLOSED:
            await trio.sleep_forever()  # until the client leaves, which cancels
        return {"type": "http.disconnect"}

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """As ASGI has it. Cancels itself where the client is gone."""
        if message is None:
            await self._leave()
        elif message["type"] == "http.response.body" and self.state is ASGIHTTPState.RESPONSE:
            more = message.get("more_body", False)
            body = message.get("body", b"")
            if suppress_body(self.scope["method"], self.response["status"]):
                body = b""
            await self._write(body, more)
            if not more:
                self.state = ASGIHTTPState.CLOSED
                await self.send(StreamClosed(STREAM_ID))
        elif message["type"] == "http.response.start" and self.unanswered:
            self.response = message
            self.state = ASGIHTTPState.RESPONSE
        else:
            raise UnexpectedMessageError(self.state, message["type"])

    async def _write(self, body: bytes, more: bool) -> None:
        connection = self._connection
        if self.head_sent:
            data = b""
        elif body or not more:
            headers = cast("Headers", self.response.get("headers", []))
            data = connection.begin_answer(self.incoming, self.response["status"], headers)
            self.head_sent = True
        else:
            return
        await connection.write(data, body, more)
        if self.closed and self.ended_by == "client":
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _leave(self) -> None:
        """The application has returned; what it left open cannot be finished."""
        if self.state is ASGIHTTPState.CLOSED:
            return
        self._connection.break_off()
        self.state = ASGIHTTPState.CLOSED
        await self.send(StreamClosed(STREAM_ID))

    async def _run(
        self,
        scope: Any,  # noqa: ANN401  hypercorn's scopes are a union that no other framework shares
        receive: object,
        send: object,
        sync_spawn: object,
        call_soon: object,
    ) -> None:
        """In the place of hypercorn's wrapper: the application reads and writes here."""
        scope["asgi"] = ASGI_VERSION
        scope["extensions"] = {EXTENSION: self}
        await self._connection.asgi(scope, self.receive, self.app_send)
