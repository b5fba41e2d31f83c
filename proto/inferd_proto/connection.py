"""The answering side of one connection, without its I/O. See `client_connection` for the other.

Several requests may be in flight when their ids differ. Feed what was received with
`receive_data`, take events with `next_event` until None; the bytes that `send…` returns, and that
`Refused` and `UploadCancelled` hold, go to the peer in that order. Never touches a socket, a clock
or a task.
"""

from functools import cache

from msgspec import UNSET

from .account import Account, Toll
from .codec import TEXT_ENCODERS, encode
from .errors import ErrorCode, LocalProtocolError, RemoteProtocolError, quoted
from .events import (
    CancelReceived,
    Closed,
    Event,
    MessageHeld,
    Refused,
    RequestReceived,
    UploadCancelled,
)
from .exchange import ANSWERS, Channel, Exchange, kind_of
from .frames import MAX_FRAME_BYTES, Frame, FrameReader, FrameType, frame_header, pack
from .messages import AttachmentBlob, Cancel, DoneV2, Error, Request, Usage
from .messages.answers import Answer, is_terminal
from .messages.decoding import decode_held
from .messages.early_id import find_id
from .states import Signal, State, step
from .upload import BlobGate

MAX_IN_FLIGHT = 256
"""Requests at once on one connection; one more gets `queue_full`."""

_SMALL = 2048
"""That of one token's delta is nearly always under 2 KiB."""


@cache
def _small_headers(type_: FrameType) -> list[bytes]:
    """Headers of frames of less than `_SMALL` bytes, by their length."""
    return [frame_header(type_, n) for n in range(_SMALL)]


class ServerConnection:
    """The daemon's side of one connection.

    Large frames are charged to `account`, where there is one, when they are announced. What a
    request was charged goes with it (`RequestReceived.charged`); whoever serves it gives that back
    at its end.

    Messages of more than `hold_over` bytes are not decoded but handed out (`MessageHeld`); nothing
    that follows is looked at before `resume`.
    """

    def __init__(
        self,
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
        account: Account | None = None,
        hold_over: int = MAX_FRAME_BYTES,
    ) -> None:
        self._gate = BlobGate()
        self._toll = Toll(self._gate, account)
        self._reader = FrameReader(admit=self._toll.admit)
        self._exchanges: dict[str, Exchange] = {}
        self._max_in_flight = max_in_flight
        self._encoding = FrameType.JSON
        self._hold_over = hold_over
        self._held = False
        self._eof = False
        self._closed = False

    def __repr__(self) -> str:
        states = ", ".join(f"{id_!r}: {x.state!r}" for id_, x in self._exchanges.items())
        return f"<ServerConnection {'closed' if self._closed else 'open'} {{{states}}}>"

    @property
    def in_flight(self) -> list[str]:
        """Ids of the requests without a terminal answer."""
        return list(self._exchanges)

    @property
    def at_rest(self) -> bool:
        """True between two messages with no upload open: what comes next could as well be the
        first bytes of a connection.
        """
        whole = self._gate.request is None and not self._gate.awaits_blob
        return whole and not self._held and not self._reader.within_frame

    def close(self) -> None:
        """Forget what was received; nothing comes of it any more."""
        self._closed = True
        self._reader.clear()
        self._gate.discard()

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer; b"" is the end of its stream."""
        if self._closed:
            return
        if data:
            self._reader.feed(data)
        else:
            self._eof = True

    def next_event(self) -> Event | None:
        """What the received bytes mean, one event at a time; None when more are needed.

        After `Refused` with `close`, and after `Closed`, there is nothing more.
        """
        while not self._closed and not self._held:
            try:
                frame = self._reader.next()
                if frame is None:
                    return self._at_end() if self._eof else None
                event = self._on_frame(frame)
            except RemoteProtocolError as error:
                return self._refuse(error)
            if event is not None:
                return event
        return None

    def resume(
        self, decoded: Request | Cancel | AttachmentBlob | RemoteProtocolError
    ) -> Event | None:
        """Go on with what `decode_held` made of the message that was held; its event, if any."""
        assert self._held
        self._held = False
        if self._closed:
            return None
        try:
            return self._on_decoded(self._encoding, decoded)
        except RemoteProtocolError as error:
            return self._refuse(error)
        finally:
            self._toll.give_back(self._toll.pass_on())

    def send(self, answer: Answer) -> bytes:
        """`answer` as a frame in the encoding that its request used.

        Raises LocalProtocolError for an id that is not in flight, for an answer of another kind
        than the request's, and for what cannot be encoded; ValueError over the frame cap. None
        of them changes the state: the request can still be ended with an `Error`.
        """
        exchange = self._exchange(answer.id)
        if not isinstance(answer, ANSWERS[exchange.kind]):
            raise LocalProtocolError(f"{type(answer).__name__} answers no {exchange.kind.value}")
        terminal = is_terminal(answer)
        state = step(exchange.state, Signal.TERMINAL if terminal else Signal.PART)
        data = pack(exchange.encoding, encode(exchange.encoding, answer))
        exchange.state = state
        if terminal:
            self._forget(exchange)
        return data

    def send_deltas(self, request_id: str, deltas: list[str], channel: Channel = "text") -> bytes:
        """One frame for each delta, joined: the hot path of a generation.

        Raises as `send` does. A v1 answer has no `thinking`: its deltas are all tokens.
        """
        exchange = self._exchange(request_id)
        exchange.state = step(exchange.state, Signal.PART)
        headers = _small_headers(exchange.encoding)
        prefix, suffix = exchange.delta_frame(channel)
        base = len(prefix) + len(suffix)
        parts: list[bytes] = []
        try:
            for text in map(TEXT_ENCODERS[exchange.encoding], deltas):
                size = base + len(text)
                header = headers[size] if size < _SMALL else frame_header(exchange.encoding, size)
                parts += (header, prefix, text, suffix)
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"a delta that cannot be encoded: {error.reason}") from None
        return b"".join(parts)

    def _exchange(self, request_id: str) -> Exchange:
        try:
            return self._exchanges[request_id]
        except KeyError:
            raise LocalProtocolError(f"no request {request_id!r} is in flight") from None

    def _forget(self, exchange: Exchange) -> None:
        del self._exchanges[exchange.id]
        self._toll.give_back(exchange.charged)  # of an upload that ends here
        if self._gate.request is not None and self._gate.request.id == exchange.id:
            self._gate.discard()

    def _on_frame(self, frame: Frame) -> Event | None:
        try:
            if frame.type is FrameType.BLOB:
                return self._on_blob(frame.payload)
            self._encoding = frame.type
            return self._on_message(frame.type, frame.payload)
        finally:
            if not self._held:
                self._toll.give_back(self._toll.pass_on())  # of no request that goes on

    def _no_room(self, request_id: str = "", *, close: bool = False) -> RemoteProtocolError:
        """The frame that came was read past for want of room; the same befalls its blobs."""
        if self._gate.request is None:
            self._gate.discard()
        return RemoteProtocolError(
            f"no room for {self._toll.lacked} more bytes of requests: the daemon holds at most"
            f" {self._toll.limit} in memory (max_request_bytes_in_memory); try again when"
            " other requests have ended, or send less at once",
            code=ErrorCode.QUEUE_FULL,
            request_id=request_id,
            close=close,
        )

    def _on_message(self, frame_type: FrameType, payload: bytes | None) -> Event | None:
        if self._gate.awaits_blob:
            raise RemoteProtocolError("a BLOB frame must follow its attachment_blob", close=True)
        if payload is None:
            request_id = find_id(frame_type, self._reader.head or b"")
            uploading = self._gate.request is not None
            # a refusal that names no request could be any's
            raise self._no_room(request_id or "", close=uploading or request_id is None)
        if len(payload) > self._hold_over:
            self._held = True
            return MessageHeld(frame_type, payload)
        return self._on_decoded(frame_type, decode_held(frame_type, payload))

    def _on_decoded(
        self,
        frame_type: FrameType,
        message: Request | Cancel | AttachmentBlob | RemoteProtocolError,
    ) -> Event | None:
        uploading = self._gate.request is not None
        match message:
            case RemoteProtocolError() if uploading:
                raise RemoteProtocolError(
                    f"attachment_blob expected ({message.message})", close=True
                ) from None
            case RemoteProtocolError():
                self._gate.discard()
                raise message
            case AttachmentBlob():
                self._gate.announce(message)
                return None
            case Cancel():
                return self._on_cancel(message)
            case _ if uploading:
                raise RemoteProtocolError("attachment_blob expected", close=True)
            case _:
                return self._on_request(frame_type, message)

    def _on_request(self, frame_type: FrameType, request: Request) -> Event | None:
        if request.id in self._exchanges:
            self._gate.discard()
            raise RemoteProtocolError(
                f"a request with the id {quoted(request.id)} is in flight", request_id=request.id
            )
        if len(self._exchanges) >= self._max_in_flight:
            self._gate.discard()
            raise RemoteProtocolError(
                f"{len(self._exchanges)} requests are in flight on this connection",
                code=ErrorCode.QUEUE_FULL,
                request_id=request.id,
            )
        exchange = Exchange(request.id, kind_of(request), frame_type)
        uploading = self._gate.expect(request)
        signal = Signal.REQUEST_WITH_BLOBS if uploading else Signal.REQUEST
        exchange.state = step(exchange.state, signal)
        self._exchanges[request.id] = exchange
        charge = self._toll.pass_on()
        if not uploading:
            return RequestReceived(request.id, request, (), charge)
        exchange.charged = charge
        return None

    def _on_cancel(self, message: Cancel) -> Event | None:
        exchange = self._exchanges.get(message.id)
        if exchange is None:
            return None  # it ended while the cancel was on its way
        if exchange.state is State.UPLOADING:
            return self._cancel_upload()
        exchange.state = step(exchange.state, Signal.CANCEL)
        return CancelReceived(message.id)

    def _cancel_upload(self) -> UploadCancelled:
        """Nobody else knows of the request yet: its last frame is made here."""
        request = self._gate.request
        assert request is not None
        content = UNSET if request.stream else ""
        done = DoneV2(request.id, Usage(0, 0), "cancelled", backend="", content=content)
        return UploadCancelled(request.id, self.send(done))

    def _on_blob(self, payload: bytes | None) -> Event | None:
        request = self._gate.take(payload)
        if request is None:
            return None
        if payload is None:
            raise self._no_room()
        exchange = self._exchanges[request.id]
        exchange.charged += self._toll.pass_on()
        blobs = self._gate.complete()
        exchange.state = step(exchange.state, Signal.BLOB if blobs is None else Signal.LAST_BLOB)
        if blobs is None:
            return None
        charged, exchange.charged = exchange.charged, 0
        return RequestReceived(request.id, request, blobs, charged)

    def _refuse(self, error: RemoteProtocolError) -> Refused:
        upload = self._gate.request
        if upload is not None and not error.request_id:
            error.request_id = upload.id
        encoding = self._encoding
        exchange = self._exchanges.get(error.request_id)
        if exchange is not None and exchange.state is State.UPLOADING:
            exchange.state = step(exchange.state, Signal.TERMINAL)
            encoding = exchange.encoding
            self._forget(exchange)
        self._closed = error.close
        answer = Error(error.request_id, error.code, error.message)
        data = pack(encoding, encode(encoding, answer))
        return Refused(error.request_id, error.code, error.message, data, error.close)

    def _at_end(self) -> Closed:
        self._closed = True
        try:
            self._reader.finish()
        except RemoteProtocolError:
            return Closed(clean=False)
        return Closed(clean=self._gate.request is None and not self._gate.awaits_blob)
