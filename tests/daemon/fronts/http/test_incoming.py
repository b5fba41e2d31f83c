"""Bytes to requests: the same however they are cut, and what is none is refused early."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.fronts.http.incoming import BadRequest, Incoming, RequestParser

REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    b"POST /a?b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: y\r\n\r\n"
    b"POST /d HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    b"GET /last HTTP/1.0\r\n\r\n"
)


def parse(*pieces: bytes, max_head_bytes: int = 4096) -> list[Incoming]:
    parser = RequestParser(max_head_bytes)
    for piece in pieces:
        parser.feed(piece)
    assert parser.at_rest
    return list(parser.arrived)


@given(st.lists(st.integers(1, len(REQUESTS)), max_size=12))
def test_cut_anywhere(cuts: list[int]) -> None:
    edges = sorted({0, len(REQUESTS), *cuts})
    found = parse(*(REQUESTS[a:b] for a, b in pairwise(edges)))
    assert [(one.method, one.target, one.take(), one.complete) for one in found] == [
        (b"GET", b"/health", b"", True),
        (b"POST", b"/a?b", b"hello", True),
        (b"POST", b"/c", b"abcde", True),
        (b"POST", b"/d", b"hi", True),
        (b"GET", b"/last", b"", True),
    ]
    assert [one.keep_alive for one in found] == [True, True, True, True, False]
    assert found[0].headers == [(b"host", b"localhost")]
    assert found[1].content_length == 5
    assert found[2].content_length is None


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST /"]))
def test_anything_at_all(data: bytes, begins: bytes) -> None:
    """Parsed or refused, and never more of a head than is allowed."""
    parser = RequestParser(64)
    with suppress(BadRequest):
        parser.feed(begins + data)
    assert all(
        sum(len(name) + len(value) for name, value in one.headers) <= 64 for one in parser.arrived
    )


@pytest.mark.parametrize("size", [1, 100, 4096])
def test_an_endless_head_is_refused_in_time(size: int) -> None:
    parser = RequestParser(4096)
    parser.feed(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(4096 // size):
        parser.feed(b"a" * size)
    with pytest.raises(BadRequest) as caught:
        parser.feed(b"a" * size)
    assert caught.value.status == 431


def test_a_head_at_its_limit_is_taken() -> None:
    head = b"GET / HTTP/1.1\r\nX: " + b"a" * 4000 + b"\r\n\r\n"
    assert len(parse(head)) == 1
    assert len(parse(*(head[i : i + 7] for i in range(0, len(head), 7)))) == 1


def test_trailers_are_counted_and_not_shown() -> None:
    start = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    (request,) = parse(start + b"Authorization: Bearer x\r\n\r\n")
    assert request.headers == [(b"transfer-encoding", b"chunked")]
    with pytest.raises(BadRequest):
        parse(start + b"X: " + b"a" * 5000 + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "host", "becomes"),
    [
        (b"http://box.lan:1/a?b", b"box.lan:1", b"/a?b"),
        (b"HTTPS://box.lan", b"box.lan", b"/"),
        (b"http://box.lan?x", b"box.lan", b"/?x"),
        (b"/http://box.lan/", b"localhost", b"/http://box.lan/"),
    ],
)
def test_a_whole_url_as_target(target: bytes, host: bytes, becomes: bytes) -> None:
    (request,) = parse(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    assert (request.target, request.headers) == (becomes, [(b"host", host)])


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begins",
    [b"0\r\nX", b"0\r\nX: ", b"1;", b"1;a=", b"10000\r\n" + b"b" * 0x10000 + b"\r\n0\r\nX"],
    ids=["name", "value", "extension", "its value", "after a body"],
)
@pytest.mark.parametrize("size", [1, 100, 4096])
def test_endless_framing_is_refused_in_time(begins: bytes, size: int) -> None:
    parser = RequestParser(4096)
    parser.feed(CHUNKED)
    parser.feed(begins)
    taken = 0
    with pytest.raises(BadRequest) as caught:  # noqa: PT012 (which of them is refused is counted)
        while taken < 5 * 4096:
            parser.feed(b"a" * size)
            taken += size
    assert caught.value.status == 431
    assert taken <= 4096


def test_small_chunks_are_taken_and_long_extensions_are_not() -> None:
    for chunk, refused in ((b"1\r\na\r\n", False), (b"1;%b\r\na\r\n" % (b"x" * 60), True)):
        parser = RequestParser(4096)
        parser.feed(CHUNKED)
        seen = False
        try:
            for _ in range(1000):
                parser.feed(chunk)
        except BadRequest as error:
            seen = error.status == 431
        assert seen is refused


def test_a_body_is_known_while_it_comes() -> None:
    parser = RequestParser(4096)
    parser.feed(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
    request = parser.arrived[0]
    assert parser.receiving is request
    assert (request.take(), request.held, request.received, request.complete) == (
        b"ab",
        0,
        2,
        False,
    )
    parser.feed(b"cd")
    assert (request.take(), request.complete, parser.at_rest) == (b"cd", True, True)
