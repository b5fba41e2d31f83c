"""Answers under a lease as ASGI messages: they end with the lease.

What was not begun can still become an error with a status; a stream of events gets one as an event.
"""

from abc import abstractmethod
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...backends.chat_completions.upstream import RESPONSES
from ...errors import RequestError
from ...supervision.leases.entrance import FIRST_REFUSAL, MAX_REFUSAL_BYTES, Entry
from ...supervision.leases.lease import not_found
from ...supervision.leases.relay import Relayed
from ...supervision.leasing import Leasing
from .errors import http_status
from .lease_errors import refusal
from .openai.failures import ErrorShape, shape_of
from .openai.response_words import Limits, ResponseWords

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
        max_tokens: int | None = None,
    ) -> None:
        """`path` is below the lease; `max_tokens` is what Responses may have at most."""
        super().__init__(leasing, entry, shape_of(path))
        self._max_tokens = max_tokens
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
                words, kept = self._words(relayed)
                await out.begin(relayed.status, kept)
                async for piece in relayed.pieces:
                    if relayed.status >= FIRST_REFUSAL and len(refused) < MAX_REFUSAL_BYTES:
                        refused += piece
                        note(ref, relayed.status, refused)
                    await out.piece(piece if words is None else words.feed(piece))
                await out.end(b"" if words is None else words.feed_eof())
        except RequestError as error:
            note(ref, http_status(error), error.message.encode())
            raise

    def _words(self, relayed: Relayed) -> tuple[ResponseWords | None, Headers]:
        """Responses that tell by themselves whether they were cut; all else stays as it is."""
        headers = relayed.headers
        if relayed.status != 200 or self._request[0].partition("?")[0] != RESPONSES:
            return None, headers
        facts = self._leasing.relay.runtime(self._entry.instance_key).supervisor.facts
        limits = Limits(self._max_tokens, None if facts is None else facts.n_ctx)
        stream = any(name == b"content-type" and EVENTS in value for name, value in headers)
        kept = [header for header in headers if header[0] != b"content-length"]
        return ResponseWords(limits, stream=stream), kept
