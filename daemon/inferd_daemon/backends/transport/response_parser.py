"""One HTTP/1.1 response, from bytes to head and body; llhttp does the parsing.

Thinks only: it never reads a socket. It must not let a peer make it hold more than the head's
limit and what one `feed` brought.
"""

import httptools
import httpx

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers, interim responses included. llhttp itself sets no limit."""
MAX_FRAMING_BYTES = 64 * 1024
"""Between two pieces of the body, and behind it: sizes and extensions of chunks, trailers."""

Header = tuple[bytes, bytes]


class ResponseParser:
    """Feed it what the socket brought; take the body from `body`, and clear it.

    `complete` says that the whole response was seen, `reusable` that the connection may carry
    another one, `failure` what broke the body: the pieces before it still count.
    """

    __slots__ = (
        "_bytes_between",
        "_delimited",
        "_head_only",
        "_parser",
        "body",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "on_body",
        "reason",
        "reusable",
        "status",
    )

    def __init__(self, *, head_only: bool = False) -> None:
        """`head_only` for the answer to HEAD, whose headers announce a body that never comes."""
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self.body: list[bytes] = []
        self.head_complete = False
        self.complete = False
        self.reusable = False
        self.failure: httpx.RemoteProtocolError | None = None
        # llhttp calls straight into the list: no Python frame for each chunk of the body.
        self.on_body = self.body.append
        self._head_only = head_only
        self._bytes_between = 0
        self._delimited = False
        # llhttp holds our methods and we hold it: `release` breaks the circle.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def release(self) -> None:
        """Nothing will be fed any more: go without the garbage collector."""
        self._parser = None

    def feed(self, data: bytes) -> None:
        """Take what one receive brought. Raises httpx.RemoteProtocolError for a broken head."""
        assert self._parser is not None, "fed after release"
        pieces, had_head = len(self.body), self.head_complete
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:
                # Bytes behind the response: it stands, but nothing more can be trusted.
                self.reusable = False
                return
            failure = httpx.RemoteProtocolError(f"no valid HTTP/1.1 response: {error}")
            if not self.head_complete:
                raise failure from error
            self.reusable = False
            self.failure = failure
            return
        if len(self.body) > pieces or self.head_complete is not had_head:
            self._bytes_between = 0
        else:
            self._count(len(data))

    def _count(self, size: int) -> None:
        """What came held nothing that anybody waits for."""
        self._bytes_between += size
        if not self.head_complete:
            if self._bytes_between > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError(f"head of more than {MAX_HEAD_BYTES} bytes")
        elif self._bytes_between > MAX_FRAMING_BYTES and not self.complete:
            self.reusable = False
            self.failure = httpx.RemoteProtocolError(
                f"more than {MAX_FRAMING_BYTES} bytes around a chunk of the body"
            )

    def feed_eof(self) -> None:
        """The peer closed. Raises httpx.RemoteProtocolError where the response is not whole."""
        self.reusable = False
        if self.complete:
            return
        if self.head_complete and not self._delimited:
            self.complete = True
            return
        where = "body" if self.head_complete else "head"
        raise httpx.RemoteProtocolError(
            f"connection closed in the middle of the response's {where}"
        )

    # -- called by llhttp ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A second final response behind the first is nobody's."""
        if self.complete:
            raise httpx.RemoteProtocolError("bytes behind the response")

    def on_status(self, data: bytes) -> None:
        """Part of the reason phrase."""
        self.reason += data

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers are dropped, for they come without a limit."""
        if self.head_complete:
            return
        self.headers.append((name, value))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._delimited = True

    def on_headers_complete(self) -> None:
        """The head is whole, unless it was an interim one (1xx)."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            self.reason = b""
            self._delimited = False
            return
        self.head_complete = True
        self.reusable = self._parser.should_keep_alive()
        if self._head_only:
            self.complete = True
            self.reusable = False

    def on_message_complete(self) -> None:
        """The body is whole."""
        self.complete = self.head_complete
