"""What llama-server tells of its model in `GET /props`. Pure."""

import msgspec
from msgspec import Struct


class Facts(Struct, frozen=True):
    """`n_ctx` is the context of one slot in tokens."""

    vision: bool = False
    audio: bool = False
    n_ctx: int | None = None
    slots: int | None = None


class _Modalities(Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class _Settings(Struct, frozen=True):
    n_ctx: int | None = None


class _Props(Struct):
    modalities: _Modalities = _Modalities()
    default_generation_settings: _Settings = _Settings()
    total_slots: int | None = None


_decode = msgspec.json.Decoder(_Props).decode


def read_facts(body: bytes) -> Facts | None:
    """None where the body is none of llama-server's."""
    try:
        props = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return Facts(
        props.modalities.vision,
        props.modalities.audio,
        props.default_generation_settings.n_ctx,
        props.total_slots if (props.total_slots or 0) > 0 else None,
    )
