"""HTTP responses from bytes: whole, cut, endless, and followed by rubbish."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.transport import MAX_FRAMING_BYTES, MAX_HEAD_BYTES, ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

RESPONSES: dict[str, tuple[bytes, int, bytes, bool]] = {
    # what it is: bytes, status, body, whether the connection may be kept
    "length": (HEAD + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", 200, b"hello", True),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", 200, b"hello", True),
    "empty": (HEAD + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", 204, b"", True),
    "close": (HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "interim first": (
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok",
        200,
        b"ok",
        True,
    ),
    "rubbish behind": (HEAD + b"Content-Length: 2\r\n\r\nok!!", 200, b"ok", False),
    "another behind": (
        HEAD + b"Content-Length: 2\r\n\r\nok" + HEAD + b"Content-Length: 2\r\n\r\nno",
        200,
        b"ok",
        False,
    ),
}


@pytest.mark.parametrize(("data", "status", "body", "reusable"), RESPONSES.values(), ids=RESPONSES)
def test_whole_responses(data: bytes, status: int, body: bytes, reusable: bool) -> None:
    parser = ResponseParser()
    parser.feed(data)
    assert parser.complete
    assert (parser.status, b"".join(parser.body), parser.reusable) == (status, body, reusable)


@given(st.sampled_from(sorted(RESPONSES)), st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same(name: str, cuts: list[int]) -> None:
    data, status, body, reusable = RESPONSES[name]
    edges = sorted(cut % (len(data) + 1) for cut in cuts)
    parser = ResponseParser()
    for start, end in zip([0, *edges], [*edges, len(data)], strict=True):
        parser.feed(data[start:end])
    assert parser.complete
    assert (parser.status, b"".join(parser.body), parser.reusable) == (status, body, reusable)


def test_headers_and_reason() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 100 Go on\r\nA: b\r\n\r\nHTTP/1.1 404 Not There\r\nC: d\r\n")
    parser.feed(b"E: f\r\nContent-Length: 0\r\n\r\n")
    assert parser.reason == b"Not There"
    assert parser.headers == [(b"C", b"d"), (b"E", b"f"), (b"Content-Length", b"0")]


def test_a_body_without_length_ends_with_the_connection() -> None:
    parser = ResponseParser()
    parser.feed(HEAD + b"\r\nhel")
    parser.feed(b"lo")
    assert not parser.complete
    parser.feed_eof()
    assert parser.complete
    assert not parser.reusable
    assert b"".join(parser.body) == b"hello"


def test_the_answer_to_head_has_no_body() -> None:
    parser = ResponseParser(head_only=True)
    parser.feed(HEAD + b"Content-Length: 5\r\n\r\n")
    assert parser.complete


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        HEAD,
        HEAD + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
def test_a_cut_response_is_an_error(data: bytes) -> None:
    parser = ResponseParser()
    parser.feed(data)
    with pytest.raises(httpx.RemoteProtocolError, match="closed in the middle"):
        parser.feed_eof()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    ],
)
def test_what_is_no_response_is_an_error(data: bytes) -> None:
    parser = ResponseParser()
    try:
        parser.feed(data)
    except httpx.RemoteProtocolError:
        assert not parser.head_complete
    else:
        assert parser.failure is not None
        assert not parser.reusable


@pytest.mark.parametrize(
    "piece", [b"A: " + b"b" * 1000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_head_is_bounded(piece: bytes) -> None:
    parser = ResponseParser()
    if piece.startswith(b"A"):
        parser.feed(HEAD)

    def feed_for_ever() -> None:
        for _ in range(MAX_HEAD_BYTES):
            parser.feed(piece)

    with pytest.raises(httpx.RemoteProtocolError, match="head of more than"):
        feed_for_ever()


def test_trailers_are_not_kept() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"0\r\n")
    for _ in range(60):
        parser.feed(b"A: " + b"b" * 1000 + b"\r\n")
    assert parser.failure is None
    assert len(parser.headers) == 1


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"0\r\n", b"A: " + b"b" * 1000 + b"\r\n"),
        (b"0\r\nA: ", b"b" * 1000),
        (b"5;", b"x" * 1000),
        (b"", b"0" * 1000),
    ],
    ids=["trailers", "one trailer", "an extension", "a size"],
)
def test_what_is_no_body_is_bounded(begin: bytes, piece: bytes) -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"3\r\nhel\r\n" + begin)
    fed = 0
    while parser.failure is None and fed < 2 * MAX_FRAMING_BYTES:
        parser.feed(piece)
        fed += len(piece)
    assert parser.failure is not None
    assert not parser.reusable
    assert fed <= MAX_FRAMING_BYTES + len(piece)
    assert parser.body == [b"hel"]


def test_the_bound_is_for_each_piece_of_the_body() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED)
    for _ in range(3):
        parser.feed(b"1;" + b"x" * (MAX_FRAMING_BYTES - 100))
        parser.feed(b"\r\na\r\n")
    parser.feed(b"0\r\n\r\n")
    assert parser.complete
    assert parser.reusable
    assert b"".join(parser.body) == b"aaa"


@given(st.binary(max_size=300))
def test_rubbish_raises_only_what_it_says(data: bytes) -> None:
    parser = ResponseParser()
    try:
        parser.feed(data)
        parser.feed_eof()
    except httpx.RemoteProtocolError:
        pass
    else:
        assert parser.complete or parser.failure is not None
