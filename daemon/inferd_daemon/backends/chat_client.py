"""A client of one OpenAI-compatible upstream: sends, watches the deadlines, ends with one error.

The mapping and the transport are others' work; this is the loop between them. It never retries and
always closes the upstream's connection when it stops early, for that is what frees its slot.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TypeVar

import httpx
import trio

from inferd_proto import ErrorCode

from ..errors import (
    AnswerTooLong,
    BackendFault,
    BackendSilence,
    MachineFault,
    RequestError,
    UpstreamFault,
)
from .base import (
    Batch,
    Capabilities,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    RerankRequest,
    RerankResult,
)
from .chat_completions import (
    MAX_ERROR_BODY_BYTES,
    ChatAnswer,
    Dialect,
    Expectations,
    Redactor,
    build_body,
    check_supported,
    refusal,
    told_failure,
    whole_answer_failure,
    words_of,
)
from .deadlines import Deadlines
from .http_messages import (
    certificate_refusal,
    content_type,
    header_lines,
    is_encoded,
    may_be_events,
    refuse_encoded,
    retry_after,
)
from .media import encode_media
from .streamed_body import ENDING_S, Course, body_of, finish_body
from .thread import in_thread, is_no_thread
from .transport import PlainTransport, ResponseBody
from .vectors import embed_body, read_embeddings, read_ranking, rerank_body, unsupported
from .vital_signs import VitalSigns

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of an answer that is no stream: some 2,000 embeddings of 4,096 numbers."""
THREADS = 2
"""For encoding media and decoding embeddings: megabytes each, and the loop serves others."""
T = TypeVar("T")


class ChatClient:
    """Speaks to `base_url` (no path) over `transport`, which it owns.

    `dropped` counts the malformed lines of all streams so far; `signs` tell how the requests went.
    """

    def __init__(
        self,
        transport: PlainTransport,
        *,
        base_url: str = "http://localhost",
        dialect: Dialect,
        model: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines | None = None,
        api_prefix: str = "",
    ) -> None:
        """An empty `api_key` sends no header; `api_prefix` stands before `/v1`.

        Raises httpx.InvalidURL.
        """
        self._transport = transport
        self._base_url = httpx.URL(base_url)
        self._dialect = dialect
        self._model = model
        self._deadlines = deadlines or Deadlines()
        told = list((headers or {}).values())
        parts = [word for value in told for word in words_of(value)]
        self._redact = Redactor([api_key or "", *told, *parts])
        self._headers = header_lines(self._base_url, api_key, headers or {})
        self._urls = {
            path: self._base_url.copy_with(raw_path=f"{api_prefix}{path}".encode())
            for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/rerank")
        }
        self._threads = trio.CapacityLimiter(THREADS)
        self.dropped = 0
        self.signs = VitalSigns()

    async def generate(
        self, request: GenerateRequest, can: Capabilities
    ) -> AsyncGenerator[Batch, None]:
        """The answer as batches, `Finished` last. Use it within `contextlib.aclosing`.

        Raises RequestError: CallerFault where the request is at fault or asks for what is not in
        `can`, BackendFault where the upstream failed or was too slow.
        """
        check_supported(request, can)
        body = await self._encode(request)
        names = frozenset(tool.name for tool in request.tools)
        asked = Expectations(request.tool_choice, request.thinking, names)
        answer = ChatAnswer(asked, self._redact)
        started = trio.current_time()
        end = started + self._deadlines.total_s
        first_event_by = min(end, started + self._deadlines.first_byte_s)
        with self.signs.listen() as listening:
            response = await self._send("POST", "/v1/chat/completions", body, first_event_by)
            stream = body_of(response)
            try:
                if response.status_code != 200 or not may_be_events(response):
                    raise await self._refusal(response, end)
                deadline = first_event_by
                course = Course()
                while True:
                    batch = await self._next_batch(stream, answer, deadline)
                    now = trio.current_time()
                    if answer.payloads != course.events:
                        course.events, course.last_event_at = answer.payloads, now
                        listening.heard(now)
                    if batch:
                        yield batch
                        now = course.read_by_client(since=now)
                    if answer.finished:
                        self.signs.succeeded_at = now
                        break
                    if answer.ending:
                        deadline = min(end, course.last_event_at + ENDING_S)
                    elif answer.payloads:
                        deadline = min(end, now + self._deadlines.idle_s)
                    if answer.failure is None and now >= (end if answer.ending else deadline):
                        answer.failure = self._went_silent(answer)
                    if answer.failure is not None:
                        raise self._fault(answer, course, over=now >= end)
                await finish_body(stream, now)
            finally:
                self.dropped += answer.dropped
                await stream.aclose()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Raises RequestError (`embed_unsupported` where the upstream has no embeddings)."""
        body = embed_body(request, self._dialect, self._model)
        missing = unsupported(ErrorCode.EMBED_UNSUPPORTED, "make embeddings")
        answer = await self._post("/v1/embeddings", body, missing)

        def read() -> EmbedResult:
            return read_embeddings(answer, request, self._model)

        return await self._in_thread(lambda: self._read(answer, read, missing))

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Raises RequestError (`rerank_unsupported` where the upstream cannot)."""
        body = rerank_body(request, self._model)
        missing = unsupported(ErrorCode.RERANK_UNSUPPORTED, "rerank")
        answer = await self._post("/v1/rerank", body, missing)
        return self._read(answer, lambda: read_ranking(answer, request, self._model), missing)

    async def get(self, path: str, *, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of `path`, for probes. Raises BackendFault."""
        deadline = trio.current_time() + timeout_s
        response = await self._send("GET", path, b"", deadline)
        try:
            body = await self._read_body(response, deadline, MAX_BODY_BYTES)
        finally:
            await body_of(response).aclose()
        return response.status_code, body

    async def status_of(self, path: str, *, timeout_s: float) -> int:
        """Of `path`, for probes of what is far away: a body that may be long is not fetched, for
        one more connection. Raises BackendFault.
        """
        response = await self._send("GET", path, b"", trio.current_time() + timeout_s)
        await body_of(response).aclose()
        return response.status_code

    async def aclose(self) -> None:
        """Close the transport. Running requests were ended before."""
        await self._transport.aclose()

    # -- one request -----------------------------------------------------------------------

    async def _encode(self, request: GenerateRequest) -> bytes:
        """The body; in a thread where there are media, for they are megabytes to encode."""
        if not request.media:
            return build_body(request, self._dialect, self._model, {})

        def encode() -> bytes:
            return build_body(request, self._dialect, self._model, encode_media(request.media))

        return await self._in_thread(encode)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Raises what `work` does, or MachineFault."""
        try:
            return await in_thread(work, self._threads)
        except OSError as error:
            raise MachineFault(error.strerror or str(error)) from error

    async def _send(self, method: str, path: str, body: bytes, deadline: float) -> httpx.Response:
        """The response's head. Raises BackendFault."""
        url = self._urls.get(path) or self._base_url.copy_with(raw_path=path.encode())
        # With a stream of its own, httpx leaves the headers as they are.
        request = httpx.Request(
            method,
            url,
            headers=[*self._headers, (b"content-length", b"%d" % len(body))],
            stream=httpx.ByteStream(body),
            extensions={
                "timeout": {"connect": self._deadlines.connect_s},
                "deadline": deadline,
            },
        )
        try:
            return await self._transport.handle_async_request(request)
        except (httpx.ReadTimeout, httpx.WriteTimeout):
            pass  # the deadline: no other limit was given for these
        except httpx.TransportError as error:
            raise self._translate(error) from error
        except RuntimeError as error:  # names are looked up in a thread
            if not is_no_thread(error):
                raise
            raise MachineFault("cannot start a thread") from error
        raise BackendSilence(self._too_late("sent no answer"))

    async def _next_batch(
        self,
        stream: ResponseBody,
        answer: ChatAnswer,
        deadline: float,
    ) -> Batch:
        """What one receive brings; sets `answer.failure` where nothing good comes any more."""
        try:
            piece = await stream.next_by(deadline)
        except httpx.TransportError as error:
            answer.failure = self._translate(error)
            answer.failure.__cause__ = error
            return []
        if piece is None:
            if answer.ending:
                return answer.feed_eof()
            answer.failure = self._went_silent(answer)
            return []
        return answer.feed(piece) if piece else answer.feed_eof()

    async def _post(self, path: str, body: bytes, missing: RequestError) -> bytes:
        """The body of a 200. Raises RequestError, `missing` where there is no such endpoint."""
        end = trio.current_time() + self._deadlines.total_s
        with self.signs.listen():
            response = await self._send("POST", path, body, end)
            try:
                if response.status_code != 200:
                    raise await self._refusal(response, end, missing)
                refuse_encoded(response, self._redact)
                answer = await self._read_body(response, end, MAX_BODY_BYTES, whole=True)
                self.signs.succeeded_at = trio.current_time()
                return answer
            finally:
                await body_of(response).aclose()

    def _read(self, answer: bytes, read: Callable[[], T], missing: RequestError) -> T:
        """What `read` makes of `answer`. Raises RequestError, in the upstream's own words where it
        holds an error instead.
        """
        try:
            return read()
        except UpstreamFault as fault:
            raise told_failure(answer, self._redact, missing) or fault from None

    async def _refusal(
        self, response: httpx.Response, end: float, missing: RequestError | None = None
    ) -> RequestError:
        """The error for a response that is no stream of events, in the upstream's own words;
        `missing` where it says that there is no such endpoint.
        """
        limit = MAX_ERROR_BODY_BYTES + self._redact.longest
        deadline = min(end, trio.current_time() + self._deadlines.idle_s)
        status = response.status_code
        if status == 200:
            refuse_encoded(response, self._redact)
        elif is_encoded(response):  # the status says enough to tell whose fault it is
            return refusal(status, b"", self._redact, retry_after(response), missing)
        body = await self._read_body(response, deadline, limit)
        if status == 200:
            return whole_answer_failure(content_type(response), body, self._redact)
        return refusal(status, body, self._redact, retry_after(response), missing)

    async def _read_body(
        self, response: httpx.Response, deadline: float, limit: int, *, whole: bool = False
    ) -> bytes:
        """The body, cut at `limit` bytes, at `deadline`, where nothing came for too long or where
        the connection broke.

        With `whole` each of these raises BackendFault instead.
        """
        body = bytearray()
        stream = body_of(response)
        fault: BackendFault = UpstreamFault(self._too_late("did not end its answer"))
        while (now := trio.current_time()) < deadline:
            idle_until = now + self._deadlines.idle_s
            try:
                piece = await stream.next_by(min(deadline, idle_until))
            except httpx.TransportError as error:
                fault = self._translate(error)
                break
            if piece is None:
                if idle_until < deadline:
                    fault = BackendSilence(self._too_late("did not go on with its answer"))
                break
            if not piece:
                return bytes(body)
            body += piece
            if len(body) > limit:
                fault = UpstreamFault(f"upstream answered more than {limit} bytes")
                break
        if whole:
            raise fault
        return bytes(body[:limit])

    # -- what goes wrong -------------------------------------------------------------------

    def _translate(self, error: httpx.TransportError) -> BackendFault:
        kind: type[BackendFault] = BackendFault
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout():
                what = "cannot connect to upstream"
                if why := certificate_refusal(error):
                    what += f": its certificate is refused: {why}"
                    return BackendFault(f"{what}; give tls_ca_file if its authority is your own")
            case httpx.TimeoutException():
                what = "upstream is too slow"
            case _:
                what = "upstream broke the connection"
                kind = UpstreamFault
        return kind(f"{what}: {self._redact(str(error)) or type(error).__name__}")

    def _went_silent(self, answer: ChatAnswer) -> BackendFault:
        what = "did not go on with its answer" if answer.payloads else "began no answer"
        return BackendSilence(self._too_late(what))

    def _fault(self, answer: ChatAnswer, course: Course, *, over: bool) -> RequestError:
        """Why the answer ended; one that went on until its time was `over` proves no silence."""
        assert answer.failure is not None
        if over and answer.payloads and isinstance(answer.failure, BackendSilence):
            return self._unended(course)
        return answer.failure

    def _unended(self, course: Course) -> BackendFault:
        """The fault of an answer that began and whose whole time is over."""
        limits = self._deadlines
        if trio.current_time() - course.last_event_at > limits.idle_s:
            return UpstreamFault(self._too_late("did not end its answer"))
        words = f"the answer took longer than it may, {limits.total_s:g} s (timeout_s)"
        if 2 * course.held_s > limits.total_s:
            words += ": the client read too slowly"
        return AnswerTooLong(words)

    def _too_late(self, what: str) -> str:
        return f"upstream {what} in time"
