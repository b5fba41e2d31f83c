"""The asking side of one connection, without its I/O. See `connection` for the other side.

Frames of `send_request` and `send_cancel` go to the daemon in that order; what comes back goes
into `receive_data`, and comes out of `next_event`. Never touches a socket, a clock or a task.
"""

import msgspec

from .answer_codec import AnswerCodec
from .codec import encode
from .errors import LocalProtocolError, RemoteProtocolError
from .events import AnswerReceived, ClientEvent, Closed
from .exchange import Exchange, Kind, kind_of
from .frames import FrameReader, FrameType, frame_header, pack
from .messages import (
    MAX_REQUEST_BLOB_BYTES,
    WIRE_VERSION,
    AttachmentBlob,
    Control,
    GenerateV1,
    GenerateV2,
    JsonObject,
    Request,
)
from .messages.answers import is_terminal
from .states import Signal, step

_OPS = {Kind.EMBED: "embed", Kind.RERANK: "rerank"}
_NOT_CONTROL = frozenset({"", "generate", "embed", "rerank", "cancel"})


class ClientConnection:
    """A client's side of one connection; speaks JSON, or MessagePack where asked to."""

    def __init__(self, *, encoding: FrameType = FrameType.JSON) -> None:
        self._reader = FrameReader()
        self._exchanges: dict[str, Exchange] = {}
        self._answers = AnswerCodec(self._exchanges)
        self._encoding = encoding
        self._eof = False
        self._closed = False

    def __repr__(self) -> str:
        states = ", ".join(f"{id_!r}: {x.state!r}" for id_, x in self._exchanges.items())
        return f"<ClientConnection {'closed' if self._closed else 'open'} {{{states}}}>"

    @property
    def in_flight(self) -> list[str]:
        """Ids of the requests without a terminal answer."""
        return list(self._exchanges)

    def send_request(self, request: Request, blobs: tuple[bytes, ...] = ()) -> list[bytes]:
        """The bytes of a request, to be written in order without a frame of another in between.

        Blobs are in the list as they are, uncopied. Raises LocalProtocolError: the id is in
        flight, `blobs` does not match the attachments or is over the cap, or the request cannot
        be encoded; ValueError over the frame cap. The state is then unchanged.
        """
        if request.id in self._exchanges:
            raise LocalProtocolError(f"a request with the id {request.id!r} is in flight")
        attachments = request.attachments if isinstance(request, GenerateV2) else []
        if len(blobs) != len(attachments):
            raise LocalProtocolError(f"{len(attachments)} attachments, {len(blobs)} blobs")
        if sum(map(len, blobs)) > MAX_REQUEST_BLOB_BYTES:
            raise LocalProtocolError(f"blobs are over the cap of {MAX_REQUEST_BLOB_BYTES} bytes")
        pieces = [pack(self._encoding, encode(self._encoding, _with_head(request)))]
        for attachment, blob in zip(attachments, blobs, strict=True):
            announcement = AttachmentBlob(attachment.id, len(blob))
            pieces.append(
                pack(self._encoding, encode(self._encoding, announcement))
                + frame_header(FrameType.BLOB, len(blob))
            )
            pieces.append(blob)
        exchange = Exchange(request.id, kind_of(request), self._encoding)
        exchange.state = step(exchange.state, Signal.REQUEST)
        self._exchanges[request.id] = exchange
        return pieces

    def send_cancel(self, request_id: str) -> bytes:
        """Ask for the end of a request; its terminal answer still comes.

        Returns b"" where it has ended already: a cancel may always cross the last answer.
        """
        exchange = self._exchanges.get(request_id)
        if exchange is None:
            return b""
        exchange.state = step(exchange.state, Signal.CANCEL)
        message = {"wire_version": WIRE_VERSION, "op": "cancel", "id": request_id}
        return pack(self._encoding, encode(self._encoding, message))

    def receive_data(self, data: bytes) -> None:
        """Bytes from the daemon; b"" is the end of its stream."""
        if self._closed:
            return
        if data:
            self._reader.feed(data)
        else:
            self._eof = True

    def next_event(self) -> ClientEvent | None:
        """One event, or None when more bytes are needed.

        Raises RemoteProtocolError where the daemon's bytes make no sense; the connection is then
        spent, and None is all that follows.
        """
        try:
            while not self._closed:
                frame = self._reader.next()
                if frame is None:
                    return self._at_end() if self._eof else None
                if frame.type is FrameType.BLOB or frame.payload is None:
                    raise RemoteProtocolError("the daemon sent a BLOB frame", close=True)
                event = self._on_answer(frame.type, frame.payload)
                if event is not None:
                    return event
        except RemoteProtocolError:
            self._closed = True
            raise
        return None

    def _on_answer(self, frame_type: FrameType, payload: bytes) -> AnswerReceived | None:
        answer = self._answers.decode(frame_type, payload)
        if answer is None:
            return None
        exchange = self._exchanges.get(answer.id)
        terminal = is_terminal(answer)
        if exchange is not None:
            exchange.state = step(exchange.state, Signal.TERMINAL if terminal else Signal.PART)
            if terminal:
                del self._exchanges[exchange.id]
        return AnswerReceived(answer.id, answer, terminal)

    def _at_end(self) -> Closed:
        self._closed = True
        try:
            self._reader.finish()
        except RemoteProtocolError:
            return Closed(clean=False)
        return Closed(clean=True)


def _with_head(request: Request) -> JsonObject:
    head: JsonObject = {"wire_version": WIRE_VERSION}
    if isinstance(request, Control):
        if request.op in _NOT_CONTROL:
            raise LocalProtocolError(f"{request.op!r} is no control operation")
        return head | request.arguments | head | {"id": request.id, "op": request.op}
    if isinstance(request, GenerateV1):
        head["api_version"] = 1
    op = _OPS.get(kind_of(request))
    if op is not None:
        head["op"] = op
    fields: JsonObject = msgspec.to_builtins(request)
    return head | fields
