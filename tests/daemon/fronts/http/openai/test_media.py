"""Files in base64 as backends take them: pixels that stand upright, one channel of sound."""

import struct
from base64 import b64encode
from io import BytesIO
from typing import Literal

import pytest
import soundfile
from PIL import Image

from inferd_daemon.fronts.http.openai import media
from inferd_daemon.fronts.http.openai.chat_messages import MediaSource
from inferd_daemon.fronts.http.openai.json_body import FieldFault
from inferd_daemon.fronts.http.openai.media import decode_media
from inferd_proto import AudioAttachment, ImageAttachment

RED, WHITE = b"\xff\x00\x00", b"\xff\xff\xff"


def source(kind: Literal["image", "audio"], data: bytes) -> dict[str, MediaSource]:
    """One attachment `a`."""
    return {"a": MediaSource(kind, b64encode(data).decode(), "messages[0].content[0]")}


def image_file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """As a file."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_pixels(kind: str) -> None:
    """Rows from the top, three bytes each."""
    image = Image.new("RGB", (3, 2), "red")
    decoded = decode_media(source("image", image_file(image, kind, **lossless(kind))))["a"]
    assert decoded.attachment == ImageAttachment("a", 3, 2)
    assert decoded.data == RED * 6


def lossless(kind: str) -> dict[str, object]:
    """What keeps colours as they are."""
    return {"lossless": True} if kind == "WEBP" else {}


def test_what_is_seen_through_is_white() -> None:
    """Not whatever colour the file holds there."""
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    decoded = decode_media(source("image", image_file(image)))["a"]
    assert decoded.data == WHITE + RED


def test_a_photograph_stands_upright() -> None:
    """Cameras say in the file how they were held."""
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    decoded = decode_media(source("image", image_file(image, "JPEG", exif=exif)))["a"]
    assert decoded.attachment == ImageAttachment("a", 2, 4)


def test_sound_becomes_one_channel() -> None:
    """The mean of those that there are, as float32."""
    file = BytesIO()
    soundfile.write(file, [[0.5, -0.5], [0.25, 0.75]], 16_000, format="WAV", subtype="FLOAT")
    decoded = decode_media(source("audio", file.getvalue()))["a"]
    assert decoded.attachment == AudioAttachment("a", 16_000)
    assert decoded.data == struct.pack("<2f", 0.0, 0.5)


@pytest.mark.parametrize("kind", ["image", "audio"])
@pytest.mark.parametrize("data", [b"", b"no file at all", b"\x89PNG\r\n\x1a\n", b"RIFF1234WAVE"])
def test_what_is_no_file_is_refused(kind: Literal["image", "audio"], data: bytes) -> None:
    """With the place where it stood."""
    with pytest.raises(FieldFault) as caught:
        decode_media(source(kind, data))
    assert caught.value.param == "messages[0].content[0]"


def test_what_is_no_base64_is_refused() -> None:
    """Before anything looks at it."""
    with pytest.raises(FieldFault, match="base64"):
        decode_media({"a": MediaSource("image", "!!!", "p")})


def test_a_file_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size that it claims: of all files together."""
    monkeypatch.setattr(media, "MAX_REQUEST_BLOB_BYTES", 30)
    small = source("image", image_file(Image.new("RGB", (3, 3))))["a"]
    assert decode_media({"a": small})["a"].attachment == ImageAttachment("a", 3, 3)
    with pytest.raises(FieldFault, match="3 bytes that are left"):
        decode_media({"a": small, "b": small})
    file = BytesIO()
    soundfile.write(file, [0.0] * 8, 8000, format="WAV")
    with pytest.raises(FieldFault, match="30 bytes"):
        decode_media(source("audio", file.getvalue()))


def test_other_formats_are_not_even_tried() -> None:
    """Pillow opens dozens, some of them programs."""
    with pytest.raises(FieldFault, match="PNG"):
        decode_media(source("image", image_file(Image.new("RGB", (2, 2)), "TIFF")))
