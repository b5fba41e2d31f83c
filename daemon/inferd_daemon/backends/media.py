"""Attachments as content parts of Chat Completions: images as PNG, audio as WAV.

Blocking and pure: run it in a worker thread. Needs the extra `media` (Pillow and soundfile).
"""

import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO

from inferd_proto import AudioAttachment, ErrorCode, ImageAttachment, JsonObject

from ..errors import BackendFault, CallerFault
from .base import Media

_SAMPLE_BYTES = 4
# Raw pixels are large and the way is short: the least of compression is the fastest in all.
_PNG_LEVEL = 1


def encode_media(media: Mapping[str, Media]) -> dict[str, JsonObject]:
    """The content part of each attachment, by its id.

    Raises CallerFault where the bytes do not fit their description, or the kind has no form there;
    BackendFault where the extra `media` is not installed.
    """
    return {identity: _encode(item) for identity, item in media.items()}


def encode_png(attachment: ImageAttachment, pixels: bytes) -> bytes:
    """RGB rows as a PNG. Raises CallerFault."""
    try:
        from PIL import Image
    except ImportError:
        raise _not_installed("images") from None
    if len(pixels) != attachment.blob_bytes():
        raise CallerFault(
            f"image {attachment.id!r} has {len(pixels)} bytes, "
            f"not the {attachment.blob_bytes()} of its size"
        )
    image = Image.frombytes("RGB", (attachment.width, attachment.height), pixels)
    file = BytesIO()
    image.save(file, format="PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()


def encode_wav(attachment: AudioAttachment, samples: bytes) -> bytes:
    """Mono float32 as a 16-bit WAV, clipped to -1…1. Raises CallerFault."""
    try:
        import soundfile
    except ImportError:
        raise _not_installed("audio") from None
    if len(samples) % _SAMPLE_BYTES or not samples:
        raise CallerFault(f"audio {attachment.id!r} is not whole float32 samples")
    if sys.byteorder == "big":
        swapped = array("f", samples)
        swapped.byteswap()
        samples = swapped.tobytes()
    file = BytesIO()
    with soundfile.SoundFile(
        file, "w", attachment.sample_rate, 1, subtype="PCM_16", format="WAV"
    ) as sound:
        sound.buffer_write(samples, dtype="float32")
    return file.getvalue()


def _encode(item: Media) -> JsonObject:
    match item.attachment:
        case ImageAttachment() as image:
            url = "data:image/png;base64," + b64encode(encode_png(image, item.data)).decode()
            return {"type": "image_url", "image_url": {"url": url}}
        case AudioAttachment() as audio:
            data = b64encode(encode_wav(audio, item.data)).decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        case _:
            raise CallerFault(
                "`attachments`: no backend takes video", ErrorCode.ATTACHMENT_UNSUPPORTED
            )


def _not_installed(what: str) -> BackendFault:
    return BackendFault(
        f"this daemon lacks what {what} need; install `inferd[media]`",
        ErrorCode.ATTACHMENT_UNSUPPORTED,
    )
