"""What llama.cpp's `/props` says of the loaded model, as `ModelFacts`. Pure."""

import msgspec
from msgspec import Struct

from ..backends.runtime import ModelFacts

THINKING_MARKS = ("enable_thinking", "reasoning_content", "<think>", "reasoning_effort")
"""What a chat template that knows of thinking mentions: a switch for it, or its tags."""


class _Settings(Struct, frozen=True):
    n_ctx: int | None = None


class _Modalities(Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class _TemplateCaps(Struct, frozen=True):
    supports_tools: bool = False
    supports_tool_calls: bool = False


class _Props(Struct, frozen=True):
    default_generation_settings: _Settings = _Settings()
    total_slots: int | None = None
    model_alias: str = ""
    modalities: _Modalities = _Modalities()
    chat_template: str = ""
    chat_template_caps: _TemplateCaps = _TemplateCaps()


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that someone else wrote."""


def parse_props(body: bytes) -> ModelFacts:
    """The facts in a `/props` body. Raises what is `UNREADABLE`."""
    props = msgspec.json.decode(body, type=_Props)
    caps = props.chat_template_caps
    return ModelFacts(
        model=props.model_alias,
        n_ctx=props.default_generation_settings.n_ctx,
        slots=props.total_slots,
        vision=props.modalities.vision,
        audio=props.modalities.audio,
        template_tools=caps.supports_tools or caps.supports_tool_calls,
        template_thinking=any(mark in props.chat_template for mark in THINKING_MARKS),
    )
