"""A ChatClient that can also pass answers on undecoded, under the same deadlines and verdicts.

What it passes on are whole lines, so that whoever adds an error at the end adds it in its place.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf

import httpx
import msgspec
import trio

from inferd_proto import ErrorCode, Text

from ..errors import BackendFault, BackendSilence, RequestError, UpstreamFault
from .base import Capabilities, GenerateRequest, Pieces, Relayed, RelayRequest
from .chat_client import MAX_BODY_BYTES, ChatClient
from .chat_completions import Dialect, build_body, check_supported, stream_failure
from .event_relay import EventRelay, read_usage
from .http_messages import may_be_events, refuse_encoded
from .streamed_body import ENDING_S, Course, body_of, finish_body
from .vital_signs import Listening

MAX_UNWATCHED_CHARS = 16 * 1024
"""Of a prompt. A longer one may take its time to be read, and what tells meanwhile that the
upstream lives (`Dialect.progress`) would be seen by the client where nothing is decoded."""
OBJECT_END_BYTES = 4096
"""Of an answer that is one object: its figures stand at the end."""
# no text can hold that, for there quotes are escaped


class RelayingClient(ChatClient):
    """See ChatClient."""

    @asynccontextmanager
    async def relay(
        self, request: RelayRequest, can: Capabilities
    ) -> AsyncGenerator[Relayed, None]:
        """The answer, while the block lasts.

        Raises RequestError: CallerFault where the request is at fault or asks for what is not in
        `can`, BackendFault where the upstream failed or was too slow; so do the pieces.
        """
        body = self._relay_body(request, can)
        started = trio.current_time()
        end = started + self._deadlines.total_s
        first_by = min(end, started + self._deadlines.first_byte_s) if request.stream else end
        path = self._prefixed(request.path)
        missing = None
        if not isinstance(request.body, GenerateRequest):
            words = f"this upstream does not serve {request.path}"
            missing = RequestError(ErrorCode.INVALID_REQUEST, words)
        with self.signs.listen() as listening:
            response = await self._send("POST", path, body, first_by)
            events = EventRelay(request.path, self._redact) if request.stream else None
            try:
                if response.status_code != 200 or (request.stream and not may_be_events(response)):
                    raise await self._refusal(response, end, missing)
                if events is not None:
                    pieces = RelayedEvents(self, listening, events, response, first_by, end)
                    yield Relayed("text/event-stream", pieces)
                else:
                    refuse_encoded(response, self._redact)
                    whole = await self._read_body(response, end, MAX_BODY_BYTES, whole=True)
                    self.signs.succeeded_at = trio.current_time()
                    listening.heard(self.signs.succeeded_at)
                    yield Relayed("application/json", RelayedObject(whole))
            finally:
                if events is not None:
                    self.dropped += events.dropped
                await body_of(response).aclose()

    def _prefixed(self, path: str) -> str:
        """The base class knows the prefix by the paths that it asks itself."""
        if path in self._urls:
            return path
        known = "/v1/embeddings"
        return self._urls[known].raw_path.decode().removesuffix(known) + path

    def _relay_body(self, request: RelayRequest, can: Capabilities) -> bytes:
        if isinstance(request.body, GenerateRequest):
            check_supported(request.body, can)
            return build_body(
                request.body,
                self._dialect,
                self._model,
                {},
                relayed=True,
                include_usage=request.include_usage,
            )
        fields: dict[str, object] = dict(request.body)
        if self._model is not None:
            fields["model"] = self._model
        if self._dialect.chat_format and request.response_format is not None:
            fields["response_format"] = request.response_format
        return msgspec.json.encode(fields)


class RelayedObject(Pieces):
    """A body that came whole."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __anext__(self) -> bytes:
        if self.over:
            raise StopAsyncIteration
        self.over = True
        self.usage = read_usage(self._body[-OBJECT_END_BYTES:])
        return self._body


class RelayedEvents(Pieces):
    """What each receive brings of a stream, until its end; then what that end means."""

    def __init__(
        self,
        client: RelayingClient,
        listening: Listening,
        events: EventRelay,
        response: httpx.Response,
        first_by: float,
        end: float,
    ) -> None:
        self._client = client
        self._listening = listening
        self._events = events
        self._stream = body_of(response)
        self._deadline = first_by
        self._end = end
        self._course = Course()
        self._given_at = inf

    async def __anext__(self) -> bytes:
        """Raises BackendFault, CallerFault."""
        client, events = self._client, self._events
        if self._given_at < inf:
            held_s = self._course.read_by_client(since=self._given_at) - self._given_at
            self._deadline = min(self._end, self._deadline + held_s)
        while not self.over:
            if events.error is not None:
                raise stream_failure(events.error, client._redact)
            data = await self._receive()
            now = trio.current_time()
            if events.complete:
                self.over = True
                self.usage = events.usage
                client.signs.succeeded_at = now
                await finish_body(self._stream, now)
            elif events.began:
                longest_s = ENDING_S if events.ending else client._deadlines.idle_s
                self._deadline = min(self._end, now + longest_s)
            if data:
                self._given_at = now
                self._listening.heard(now)
                if not data.startswith(b":"):
                    self._course.last_event_at = now
                return data
            if now >= self._deadline:
                raise self._out_of_time()
        raise StopAsyncIteration

    async def _receive(self) -> bytes:
        """What may be passed on, maybe nothing. Raises RequestError where nothing good comes."""
        client, events = self._client, self._events
        try:
            piece = await self._stream.next_by(self._deadline)
        except httpx.TransportError as error:
            raise client._translate(error) from error
        if piece is None and not events.ending:
            raise self._out_of_time()
        if piece:
            return events.feed(piece)
        data = events.feed_eof()
        if events.error is None and not events.complete:
            raise UpstreamFault("upstream ended the stream in the middle of the answer")
        return data

    def _out_of_time(self) -> BackendFault:
        """One that went on until its whole time was over proves no silence."""
        too_late = self._client._too_late
        if not self._events.began:
            return BackendSilence(too_late("began no answer"))
        if self._deadline >= self._end:
            return self._client._unended(self._course)
        return BackendSilence(too_late("did not go on with its answer"))


def can_be_relayed(request: GenerateRequest, dialect: Dialect) -> bool:
    """Whether the upstream's own chunks are as good for a client as those made of our events.

    Tool calls are checked and made whole, reasoning that is not wanted is taken out: both need
    decoding. So does a dialect that is not OpenAI's.
    """
    if not dialect.plain or request.tools or request.thinking is False or request.media:
        return False
    if not dialect.progress:
        return True
    chars = 0
    for message in request.messages:
        for block in message.content:
            chars += len(block.text) if isinstance(block, Text) else MAX_UNWATCHED_CHARS
    return chars < MAX_UNWATCHED_CHARS
