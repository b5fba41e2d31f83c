"""What a connection remembers of one request: its state, its kind, how its answers look."""

from enum import Enum
from typing import Literal, get_args

from .codec import encode
from .frames import FrameType
from .messages import (
    BlockAnswer,
    Embed,
    GenerateV1,
    GenerateV2,
    Request,
    Rerank,
    TextDelta,
    ThinkingDelta,
    Token,
)
from .messages.answers import AnswerControl, AnswerEmbed, AnswerRerank, AnswerV1, AnswerV2
from .states import State

Channel = Literal["text", "thinking"]


class Kind(Enum):
    """Which family of answers a request gets."""

    GENERATE_V1 = "generate v1"
    GENERATE_V2 = "generate v2"
    EMBED = "embed"
    RERANK = "rerank"
    CONTROL = "control"


ANSWERS: dict[Kind, tuple[type, ...]] = {
    Kind.GENERATE_V1: get_args(AnswerV1),
    Kind.GENERATE_V2: get_args(AnswerV2),
    Kind.EMBED: get_args(AnswerEmbed),
    Kind.RERANK: get_args(AnswerRerank),
    Kind.CONTROL: get_args(AnswerControl),
}
"""What may answer a request of each kind."""


def kind_of(request: Request) -> Kind:
    """The kind of a request message."""
    match request:
        case GenerateV1():
            return Kind.GENERATE_V1
        case GenerateV2():
            return Kind.GENERATE_V2
        case Embed():
            return Kind.EMBED
        case Rerank():
            return Kind.RERANK
        case _:
            return Kind.CONTROL


class Exchange:
    """One request in flight."""

    __slots__ = ("_delta_frames", "charged", "encoding", "id", "kind", "state")

    def __init__(self, request_id: str, kind: Kind, encoding: FrameType) -> None:
        self.id = request_id
        self.kind = kind
        self.encoding = encoding
        self.state = State.IDLE
        self.charged = 0
        """Bytes of it that the account holds while its upload goes on."""
        self._delta_frames: dict[Channel, tuple[bytes, bytes]] = {}

    def delta_frame(self, channel: Channel) -> tuple[bytes, bytes]:
        """The payload before and after a delta's text, cut once from a real answer.

        The text is the last value of both answers, so its empty form is the last one there.
        """
        frame = self._delta_frames.get(channel)
        if frame is None:
            payload = encode(self.encoding, self._delta("", channel))
            before, _, after = payload.rpartition(encode(self.encoding, ""))
            frame = self._delta_frames[channel] = (before, after)
        return frame

    def _delta(self, delta: str, channel: Channel) -> Token | BlockAnswer:
        if self.kind is Kind.GENERATE_V1:
            return Token(self.id, delta)
        block = TextDelta(delta) if channel == "text" else ThinkingDelta(delta)
        return BlockAnswer(self.id, block)
