"""What a program says to a model, from plain Python values to a request's messages.

    >>> from inferd_client import RgbImage, system, user
    >>> picture = RgbImage(bytes(2 * 2 * 3), width=2, height=2)
    >>> conversation = [system("Be brief."), user("What is this?", picture)]

Pure. Whether a model can take a picture or a sound is the daemon's to say.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from inferd_proto import (
    Attachment,
    Audio,
    AudioAttachment,
    Block,
    Image,
    ImageAttachment,
    Message,
    Text,
    ToolResult,
    ToolUse,
)

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, eq=False)
class RgbImage:
    """A picture: 8 bits a channel, red green blue, rows from the top, no padding.

    Raises ValueError where `pixels` is not width * height * 3 bytes.
    """

    pixels: bytes = field(repr=False)
    width: int
    height: int

    def __post_init__(self) -> None:
        expected = self.width * self.height * 3
        if len(self.pixels) != expected:
            raise ValueError(
                f"{len(self.pixels)} bytes of pixels; {self.width} x {self.height} RGB"
                f" is {expected}"
            )


@dataclass(frozen=True, eq=False)
class PcmAudio:
    """A sound: mono, float32 little-endian samples in [-1, 1], `sample_rate` in Hz.

    Raises ValueError where `samples` is empty or not whole samples.
    """

    samples: bytes = field(repr=False)
    sample_rate: int

    def __post_init__(self) -> None:
        if not self.samples or len(self.samples) % 4:
            raise ValueError(f"{len(self.samples)} bytes are not a sequence of float32 samples")

    @classmethod
    def from_samples(cls, samples: Iterable[float], sample_rate: int) -> "PcmAudio":
        """From numbers, whatever holds them."""
        packed = array("f", samples)
        if sys.byteorder == "big":
            packed.byteswap()
        return cls(packed.tobytes(), sample_rate)


Upload: TypeAlias = RgbImage | PcmAudio


@dataclass(frozen=True)
class ToolAnswer:
    """What a tool answered to the call `tool_call_id`; made by `tool_result`."""

    tool_call_id: str
    parts: "tuple[Part, ...]"


Part: TypeAlias = str | Block | Upload | ToolAnswer


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; its parts may be strings, blocks, pictures and sounds."""

    role: Role
    parts: tuple[Part, ...]


Prompt: TypeAlias = str | Sequence[Turn | Message]
"""A question, or a whole conversation."""


def system(*parts: Part) -> Turn:
    """What the model is told before the conversation."""
    return Turn("system", parts)


def user(*parts: Part) -> Turn:
    """What the person says."""
    return Turn("user", parts)


def assistant(*parts: Part) -> Turn:
    """What the model said, its tool calls included: to replay a conversation."""
    return Turn("assistant", parts)


def tool_result(call: ToolUse | str, *parts: Part) -> Turn:
    """What a tool answered to `call`, or to the call with that id."""
    tool_call_id = call if isinstance(call, str) else call.tool_call_id
    return Turn("user", (ToolAnswer(tool_call_id, parts),))


class Assembly:
    """Turns parts into blocks, and keeps the attachments that they name."""

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.blobs: list[bytes] = []
        self._ids: dict[Upload, str] = {}

    def messages(self, prompt: Prompt) -> list[Message]:
        """`prompt` as the wire's messages. Raises ValueError where it has none."""
        turns = [user(prompt)] if isinstance(prompt, str) else prompt
        if not turns:
            raise ValueError("the prompt has no messages")
        return [turn if isinstance(turn, Message) else self._message(turn) for turn in turns]

    def _message(self, turn: Turn) -> Message:
        if not turn.parts:
            raise ValueError(f"a {turn.role} message has no parts")
        return Message(turn.role, [self._block(part) for part in turn.parts])

    def _block(self, part: Part) -> Block:
        match part:
            case str():
                return Text(part)
            case RgbImage():
                return Image(self._attach(part))
            case PcmAudio():
                return Audio(self._attach(part))
            case ToolAnswer():
                return ToolResult(part.tool_call_id, [self._block(inner) for inner in part.parts])
            case _:
                return part

    def _attach(self, upload: Upload) -> str:
        known = self._ids.get(upload)
        if known is not None:
            return known
        name = self._ids[upload] = f"upload-{len(self.attachments) + 1}"
        if isinstance(upload, RgbImage):
            self.attachments.append(ImageAttachment(name, upload.width, upload.height))
            self.blobs.append(upload.pixels)
        else:
            self.attachments.append(AudioAttachment(name, upload.sample_rate))
            self.blobs.append(upload.samples)
        return name
