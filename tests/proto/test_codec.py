"""What decoding says of a mistake that no rule of ours foresaw."""

import msgspec
import pytest

from inferd_proto import FrameType, LocalProtocolError, RemoteProtocolError, encode
from inferd_proto.codec import MAX_REASON_CHARS, Codec, check_utf8
from inferd_proto.messages import decode_request


class Talkative(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise ValueError("never ends " * 100)


def test_a_reason_has_an_end() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Codec(Talkative).decode(FrameType.JSON, b'{"x":1}')
    assert caught.value.message.endswith("…")
    assert len(caught.value.message) == MAX_REASON_CHARS + 1


@pytest.mark.parametrize(
    ("frame_type", "payload", "words"),
    [
        (FrameType.JSON, b"", "the message is empty"),
        (FrameType.MSGPACK, b"", "the message is empty"),
        (FrameType.JSON, b'{"a":', "the message ends in the middle of a value"),
        (FrameType.MSGPACK, b"\x81\xa1a", "the message ends in the middle of a value"),
        (FrameType.JSON, b"[]", "`message`: Expected `object`, got `array`"),
        (FrameType.MSGPACK, b"\x05", "`message`: Expected `object`, got `int`"),
    ],
)
def test_what_is_no_message_at_all(frame_type: FrameType, payload: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(frame_type, payload)
    assert caught.value.message == words


@pytest.mark.parametrize("at", [65_534, 65_535, 65_536, 131_071])
def test_a_character_may_lie_across_two_pieces_of_a_long_payload(at: int) -> None:
    check_utf8(b"a" * at + "€".encode() + b"b" * 10)
    with pytest.raises(RemoteProtocolError, match="not valid UTF-8"):
        check_utf8(b"a" * at + "€".encode()[:2] + b"b" * 10)
    with pytest.raises(RemoteProtocolError, match="not valid UTF-8"):
        check_utf8(b"a" * at + "€".encode()[:2])


@pytest.mark.parametrize("frame_type", [FrameType.JSON, FrameType.MSGPACK])
def test_what_cannot_be_encoded_is_our_own_fault(frame_type: FrameType) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (object(), "\ud800", deep):
        with pytest.raises(LocalProtocolError, match="cannot be encoded"):
            encode(frame_type, value)
    while deep:  # let go of one level at a time
        deep = deep.pop()  # type: ignore[assignment]
