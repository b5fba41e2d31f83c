"""One HTTP/1 request as it comes in: bytes to heads and bodies, by llhttp (httptools). No I/O.

Counts what a head may cost while it is still coming, and what comes around a body: a bomb is
refused before it is held.
"""

import re
from collections import deque

import httptools

MAX_HEADERS = 100
MAX_TARGET_BYTES = 8192
AROUND_BYTES = 16
"""For each byte of a body: a chunk of one byte takes five more, and few clients give extensions."""
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([/?]?.*)", re.IGNORECASE | re.DOTALL)
Headers = list[tuple[bytes, bytes]]


class BadRequest(Exception):
    """What comes is not a request that anyone here could answer; the connection must end."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Incoming:
    """The head, and as much of the body as nobody has taken yet."""

    __slots__ = (
        "body",
        "complete",
        "content_length",
        "expects_continue",
        "headers",
        "held",
        "keep_alive",
        "method",
        "received",
        "target",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = "1.1"
        self.headers: Headers = []
        self.keep_alive = True
        self.content_length: int | None = None
        """As announced; None: none, or chunked."""
        self.expects_continue = False
        self.body: deque[bytes] = deque()
        self.held = 0
        """Bytes in `body`."""
        self.received = 0
        """Bytes of the body so far."""
        self.complete = False

    def take_origin_form(self) -> None:
        """A target that is a whole URL, as it is for proxies: its host counts, not the header's."""
        found = _ABSOLUTE.fullmatch(self.target)
        if found is None:
            return
        authority, rest = found.groups()
        self.target = rest if rest.startswith(b"/") else b"/" + rest
        self.headers = [
            (name, authority if name == b"host" else value) for name, value in self.headers
        ]

    def take(self) -> bytes:
        """What there is of the body."""
        data = self.body.popleft() if len(self.body) == 1 else b"".join(self.body)
        self.body.clear()
        self.held = 0
        return data


class RequestParser:
    """Feeds on the bytes of a connection; `arrived` fills with requests whose head is whole.

    The last of them may still be incomplete: more of its body comes with more bytes.
    """

    def __init__(self, max_head_bytes: int) -> None:
        self.arrived: deque[Incoming] = deque()
        self.began = False
        """A request has begun whose head is not whole."""
        self.receiving: Incoming | None = None
        """The request whose body is coming in."""
        self._max_head_bytes = max_head_bytes
        self._head_bytes = 0
        self._head_goes_on = 0
        self._around = self._between = 0
        self._incoming = Incoming()
        self._parser = httptools.HttpRequestParser(self)

    @property
    def at_rest(self) -> bool:
        """Between two requests."""
        return not self.began and self.receiving is None

    def feed(self, data: bytes) -> None:
        """Raises BadRequest."""
        if self.began:  # an endless name or value has no end to be counted at
            self._head_goes_on += len(data)
        receiving = self.receiving
        received = 0 if receiving is None else receiving.received
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, BadRequest):
                raise cause from None
            raise
        except httptools.HttpParserUpgrade as error:
            self._stay(data[error.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            raise BadRequest(400, "the request's method is none of HTTP") from None
        except httptools.HttpParserError:
            raise BadRequest(400, "this is not a valid HTTP/1.1 request") from None
        if self.began and self._head_goes_on > self._max_head_bytes:
            raise _head_too_large(self._max_head_bytes)
        if receiving is not None and self.receiving is receiving:
            self._count_around(receiving, len(data), receiving.received - received)

    def _count_around(self, receiving: Incoming, size: int, body: int) -> None:
        """What frames a body, and trailers: the parser keeps a trailer until it is whole."""
        self._around += size - body
        self._between = 0 if body else self._between + size
        allowed = self._max_head_bytes
        if self._between > allowed or self._around > allowed + AROUND_BYTES * receiving.received:
            raise BadRequest(431, f"over {allowed} bytes of trailers, or of chunk extensions")

    def _stay(self, rest: bytes) -> None:
        """The client offers another protocol, and is answered in this one: the parser, which has
        stopped at the offer, is given the request again without it."""
        offering = self.arrived.pop()
        lines = [
            b"%b: %b\r\n" % header
            for header in offering.headers
            if header[0] not in (b"upgrade", b"connection", b"http2-settings")
        ]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (offering.method, offering.target, b"".join(lines))
        self._parser = httptools.HttpRequestParser(self)
        self.feed(head + rest)

    # -- called by the parser -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._incoming = Incoming()
        self._head_bytes = self._head_goes_on = 0
        self.began = True

    def on_url(self, url: bytes) -> None:
        incoming = self._incoming
        incoming.target += url
        if len(incoming.target) > MAX_TARGET_BYTES:
            raise BadRequest(414, f"the request's target is over {MAX_TARGET_BYTES} bytes")
        self._charge(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._charge(len(name) + len(value) + 4)
        if self.receiving is not None:
            return  # a trailer: nobody here looks at those
        incoming = self._incoming
        name = name.lower()
        if len(incoming.headers) >= MAX_HEADERS:
            raise BadRequest(431, f"the request has over {MAX_HEADERS} headers")
        if name == b"content-length":
            incoming.content_length = int(value)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise BadRequest(417, "the only expectation that is met is 100-continue")
            incoming.expects_continue = True
        incoming.headers.append((name, value))

    def on_headers_complete(self) -> None:
        incoming, parser = self._incoming, self._parser
        incoming.method = parser.get_method()
        incoming.version = parser.get_http_version()
        incoming.keep_alive = parser.should_keep_alive()
        incoming.take_origin_form()
        if incoming.method not in METHODS:
            raise BadRequest(405, "this method is not served")
        if incoming.version not in ("1.1", "1.0"):
            raise BadRequest(505, "this server speaks HTTP/1.1 only")
        self.began = False
        self.receiving = incoming
        self._around = self._between = 0
        self.arrived.append(incoming)

    def on_body(self, data: bytes) -> None:
        incoming = self._incoming
        incoming.body.append(data)
        incoming.held += len(data)
        incoming.received += len(data)

    def on_message_complete(self) -> None:
        self._incoming.complete = True
        self.receiving = None

    def _charge(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._max_head_bytes:
            raise _head_too_large(self._max_head_bytes)


def _head_too_large(limit: int) -> BadRequest:
    return BadRequest(431, f"the request's head is over {limit} bytes")
