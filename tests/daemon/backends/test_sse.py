"""Server-sent events: the same payloads however the stream is split, and bounds on all of it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.sse import SseOverflowError, SseParser

STREAMS = {
    "plain": (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
    "no space": (b"data:one\n\n", [b"one"]),
    "only one space goes": (b"data:  one\n\n", [b" one"]),
    "crlf": (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
    "cr": (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
    "mixed line ends": (b"data: one\r\n\ndata: two\n\r\n", [b"one", b"two"]),
    "several lines": (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
    "comment": (b": ping\n\ndata: one\n: ping\n\n", [b"one"]),
    "other fields": (b"event: x\nid: 1\nretry: 3\ndata: one\n\n", [b"one"]),
    "blank lines": (b"\n\n\ndata: one\n\n\n\ndata: two\n\n", [b"one", b"two"]),
    "empty data": (b"data:\n\ndata: \n\n", [b"", b""]),
    "event without data": (b"event: x\n\n", []),
    "plain, then comment": (b"data: one\n\n: c\n\ndata: two\n\n", [b"one", b"two"]),
    "line end in the middle": (b"data: one\nevent: x\n\ndata: two\n\n", [b"one", b"two"]),
    "unended": (b"data: one\n\ndata: tw", [b"one"]),
    "byte order mark": (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
    "byte order mark, then a comment": (b"\xef\xbb\xbf: c\r\ndata: one\r\n\r\n", [b"one"]),
    "only one byte order mark goes": (b"\xef\xbb\xbf\xef\xbb\xbfdata: one\n\n", []),
    "no byte order mark": (b"\xef\xbbdata: one\n\ndata: two\n\n", [b"two"]),
    "byte order mark later on": (b"data: one\n\n\xef\xbb\xbfdata: two\n\n", [b"one"]),
    "colons": (b"data: a:b: c\n\n", [b"a:b: c"]),
}


def feed_all(parser: SseParser, pieces: list[bytes]) -> list[bytes]:
    return [payload for piece in pieces for payload in parser.feed(piece)]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(("stream", "payloads"), STREAMS.values(), ids=STREAMS)
def test_payloads(stream: bytes, payloads: list[bytes]) -> None:
    assert feed_all(SseParser(), [stream]) == payloads


@pytest.mark.parametrize(("stream", "payloads"), STREAMS.values(), ids=STREAMS)
def test_a_byte_at_a_time_gives_the_same(stream: bytes, payloads: list[bytes]) -> None:
    parser = SseParser()
    found = feed_all(parser, [stream[i : i + 1] for i in range(len(stream))])
    # The last line end of a CR stream is only known to be one when the next byte is there.
    assert found == payloads


LINES = st.sampled_from(
    [b"data: x", b"data:y", b"data: " + b"z" * 9, b"", b"", b": c", b"event: e", b"junk", b"data"]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])


@given(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    st.lists(st.tuples(LINES, ENDS), max_size=30),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_split_gives_the_same(
    mark: bytes, lines: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    stream = mark + b"".join(line + end for line, end in lines)
    whole, parts = SseParser(), SseParser()
    expected = whole.feed(stream) + whole.feed_eof()
    assert feed_all(parts, split(stream, cuts)) + parts.feed_eof() == expected
    assert parts.dropped == whole.dropped


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=8))
def test_rubbish_never_breaks_it(stream: bytes, cuts: list[int]) -> None:
    whole, parts = SseParser(), SseParser()
    expected = whole.feed(stream) + whole.feed_eof()
    assert feed_all(parts, split(stream, cuts)) + parts.feed_eof() == expected


def test_eof_completes_an_event_that_lacks_its_blank_line() -> None:
    parser = SseParser()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.feed_eof() == [b"[DONE]"]
    assert parser.feed_eof() == []


def test_lines_that_are_no_field_are_counted() -> None:
    parser = SseParser()
    assert parser.feed(b"<html>\ndata: one\nerror: no\n\n: fine\nid\n") == [b"one"]
    assert parser.dropped == 2


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 120 + b"\n\n",
        b"data: " + b"x" * 120,
        b"x" * 120 + b"\n",
        b": " + b"x" * 120 + b"\n\n",
        b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 40 + b"\ndata: " + b"x" * 40 + b"\n",
        b"data:\n" * 120,
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_and_events_are_bounded(stream: bytes, size: int) -> None:
    parser = SseParser(max_event_bytes=100)
    with pytest.raises(SseOverflowError):
        feed_all(parser, [stream[i : i + size] for i in range(0, len(stream), size)])


def test_many_events_may_be_longer_together() -> None:
    parser = SseParser(max_event_bytes=100)
    assert parser.feed(b"data: 0123456789\n\n" * 50) == [b"0123456789"] * 50
