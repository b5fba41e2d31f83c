"""The asking side of one connection, without its I/O. See `connection` for the other side."""

from types import UnionType
from typing import cast

import msgspec

from .codec import Codec, encode
from .errors import LocalProtocolError, RemoteProtocolError
from .events import AnswerReceived, ClientEvent, Closed
from .exchange import Exchange, Kind, kind_of
from .frames import FrameReader, FrameType, pack
from .messages import (
    WIRE_VERSION,
    AttachmentBlob,
    Control,
    GenerateV1,
    GenerateV2,
    JsonObject,
    Request,
)
from .messages.answers import (
    Answer,
    AnswerControl,
    AnswerEmbed,
    AnswerRerank,
    AnswerV1,
    AnswerV2,
    is_terminal,
)
from .states import Signal, step


class _Head(msgspec.Struct, gc=False):
    id: str = ""


class _Tag(msgspec.Struct, gc=False):
    type: str = ""
    block: "_Tag | None" = None


def _codec(family: UnionType) -> Codec[Answer]:
    return cast("Codec[Answer]", Codec(cast("type[Answer]", family)))


_HEAD = Codec(_Head)
_TAG = Codec(_Tag)
_ANSWERS: dict[Kind, Codec[Answer]] = {
    Kind.GENERATE_V1: _codec(AnswerV1),
    Kind.GENERATE_V2: _codec(AnswerV2),
    Kind.EMBED: _codec(AnswerEmbed),
    Kind.RERANK: _codec(AnswerRerank),
    Kind.CONTROL: _codec(AnswerControl),
}
_KNOWN_TYPES = {"token", "frame", "done", "error", "embeddings", "rerank", "result", "item"}
_KNOWN_BLOCKS = {"text", "thinking", "tool_use", "queued"}
_OPS = {Kind.EMBED: "embed", Kind.RERANK: "rerank"}


class ClientConnection:
    """A client's side of one connection; speaks JSON, or MessagePack where asked to."""

    def __init__(self, *, encoding: FrameType = FrameType.JSON) -> None:
        self._reader = FrameReader()
        self._exchanges: dict[str, Exchange] = {}
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
        """The frames of a request, to be written in order without another in between.

        Raises LocalProtocolError: the id is in flight, or `blobs` does not match the attachments.
        """
        if request.id in self._exchanges:
            raise LocalProtocolError(f"a request with the id {request.id!r} is in flight")
        attachments = request.attachments if isinstance(request, GenerateV2) else []
        if len(blobs) != len(attachments):
            raise LocalProtocolError(f"{len(attachments)} attachments, {len(blobs)} blobs")
        frames = [pack(self._encoding, encode(self._encoding, _with_head(request)))]
        for attachment, blob in zip(attachments, blobs, strict=True):
            announcement = AttachmentBlob(attachment.id, len(blob))
            frames.append(pack(self._encoding, encode(self._encoding, announcement)))
            frames.append(pack(FrameType.BLOB, blob))
        exchange = Exchange(request.id, kind_of(request), self._encoding)
        exchange.state = step(exchange.state, Signal.REQUEST)
        self._exchanges[request.id] = exchange
        return frames

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
        if data:
            self._reader.feed(data)
        else:
            self._eof = True

    def next_event(self) -> ClientEvent | None:
        """One event, or None when more bytes are needed.

        Raises RemoteProtocolError where the daemon's bytes make no sense; the connection is spent.
        """
        while not self._closed:
            frame = self._reader.next()
            if frame is None:
                return self._at_end() if self._eof else None
            if frame.type is FrameType.BLOB or frame.payload is None:
                raise RemoteProtocolError("the daemon sent a BLOB frame", close=True)
            event = self._on_answer(frame.type, frame.payload)
            if event is not None:
                return event
        return None

    def _on_answer(self, frame_type: FrameType, payload: bytes) -> AnswerReceived | None:
        exchange = self._find_exchange(frame_type, payload)
        kind = exchange.kind if exchange is not None else Kind.CONTROL
        try:
            answer = _ANSWERS[kind].decode(frame_type, payload)
        except RemoteProtocolError:
            if _is_from_the_future(_TAG.decode(frame_type, payload)):
                return None
            raise
        terminal = is_terminal(answer)
        if exchange is not None:
            exchange.state = step(exchange.state, Signal.TERMINAL if terminal else Signal.PART)
            if terminal:
                del self._exchanges[exchange.id]
        return AnswerReceived(answer.id, answer, terminal)

    def _find_exchange(self, frame_type: FrameType, payload: bytes) -> Exchange | None:
        return self._exchanges.get(_HEAD.decode(frame_type, payload).id)

    def _at_end(self) -> Closed:
        self._closed = True
        try:
            self._reader.finish()
        except RemoteProtocolError:
            return Closed(clean=False)
        return Closed(clean=True)


def _is_from_the_future(tag: _Tag) -> bool:
    """A type that this version does not know: a newer daemon's, to be passed over."""
    if tag.type not in _KNOWN_TYPES:
        return True
    return tag.block is not None and tag.block.type not in _KNOWN_BLOCKS


def _with_head(request: Request) -> JsonObject:
    head: JsonObject = {"wire_version": WIRE_VERSION}
    if isinstance(request, Control):
        return head | request.arguments | {"id": request.id, "op": request.op}
    if isinstance(request, GenerateV1):
        head["api_version"] = 1
    op = _OPS.get(kind_of(request))
    if op is not None:
        head["op"] = op
    fields: JsonObject = msgspec.to_builtins(request)
    return head | fields
