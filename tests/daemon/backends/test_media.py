"""Attachments as files: what was in them comes out again."""

import io
from array import array
from base64 import b64decode
from collections.abc import Callable

import pytest
import soundfile
from PIL import Image

from inferd_daemon.backends.base import Media
from inferd_daemon.backends.media import encode_media, encode_png, encode_wav
from inferd_daemon.errors import CallerFault
from inferd_proto import AudioAttachment, ErrorCode, ImageAttachment, VideoAttachment


def test_pixels_survive_as_png() -> None:
    pixels = bytes(range(2 * 3 * 3))
    image = Image.open(io.BytesIO(encode_png(ImageAttachment("i", 2, 3), pixels)))
    assert (image.format, image.size, image.mode) == ("PNG", (2, 3), "RGB")
    assert image.tobytes() == pixels


def test_samples_survive_as_wav() -> None:
    samples = array("f", [0.0, 0.5, -0.5, 1.0, -1.0, 7.0, -7.0])
    wav = encode_wav(AudioAttachment("a", 16_000), samples.tobytes())
    found, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 16_000
    assert found.tolist() == pytest.approx([0, 0.5, -0.5, 1, -1, 1, -1], abs=1e-4)


def test_parts() -> None:
    media = {
        "i": Media(ImageAttachment("i", 1, 1), b"abc"),
        "a": Media(AudioAttachment("a", 8_000), bytes(8)),
    }
    parts = encode_media(media)
    image_url = parts["i"]["image_url"]
    assert isinstance(image_url, dict)
    scheme, _, data = image_url["url"].partition(",")
    assert scheme == "data:image/png;base64"
    assert b64decode(data).startswith(b"\x89PNG")
    audio = parts["a"]["input_audio"]
    assert isinstance(audio, dict)
    assert audio["format"] == "wav"
    assert b64decode(audio["data"]).startswith(b"RIFF")


@pytest.mark.parametrize(
    ("encode", "code"),
    [
        (lambda: encode_png(ImageAttachment("i", 2, 2), b"short"), ErrorCode.INVALID_REQUEST),
        (lambda: encode_wav(AudioAttachment("a", 8_000), b"12345"), ErrorCode.INVALID_REQUEST),
        (lambda: encode_wav(AudioAttachment("a", 8_000), b""), ErrorCode.INVALID_REQUEST),
        (
            lambda: encode_media({"v": Media(VideoAttachment("v"), b"")}),
            ErrorCode.ATTACHMENT_UNSUPPORTED,
        ),
    ],
)
def test_what_does_not_fit_is_the_callers_fault(
    encode: Callable[[], object], code: ErrorCode
) -> None:
    with pytest.raises(CallerFault) as caught:
        encode()
    assert caught.value.code == code
