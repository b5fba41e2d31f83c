"""The answering side of a connection that speaks JSON lines (wire.md section 7).

On `infer.embed.sock` and `infer.rerank.sock`: one kind of request, one line each, one line in
answer. It looks like a `ServerConnection` to whoever serves it, and never touches a socket, a clock
or a task.
"""

from .account import FREE_MESSAGE_BYTES, Account
from .codec import encode
from .connection import ServerConnection
from .errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from .events import Closed, Event, Refused, RequestReceived
from .frames import MAX_FRAME_BYTES, FrameType
from .messages import Error
from .messages.answers import Answer, AnswerEmbed, AnswerRerank
from .messages.decoding import LineOp, decode_line

MAX_LINE_BYTES = MAX_FRAME_BYTES

_ANSWERS = {"embed": AnswerEmbed, "rerank": AnswerRerank}


class LineConnection(ServerConnection):
    """Requests of the kind `op` alone; whoever serves it answers one before it takes the next.

    Long lines are charged to `account` as they come.
    """

    def __init__(
        self, op: LineOp, *, account: Account | None = None, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        super().__init__(account=account)
        self._op: LineOp = op
        self._account = account
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._searched = 0  # so far there is no end of a line in the buffer
        self._charged = 0

    def __repr__(self) -> str:
        return f"<LineConnection {self._op} {'closed' if self._closed else 'open'}>"

    @property
    def at_rest(self) -> bool:
        """True between two lines."""
        return not self._buffer

    def close(self) -> None:
        """Forget what was received; nothing comes of it any more."""
        self._closed = True
        self._buffer.clear()
        self._searched = 0
        self._give_back()

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer; b"" is the end of its stream."""
        if self._closed:
            return
        if data:
            self._buffer += data
        else:
            self._eof = True

    def next_event(self) -> Event | None:
        """What the received bytes mean, one event at a time; None when more are needed."""
        while not self._closed:
            try:
                line = self._next_line()
                if line is None:
                    return self._at_end() if self._eof else None
                if line.strip():
                    return self._on_line(line)
            except RemoteProtocolError as error:
                return self._refuse(error)
        return None

    def send(self, answer: Answer) -> bytes:
        """`answer` as a line. Raises LocalProtocolError for one of another kind."""
        if not isinstance(answer, _ANSWERS[self._op]):
            raise LocalProtocolError(f"{type(answer).__name__} answers no {self._op}")
        return encode(FrameType.JSON, answer) + b"\n"

    def _next_line(self) -> bytes | None:
        """Without its end. Raises RemoteProtocolError where it is too long, or has no room."""
        end = self._buffer.find(b"\n", self._searched)
        length = len(self._buffer) if end < 0 else end
        if length > self._max_line_bytes:
            raise RemoteProtocolError(
                f"a line of more than {self._max_line_bytes} bytes",
                code=ErrorCode.FRAME_TOO_LARGE,
                close=True,
            )
        self._charge(length)
        if end < 0:
            self._searched = length
            return None
        line = bytes(memoryview(self._buffer)[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _charge(self, length: int) -> None:
        if self._account is None or length <= max(self._charged, FREE_MESSAGE_BYTES):
            return
        if not self._account.take(length - self._charged):
            raise RemoteProtocolError(
                "no room for more bytes of requests: the daemon holds at most"
                f" {self._account.limit} in memory (max_request_bytes_in_memory); try again when"
                " other requests have ended, or send less at once",
                code=ErrorCode.QUEUE_FULL,
                close=True,
            )
        self._charged = length

    def _give_back(self) -> None:
        charged, self._charged = self._charged, 0
        if charged and self._account is not None:
            self._account.give_back(charged)

    def _on_line(self, line: bytes) -> RequestReceived:
        try:
            request = decode_line(self._op, line)
        except RemoteProtocolError:
            self._give_back()
            raise
        charged, self._charged = self._charged, 0
        return RequestReceived(request.id, request, (), charged)

    def _refuse(self, error: RemoteProtocolError) -> Refused:
        if error.close:
            self.close()
        data = self.send(Error(error.request_id, error.code, error.message))
        return Refused(error.request_id, error.code, error.message, data, error.close)

    def _at_end(self) -> Closed:
        clean = not self._buffer
        self.close()
        return Closed(clean)
