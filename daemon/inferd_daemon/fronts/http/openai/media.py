"""Attachments of a request as backends take them: base64 files to pixels and samples.

Blocking: run it in a worker thread. Needs the extra `media` (Pillow and soundfile). Looks at the
size that a file claims before it unpacks it.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from io import BytesIO

from inferd_proto import (
    MAX_REQUEST_BLOB_BYTES,
    AudioAttachment,
    ErrorCode,
    ImageAttachment,
)

from ....backends.base import Media
from ....errors import BackendFault
from .chat_messages import MediaSource
from .json_body import FieldFault

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Of files that come from anywhere: not everything that Pillow can open."""
_SAMPLE_BYTES = 4


def decode_media(sources: Mapping[str, MediaSource]) -> dict[str, Media]:
    """RGB pixels of each image, mono samples of each sound, by id.

    Raises FieldFault for what cannot be read or is too large unpacked, BackendFault where the
    extra `media` is not installed.
    """
    left = MAX_REQUEST_BLOB_BYTES
    media: dict[str, Media] = {}
    for identity, source in sources.items():
        decode = _decode_image if source.kind == "image" else _decode_audio
        media[identity] = decode(identity, source, left)
        left -= len(media[identity].data)
    return media


def _file_of(source: MediaSource) -> BytesIO:
    try:
        return BytesIO(b64decode(source.data, validate=True))
    except (binascii.Error, ValueError):
        raise FieldFault(source.path, "is not valid base64") from None


def _decode_image(identity: str, source: MediaSource, most: int) -> Media:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise _not_installed("images") from None
    try:
        with Image.open(_file_of(source), formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height * 3 > most:
                raise FieldFault(source.path, _too_large(source, most))
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                # what is seen through is paper, not what the file happens to hold there
                layer = upright.convert("RGBA")
                paper = Image.new("RGBA", layer.size, "white")
                upright = Image.alpha_composite(paper, layer)
            pixels = upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise FieldFault(
            source.path, f"is no image that can be read; it must be {', '.join(IMAGE_FORMATS)}"
        ) from None
    attachment = ImageAttachment(identity, pixels.width, pixels.height)
    return Media(attachment, pixels.tobytes())


def _decode_audio(identity: str, source: MediaSource, most: int) -> Media:
    try:
        import soundfile
    except ImportError:
        raise _not_installed("audio") from None
    try:
        with soundfile.SoundFile(_file_of(source)) as sound:
            if sound.frames * sound.channels * _SAMPLE_BYTES > most:
                raise FieldFault(source.path, _too_large(source, most))
            samples = sound.read(dtype="float32", always_2d=True)
            rate = sound.samplerate
    except (soundfile.LibsndfileError, ValueError, RuntimeError):
        raise FieldFault(
            source.path, "is no sound that can be read; it must be WAV or MP3"
        ) from None
    if not len(samples):
        raise FieldFault(source.path, "is a sound of no length")
    mono = samples.mean(axis=1).astype("<f4")
    return Media(AudioAttachment(identity, rate), mono.tobytes())


def _too_large(source: MediaSource, most: int) -> str:
    return f"this {source.kind} takes more than the {most} bytes that are left of one request's"


def _not_installed(what: str) -> BackendFault:
    return BackendFault(
        f"this daemon lacks what {what} need; install `inferd[media]`",
        ErrorCode.ATTACHMENT_UNSUPPORTED,
    )
