"""One request of a session, from its message to its terminal frame.

Exactly one terminal frame goes out, whatever happens, unless the client is gone: it is made once,
and written where no cancel reaches it. A request that fails in an unforeseen way ends alone.
"""

from contextlib import aclosing
from typing import Literal

import structlog
import trio
from msgspec import UNSET

from inferd_proto import (
    BlockAnswer,
    Control,
    Embed,
    Embeddings,
    Error,
    ErrorCode,
    GenerateV1,
    GenerateV2,
    InputUsage,
    Item,
    Queued,
    RankedDocument,
    Ranking,
    RequestReceived,
    Rerank,
    Result,
    ServerConnection,
    StreamDone,
    Usage,
)

from ..control.call import Call, Peer
from ..control.verbs import STREAMS, VERBS, unknown_op
from ..control.view import DaemonView
from ..errors import BackendFault, CallerFault, RequestError
from ..routing.admission import Place
from ..routing.dispatch import Dispatch
from ..routing.shares import PeerKey
from .translation import (
    AnswerEncoder,
    AnswerEncoderV1,
    AnswerEncoderV2,
    embed_request,
    generate_request,
    rerank_request,
)
from .waiting_message import SHORT
from .writer import ClientGone, SocketWriter

Ender = Literal["caller", "shutdown"]
BATCHES_A_TURN = 16
"""Of one request, without a turn for the others: some 0.5 ms."""
_log = structlog.get_logger(__name__)


class Answering:
    """Answers one request; `end` stops it early."""

    __slots__ = (
        "_connection",
        "_encoder",
        "_ended_by",
        "_event",
        "_number",
        "_peer",
        "_scope",
        "_terminal",
        "_view",
        "_writer",
    )

    def __init__(
        self,
        event: RequestReceived,
        connection: ServerConnection,
        writer: SocketWriter,
        view: DaemonView,
        peer: Peer,
        connection_number: int,
    ) -> None:
        self._number = connection_number
        self._event = event
        self._connection = connection
        self._writer = writer
        self._view = view
        self._peer = peer
        self._scope = trio.CancelScope()
        self._ended_by: Ender | None = None
        self._encoder: AnswerEncoder | None = None
        self._terminal: bytes | None = None

    @property
    def streams(self) -> bool:
        """Whether it is a control stream: it has no end of its own to wait for."""
        request = self._event.request
        return isinstance(request, Control) and request.op in STREAMS

    @property
    def short(self) -> bool:
        """Whether it is done in a moment."""
        request = self._event.request
        return isinstance(request, Control) and request.op in SHORT

    def end(self, by: Ender) -> None:
        """Stop the work; the terminal frame says why it stopped."""
        self._ended_by = self._ended_by or by
        self._scope.cancel()

    async def run(self) -> None:
        """Raises ClientGone where the client is gone or does not read."""
        started = trio.current_time()
        outcome = "client left"
        try:
            outcome = await self._work()
            if self._terminal is not None:
                await self._writer.write(self._terminal, lets_others_run=False)
        finally:
            took_ms = round((trio.current_time() - started) * 1000, 2)
            _log.debug("request", id=self._event.id[:80], outcome=outcome, ms=took_ms)

    async def _work(self) -> str:
        """Leaves the terminal frame to be written; the outcome in a word."""
        try:
            with self._scope:
                await self._answer()
            if self._terminal is None:
                self._terminal = self._ended()
                return f"ended by {self._ended_by}"
        except RequestError as error:
            return self._fail(error)
        except ClientGone:
            raise
        except Exception:
            _log.exception("request failed unexpectedly", id=self._event.id[:80])
            message = "internal error; the daemon's log has the details"
            return self._fail(RequestError(ErrorCode.INTERNAL, message))
        return "done"

    def _fail(self, error: RequestError) -> str:
        """What fails after the terminal frame was made changes nothing for the client."""
        if self._terminal is None:
            self._terminal = self._failed(error)
        return error.code.value

    def _answer_with(self, answer: Embeddings | Ranking | Result | StreamDone) -> None:
        self._terminal = self._connection.send(answer)

    async def _answer(self) -> None:
        request = self._event.request
        # a stream has no end of its own: one that begins now would hold up the stop
        if self._view.draining and (self.streams or not isinstance(request, Control)):
            raise BackendFault("the daemon is stopping and takes no new requests")
        match request:
            case GenerateV1() | GenerateV2():
                await self._generate(request)
            case Embed():
                await self._embed(request)
            case Rerank():
                await self._rerank(request)
            case Control():
                await self._control(request)

    async def _generate(self, request: GenerateV1 | GenerateV2) -> None:
        route = self._view.router.find(request.model)
        wanted = route.presets.apply(generate_request(request, self._event.blobs))
        # the v1 wire has no frame for it
        told = isinstance(request, GenerateV2) and request.queue_events
        on_queued = self._on_queued if told else None
        dispatch = Dispatch(route, wanted, self._peer_key(request.client), on_queued)
        async with dispatch as backend:
            shape = AnswerEncoderV1 if isinstance(request, GenerateV1) else AnswerEncoderV2
            encoder = self._encoder = shape(
                self._connection, self._event.id, backend.name, stream=request.stream
            )
            async with aclosing(backend.generate(wanted)) as batches:
                written = 1
                async for batch in batches:
                    if written == 1:
                        dispatch.answered()
                    data = encoder.encode(batch)
                    # nearly every backend has waited for its batch: one that never does must not
                    # keep the daemon from the others
                    yields = written % BATCHES_A_TURN == 0
                    if encoder.finished:
                        self._terminal = data
                    elif data:
                        await self._writer.write(data, lets_others_run=yields)
                    elif yields:
                        await trio.lowlevel.checkpoint()
                    written += 1
            dispatch.used(encoder.usage)
            if not encoder.finished:
                raise BackendFault(f"backend {backend.name} ended its answer without saying why")

    async def _embed(self, request: Embed) -> None:
        wanted = embed_request(request)
        route = self._view.router.find(request.model)
        dispatch = Dispatch(route, wanted, self._peer_key(request.client))
        async with dispatch as backend:
            result = await backend.embed(wanted)
            dispatch.used(Usage(result.input_tokens, 0))
        answer = Embeddings(
            request.id,
            result.embeddings,
            len(result.embeddings[0]) if result.embeddings else 0,
            result.model,
            InputUsage(result.input_tokens),
            backend.name,
        )
        self._answer_with(answer)

    async def _rerank(self, request: Rerank) -> None:
        wanted = rerank_request(request)
        route = self._view.router.find(request.model)
        dispatch = Dispatch(route, wanted, self._peer_key(request.client))
        async with dispatch as backend:
            result = await backend.rerank(wanted)
            dispatch.used(Usage(result.input_tokens, 0))
        ranked = [RankedDocument(index, score) for index, score in enumerate(result.scores)]
        ranked.sort(key=lambda document: -document.score)  # stable: equal scores keep their order
        answer = Ranking(
            request.id,
            ranked[: request.top_n],
            result.model,
            InputUsage(result.input_tokens),
            backend.name,
        )
        self._answer_with(answer)

    async def _control(self, request: Control) -> None:
        call = Call(self._view, self._peer, self._number, request.arguments)
        if request.op in VERBS:
            self._answer_with(Result(request.id, await VERBS[request.op](call)))
        elif request.op in STREAMS:
            async with aclosing(STREAMS[request.op](call)) as values:
                async for value in values:
                    await self._writer.write(self._connection.send(Item(request.id, value)))
            self._answer_with(StreamDone(request.id))
        else:
            raise unknown_op(request.op)

    async def _on_queued(self, place: Place) -> None:
        block = Queued(place.position, place.estimate_ms)
        await self._writer.write(self._connection.send(BlockAnswer(self._event.id, block)))

    def _peer_key(self, label: str) -> PeerKey:
        return PeerKey(self._peer.uid, label)

    def _failed(self, error: RequestError) -> bytes:
        details = UNSET if error.details is None else error.details
        message = error.message.encode(
            errors="replace"
        ).decode()  # it may name a file, in any bytes
        return self._connection.send(Error(self._event.id, error.code, message, details))

    def _ended(self) -> bytes:
        if self.streams:
            return self._connection.send(StreamDone(self._event.id))
        if self._ended_by == "shutdown":
            return self._failed(BackendFault("the daemon stopped before the answer was complete"))
        request = self._event.request
        if isinstance(request, GenerateV1 | GenerateV2):
            encoder = self._encoder or self._unrouted_encoder(request)
            return encoder.cancelled()
        return self._failed(CallerFault("cancelled by the caller"))

    def _unrouted_encoder(self, request: GenerateV1 | GenerateV2) -> AnswerEncoder:
        """For a request that was cancelled while it waited: no backend has it yet."""
        shape = AnswerEncoderV1 if isinstance(request, GenerateV1) else AnswerEncoderV2
        return shape(self._connection, self._event.id, "", stream=request.stream)
