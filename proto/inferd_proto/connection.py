"""The answering side of one connection, without its I/O. See `client_connection` for the other.

Several requests may be in flight when their ids differ. Feed what was received with
`receive_data`, take events with `next_event` until None; what `send…` and `Refused` return as
bytes goes to the peer in that order. Never touches a socket, a clock or a task.
"""

from .codec import TEXT_ENCODERS, encode
from .errors import ErrorCode, LocalProtocolError, RemoteProtocolError, quoted
from .events import CancelReceived, Closed, Event, Refused, RequestReceived
from .exchange import ANSWERS, Channel, Exchange, kind_of
from .frames import FrameReader, FrameType, frame_header, pack
from .messages import AttachmentBlob, Cancel, Error, Request, decode_request
from .messages.answers import Answer, is_terminal
from .states import Signal, State, step
from .upload import BlobGate

MAX_IN_FLIGHT = 256
"""Requests at once on one connection; one more gets `queue_full`."""

_SMALL = 2048
_HEADERS = {
    type_: [frame_header(type_, n) for n in range(_SMALL)]
    for type_ in (FrameType.JSON, FrameType.MSGPACK)
}
"""Headers of small frames: that of one token's delta is nearly always under 2 KiB."""


class ServerConnection:
    """The daemon's side of one connection."""

    def __init__(self, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._gate = BlobGate()
        self._reader = FrameReader(admit=self._gate.admit)
        self._exchanges: dict[str, Exchange] = {}
        self._max_in_flight = max_in_flight
        self._encoding = FrameType.JSON
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
        return whole and not self._reader.within_frame

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
        while not self._closed:
            try:
                frame = self._reader.next()
                if frame is None:
                    return self._at_end() if self._eof else None
                if frame.type is FrameType.BLOB:
                    event = self._on_blob(frame.payload)
                else:
                    self._encoding = frame.type
                    assert frame.payload is not None
                    event = self._on_message(frame.type, frame.payload)
            except RemoteProtocolError as error:
                return self._refuse(error)
            if event is not None:
                return event
        return None

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
        headers = _HEADERS[exchange.encoding]
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
        if self._gate.request is not None and self._gate.request.id == exchange.id:
            self._gate.discard()

    def _on_message(self, frame_type: FrameType, payload: bytes) -> Event | None:
        if self._gate.awaits_blob:
            raise RemoteProtocolError("a BLOB frame must follow its attachment_blob", close=True)
        uploading = self._gate.request is not None
        try:
            message = decode_request(frame_type, payload)
        except RemoteProtocolError as error:
            if uploading:
                raise RemoteProtocolError(
                    f"attachment_blob expected ({error.message})", close=True
                ) from None
            self._gate.discard()
            raise
        match message:
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
        return None if uploading else RequestReceived(request.id, request, ())

    def _on_cancel(self, message: Cancel) -> Event | None:
        exchange = self._exchanges.get(message.id)
        if exchange is None:
            return None  # it ended while the cancel was on its way
        if exchange.state is State.UPLOADING:
            raise RemoteProtocolError(
                "cancelled before its attachments were complete", request_id=message.id
            )
        exchange.state = step(exchange.state, Signal.CANCEL)
        return CancelReceived(message.id)

    def _on_blob(self, payload: bytes | None) -> Event | None:
        request = self._gate.take(payload)
        if request is None:
            return None
        exchange = self._exchanges[request.id]
        blobs = self._gate.complete()
        exchange.state = step(exchange.state, Signal.BLOB if blobs is None else Signal.LAST_BLOB)
        return None if blobs is None else RequestReceived(request.id, request, blobs)

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
