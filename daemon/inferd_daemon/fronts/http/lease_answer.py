"""Answers under a lease as ASGI messages: they end with the lease.

What was not begun can still become an error with a status; a stream of events gets one as an event.
"""

from abc import abstractmethod
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...errors import RequestError
from ...supervision.leases.entrance import FIRST_REFUSAL, MAX_REFUSAL_BYTES, Entry
from ...supervision.leases.lease import not_found
from ...supervision.leasing import Leasing
from .errors import http_status
from .lease_errors import refusal
from .openai.failures import ErrorShape, shape_of

Headers = list[tuple[bytes, bytes]]
EVENTS = b"text/event-stream"


class LeaseAnswer(Response):
    """One answer, made while it is sent. The request's body was read before.

    `shape` is how its client knows errors.
    """

    def __init__(self, leasing: Leasing, entry: Entry, shape: ErrorShape) -> None:
        super().__init__()
        self._leasing = leasing
        self._entry = entry
        self._shape = shape

    @abstractmethod
    async def send_answer(self, out: "Outgoing") -> None:
        """All of it. Raises RequestError."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ended with the lease; a client that leaves has the whole task cancelled."""
        out = Outgoing(send, self._shape)
        error = await self._attempt(out)
        if error is not None and not out.begun:
            await refusal(error, self._shape)(scope, receive, send)
        elif error is not None and not out.ended:
            await out.break_off(error)

    async def _attempt(self, out: "Outgoing") -> RequestError | None:
        with self._leasing.calls.running(self._entry.ref) as call:
            try:
                await self.send_answer(out)
            except RequestError as error:
                return error
        return not_found(self._entry.ref) if call.cancelled_caught else None


class Outgoing:
    """What has been sent of one answer."""

    def __init__(self, send: Send, shape: ErrorShape) -> None:
        self._send = send
        self._shape = shape
        self._events = False
        self.begun = False
        self.ended = False

    async def begin(self, status: int, headers: Headers) -> None:
        """The head."""
        self.begun = True
        self._events = any(name == b"content-type" and EVENTS in value for name, value in headers)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, data: bytes) -> None:
        """Some of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The rest of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def break_off(self, error: RequestError) -> None:
        """The end of an answer that cannot go on; other than events it stays incomplete."""
        if self._events:
            await self.end(b"\n\n" + self._shape.event(error))


class RelayedAnswer(LeaseAnswer):
    """The runtime's own answer."""

    def __init__(
        self,
        leasing: Leasing,
        entry: Entry,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> None:
        """`path` is below the lease."""
        super().__init__(leasing, entry, shape_of(path))
        self._request = (path, body, headers)

    async def send_answer(self, out: Outgoing) -> None:
        """As the interface says."""
        note, ref = self._leasing.entrance.note, self._entry.ref
        path, body, headers = self._request
        exchange = self._leasing.relay.exchange(
            self._entry.instance_key, "POST", path, body, headers
        )
        try:
            async with exchange as relayed:
                refused = b""
                note(ref, relayed.status)
                await out.begin(relayed.status, relayed.headers)
                async for piece in relayed.pieces:
                    if relayed.status >= FIRST_REFUSAL and len(refused) < MAX_REFUSAL_BYTES:
                        refused += piece
                        note(ref, relayed.status, refused)
                    await out.piece(piece)
                await out.end()
        except RequestError as error:
            note(ref, http_status(error), error.message.encode())
            raise
