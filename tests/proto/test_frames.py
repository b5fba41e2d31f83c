"""Framing: any split gives the same frames, and no bytes make the reader keep too much."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_proto import (
    MAX_FRAME_BYTES,
    ErrorCode,
    Frame,
    FrameReader,
    FrameType,
    RemoteProtocolError,
    encode_length,
    pack,
)

FRAMES = st.lists(st.builds(Frame, st.sampled_from(FrameType), st.binary(max_size=300)), max_size=6)


def drain(reader: FrameReader) -> list[Frame]:
    frames: list[Frame] = []
    while (frame := reader.next()) is not None:
        frames.append(frame)
    return frames


def stream_of(frames: list[Frame]) -> bytes:
    return b"".join(pack(frame.type, frame.payload or b"") for frame in frames)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(FRAMES, st.lists(st.integers(min_value=0), max_size=12))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[Frame], cuts: list[int]
) -> None:
    reader = FrameReader()
    seen: list[Frame] = []
    for piece in cut(stream_of(frames), cuts):
        reader.feed(piece)
        seen += drain(reader)
    reader.finish()
    assert seen == frames
    assert reader.buffered_bytes == 0


def test_every_split_in_two_and_every_byte_alone() -> None:
    frames = [
        Frame(FrameType.JSON, b"{}"),
        Frame(FrameType.BLOB, bytes(130)),
        Frame(FrameType.MSGPACK, b""),
        Frame(FrameType.BLOB, b"x" * 127),
    ]
    data = stream_of(frames)
    for position in range(len(data) + 1):
        reader = FrameReader()
        reader.feed(data[:position])
        seen = drain(reader)
        reader.feed(data[position:])
        assert seen + drain(reader) == frames
    reader = FrameReader()
    seen = []
    for position in range(len(data)):
        reader.feed(data[position : position + 1])
        seen += drain(reader)
    assert seen == frames


@given(
    st.lists(st.binary(max_size=40), max_size=20),
    st.integers(min_value=0, max_value=64),
    st.booleans(),
)
def test_garbage_ends_in_a_typed_error_and_is_never_hoarded(
    pieces: list[bytes], cap: int, keeps: bool
) -> None:
    reader = FrameReader(max_frame_bytes=cap, admit=lambda _type, _length: keeps)
    error = read_all(reader, pieces, cap=cap, keeps=keeps)
    if error is not None:
        assert error.close
        assert error.code in (ErrorCode.FRAME_TOO_LARGE, ErrorCode.INVALID_REQUEST)


def read_all(
    reader: FrameReader, pieces: list[bytes], *, cap: int, keeps: bool
) -> RemoteProtocolError | None:
    try:
        for piece in pieces:
            reader.feed(piece)
            for frame in drain(reader):
                assert (frame.payload is not None) is keeps
                assert len(frame.payload or b"") <= cap
            assert reader.buffered_bytes <= (max(cap, 5) if keeps else 5)
        reader.finish()
    except RemoteProtocolError as error:
        return error
    return None


@given(st.integers(min_value=0, max_value=2**35 - 1))
def test_a_length_is_shortest_leb128(length: int) -> None:
    data = encode_length(length)
    assert sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(data)) == length
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]
    assert len(data) == 1 or data[-1] != 0


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"\xff\xff\xff\xff\xff", ErrorCode.INVALID_REQUEST, "more than 5 bytes"),
        (b"\x80\x80\x80\x80\x80\x00", ErrorCode.INVALID_REQUEST, "more than 5 bytes"),
        (b"\x81\x80\x80\x20", ErrorCode.FRAME_TOO_LARGE, "67108865"),
        (b"\xff\xff\xff\xff\x7f", ErrorCode.FRAME_TOO_LARGE, "over the cap of 67108864"),
        (b"\x00\x00", ErrorCode.INVALID_REQUEST, "unknown type 0x00"),
        (b"\x02\x04{}", ErrorCode.INVALID_REQUEST, "unknown type 0x04"),
        (b"\x05\xff", ErrorCode.INVALID_REQUEST, "unknown type 0xff"),
    ],
)
def test_a_bad_header_is_refused_as_soon_as_it_is_seen(
    data: bytes, code: ErrorCode, words: str
) -> None:
    reader = FrameReader()
    reader.feed(data)
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        reader.next()
    assert caught.value.code is code
    assert caught.value.close


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80", b"\x80\x80\x80\x20", b"\x05", b"\x05\x01a"])
def test_a_stream_that_ends_inside_a_frame_is_malformed(data: bytes) -> None:
    reader = FrameReader()
    reader.feed(data)
    assert reader.next() is None
    with pytest.raises(RemoteProtocolError, match="inside a frame"):
        reader.finish()


def test_a_stream_that_ends_between_frames_is_clean() -> None:
    reader = FrameReader()
    reader.finish()
    reader.feed(pack(FrameType.JSON, b"{}"))
    assert reader.next() == (FrameType.JSON, b"{}")
    reader.finish()


def test_the_cap_itself_is_allowed_and_one_more_is_not() -> None:
    reader = FrameReader()
    reader.feed(encode_length(MAX_FRAME_BYTES) + b"\x02")
    assert reader.next() is None
    with pytest.raises(ValueError, match="over the cap"):
        pack(FrameType.BLOB, bytes(MAX_FRAME_BYTES + 1))


def test_an_announced_length_costs_no_memory() -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(encode_length(MAX_FRAME_BYTES) + b"\x02")
        assert reader.next() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_a_dropped_payload_is_read_past_without_memory() -> None:
    reader = FrameReader(admit=lambda _type, _length: False)
    piece = bytes(64 * 1024)
    tracemalloc.start()
    try:
        reader.feed(encode_length(16 * 1024 * 1024) + b"\x02")
        for _ in range(256):
            assert reader.next() is None
            reader.feed(piece)
        assert reader.next() == (FrameType.BLOB, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_a_frame_behind_a_dropped_one_is_kept() -> None:
    reader = FrameReader(admit=lambda type_, _length: type_ is not FrameType.BLOB)
    reader.feed(pack(FrameType.BLOB, bytes(1000)) + pack(FrameType.JSON, b"[]"))
    assert drain(reader) == [(FrameType.BLOB, None), (FrameType.JSON, b"[]")]


def test_what_was_read_is_let_go() -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(pack(FrameType.BLOB, bytes(4 * 1024 * 1024)))
        assert reader.next() is not None
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 64 * 1024


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_buffer_is_food(kind: type[bytearray] | type[memoryview]) -> None:
    reader = FrameReader()
    reader.feed(kind(pack(FrameType.JSON, b"{}")))
    assert reader.next() == (FrameType.JSON, b"{}")
