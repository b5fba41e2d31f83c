"""Answers as a client reads them: by the kind of the request that each one's id names.

Passes over what a newer daemon may add, and never lets an answer of the wrong kind through.
"""

from collections.abc import Mapping
from types import UnionType
from typing import cast

import msgspec

from .codec import Codec
from .errors import ErrorCode, RemoteProtocolError, quoted
from .exchange import Exchange, Kind
from .frames import FrameType
from .messages import Error, JsonObject
from .messages.answers import (
    Answer,
    AnswerControl,
    AnswerEmbed,
    AnswerRerank,
    AnswerV1,
    AnswerV2,
)


class _Tag(msgspec.Struct, gc=False):
    type: str = ""


class _Head(msgspec.Struct, gc=False):
    id: str = ""
    type: str = ""
    block: _Tag | None = None


class _AnyError(msgspec.Struct):
    """An error whose code may be newer than this code."""

    id: str
    code: str
    message: str
    details: JsonObject | msgspec.UnsetType = msgspec.UNSET


def _codec(family: UnionType) -> Codec[Answer]:
    return cast("Codec[Answer]", Codec(cast("type[Answer]", family)))


_HEAD = Codec(_Head)
_ERROR = Codec(_AnyError)
_ANSWERS: dict[Kind, Codec[Answer]] = {
    Kind.GENERATE_V1: _codec(AnswerV1),
    Kind.GENERATE_V2: _codec(AnswerV2),
    Kind.EMBED: _codec(AnswerEmbed),
    Kind.RERANK: _codec(AnswerRerank),
    Kind.CONTROL: _codec(AnswerControl),
}
_KNOWN_TYPES = {"token", "frame", "done", "error", "embeddings", "rerank", "result", "item"}
_KNOWN_BLOCKS = {"text", "thinking", "tool_use", "queued"}


class AnswerCodec:
    """Decodes the answers to `exchanges`, which its owner keeps."""

    __slots__ = ("_exchanges", "_guess")

    def __init__(self, exchanges: Mapping[str, Exchange]) -> None:
        self._exchanges = exchanges
        self._guess: Kind | None = None  # the kind of the last answer: most follow their like

    def decode(self, frame_type: FrameType, payload: bytes) -> Answer | None:
        """The answer in a payload, None for one of a type that only a newer daemon knows.

        An id that is not in flight can only belong to an `Error`: the daemon answers so where it
        could not read the id. Raises RemoteProtocolError for anything else.
        """
        if self._guess is not None:
            try:
                answer = _ANSWERS[self._guess].decode(frame_type, payload)
            except RemoteProtocolError:
                pass
            else:
                exchange = self._exchanges.get(answer.id)
                if exchange is not None and exchange.kind is self._guess:
                    return answer
        return self._decode_by_id(frame_type, payload)

    def _decode_by_id(self, frame_type: FrameType, payload: bytes) -> Answer | None:
        head = _HEAD.decode(frame_type, payload)
        if head.type not in _KNOWN_TYPES:
            return None
        if head.type == "error":
            return _known(_ERROR.decode(frame_type, payload))
        exchange = self._exchanges.get(head.id)
        if exchange is None:
            raise RemoteProtocolError(
                f"an answer to {quoted(head.id)}, which is not in flight", close=True
            )
        if head.block is not None and head.block.type not in _KNOWN_BLOCKS:
            return None
        self._guess = exchange.kind
        return _ANSWERS[exchange.kind].decode(frame_type, payload)


def _known(error: _AnyError) -> Error:
    try:
        code = ErrorCode(error.code)
    except ValueError:
        code = ErrorCode.INTERNAL
    return Error(error.id, code, error.message, error.details)
