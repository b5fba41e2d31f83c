"""What comes back from a generation, as events, and all of them together as a `Completion`.

Pure: the two forms of the wire (v1 and v2) meet here and look the same from here on.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import UNSET

from inferd_proto import (
    Answer,
    BlockAnswer,
    DoneV1,
    DoneV2,
    Queued,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Token,
    ToolUse,
    Usage,
)

from .errors import ProtocolViolation

_STOP_REASONS: dict[str, StopReason] = {"end": "end_turn", "length": "max_tokens"}


@dataclass(frozen=True)
class Done:
    """The last event of a generation.

    `usage` is what the engine counted; all zeros where `counted` is false, and nobody did, which
    happens with CLI agents asked over HTTP alone. `content` is the whole text where the request had
    `stream=False`, or was v1; else None. `tool_choice_unsatisfied`: a call was required, the
    budget ran out, and none came. `backend` is for diagnosis only.
    """

    stop_reason: StopReason
    usage: Usage
    backend: str = ""
    content: str | None = None
    tool_choice_unsatisfied: bool = False
    counted: bool = True


Event: TypeAlias = TextDelta | ThinkingDelta | ToolUse | Queued | Done


def to_event(answer: Answer) -> Event:
    """A generation's answer as an event. Raises ProtocolViolation for another kind's answer."""
    match answer:
        case BlockAnswer():
            return answer.block
        case Token():
            return TextDelta(answer.content)
        case DoneV2():
            content = None if answer.content is UNSET else answer.content
            return Done(
                answer.stop_reason,
                answer.usage,
                answer.backend,
                content,
                answer.tool_choice_unsatisfied,
            )
        case DoneV1():
            usage = Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
            # "cancelled" and "error" are the same words in both forms
            reason = _STOP_REASONS.get(answer.stop_reason, answer.stop_reason)
            return Done(reason, usage, answer.backend, answer.content)  # type: ignore[arg-type]
        case _:
            raise ProtocolViolation(f"a generation was answered with {type(answer).__name__}")


@dataclass
class Completion:
    """A whole answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: list[ToolUse] = field(default_factory=list)
    done: Done | None = None

    @property
    def usage(self) -> Usage:
        """Tokens, as the engine counted them. Raises ValueError before the answer has ended."""
        if self.done is None:
            raise ValueError("the answer has not ended")
        return self.done.usage


class Collector:
    """Folds events into a `Completion`."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._completion = Completion()

    def add(self, event: Event) -> None:
        """One more event, in order."""
        match event:
            case TextDelta():
                self._text.append(event.delta)
            case ThinkingDelta():
                self._thinking.append(event.delta)
            case ToolUse():
                self._completion.tool_calls.append(event)
            case Done():
                self._completion.done = event
            case Queued():
                pass

    def completion(self) -> Completion:
        """What has come so far."""
        whole = self._completion
        whole.text = "".join(self._text)
        whole.thinking = "".join(self._thinking)
        if not whole.text and whole.done is not None and whole.done.content is not None:
            whole.text = whole.done.content
        return whole
