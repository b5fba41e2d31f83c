"""One connection without its I/O: bytes in, events out; messages in, bytes out; both roles.

Several requests may be in flight when their ids differ. Feed what was received with
`receive_data`, take events with `next_event` until None; what `send…` and `Refused` return as
bytes goes to the peer in that order. Never touches a socket, a clock or a task.
"""

from typing import Literal

from .codec import encode
from .errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from .events import CancelReceived, Closed, Event, Refused, RequestReceived
from .exchange import Exchange, kind_of
from .frames import FrameReader, FrameType, encode_length, pack
from .messages import AttachmentBlob, Cancel, Error, Request, decode_request
from .messages.answers import Answer, is_terminal
from .states import Signal, step
from .upload import BlobGate

MAX_IN_FLIGHT = 256
"""Requests at once on one connection; one more gets `queue_full`."""

_HEADERS = [encode_length(n) + b"\x01" for n in range(2048)]
"""Headers of small JSON frames: the delta of one token is nearly always under 2 KiB."""


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

        Raises LocalProtocolError for an id that is not in flight, ValueError over the frame cap;
        neither changes the state.
        """
        exchange = self._exchange(answer.id)
        data = pack(exchange.encoding, encode(exchange.encoding, answer))
        if is_terminal(answer):
            exchange.state = step(exchange.state, Signal.TERMINAL)
            del self._exchanges[answer.id]
        else:
            exchange.state = step(exchange.state, Signal.PART)
        return data

    def send_deltas(
        self, request_id: str, deltas: list[str], channel: Literal["text", "thinking"] = "text"
    ) -> bytes:
        """One frame for each delta, joined: the hot path of a generation."""
        exchange = self._exchange(request_id)
        exchange.state = step(exchange.state, Signal.PART)
        if exchange.encoding is not FrameType.JSON:
            return b"".join(exchange.pack_delta(delta, channel) for delta in deltas)
        prefix, suffix = exchange.delta_frame(channel)
        base = len(prefix) + len(suffix)
        parts: list[bytes] = []
        for delta in deltas:
            text = encode(FrameType.JSON, delta)
            size = base + len(text)
            header = _HEADERS[size] if size < len(_HEADERS) else encode_length(size) + b"\x01"
            parts += (header, prefix, text, suffix)
        return b"".join(parts)

    def _exchange(self, request_id: str) -> Exchange:
        try:
            return self._exchanges[request_id]
        except KeyError:
            raise LocalProtocolError(f"no request {request_id!r} is in flight") from None

    def _on_message(self, frame_type: FrameType, payload: bytes) -> Event | None:
        if self._gate.awaits_blob:
            raise self._gate.broken("a BLOB frame must follow its attachment_blob")
        try:
            message = decode_request(frame_type, payload)
        except RemoteProtocolError as error:
            if self._gate.uploading:
                raise self._gate.broken(error.message) from None
            self._gate.discard()
            raise
        if isinstance(message, AttachmentBlob):
            self._gate.announce(message)
            return None
        if self._gate.uploading:
            raise self._gate.broken("attachment_blob expected")
        self._gate.reset()
        if isinstance(message, Cancel):
            return self._on_cancel(message)
        return self._on_request(frame_type, message)

    def _on_request(self, frame_type: FrameType, request: Request) -> Event | None:
        if request.id in self._exchanges:
            self._gate.discard()
            raise RemoteProtocolError(
                f"a request with the id {request.id[:80]!r} is in flight", request_id=request.id
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
        exchange.state = step(exchange.state, Signal.CANCEL)
        return CancelReceived(message.id)

    def _on_blob(self, payload: bytes | None) -> Event | None:
        request = self._gate.blob(payload)
        if request is None:
            return None
        exchange = self._exchanges[request.id]
        if self._gate.uploading:
            exchange.state = step(exchange.state, Signal.BLOB)
            return None
        exchange.state = step(exchange.state, Signal.LAST_BLOB)
        return RequestReceived(request.id, request, self._gate.take())

    def _refuse(self, error: RemoteProtocolError) -> Refused:
        upload = self._gate.request
        if upload is not None and not error.request_id:
            error.request_id = upload.id
        if upload is not None and error.request_id == upload.id:
            self._exchanges.pop(upload.id, None)
            self._gate.discard()
        if error.close:
            self._closed = True
        answer = Error(error.request_id, error.code, error.message)
        data = pack(self._encoding, encode(self._encoding, answer))
        return Refused(error.request_id, error.code, error.message, data, error.close)

    def _at_end(self) -> Closed:
        self._closed = True
        try:
            self._reader.finish()
        except RemoteProtocolError:
            return Closed(clean=False)
        return Closed(clean=not self._gate.uploading)
