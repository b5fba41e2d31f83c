"""Who waits for which answer on one connection: the client's decisions without its I/O.

Requests go in and become bytes in `outbox`; bytes come in and become answers in the `Mailbox` of
the request they belong to. The two links (`async_link`, `blocking_link`) do the reading, writing
and waiting, and decide nothing. Never locks: its owner calls it from one place at a time.
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

from inferd_proto import (
    Answer,
    AnswerReceived,
    BlockAnswer,
    ClientConnection,
    Closed,
    Error,
    FrameType,
    Item,
    RemoteProtocolError,
    TextDelta,
    ThinkingDelta,
    Token,
    encode,
    is_terminal,
)

from .errors import (
    ClientClosed,
    ConnectionLost,
    InferdError,
    ProtocolViolation,
    StreamOverflow,
    request_failed,
)
from .requests import Build

Encoding = Literal["json", "msgpack"]

MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Of one stream, while another is being read: over a million tokens of text behind, or a stuck
consumer."""

_ANSWER_OVERHEAD = 256
"""What an answer weighs besides its text: about the size of its objects."""

_FRAME_TYPES = {"json": FrameType.JSON, "msgpack": FrameType.MSGPACK}


Undo = Callable[[Answer], Build | None]
"""The request that takes back what an answer granted; None where there is nothing to take back."""


class Mailbox:
    """What has come for one request and was not taken yet."""

    __slots__ = (
        "_answers",
        "abandoned",
        "ended",
        "error",
        "full",
        "id",
        "undo",
        "undoing",
        "weight",
    )

    def __init__(self, request_id: str, undo: Undo | None = None) -> None:
        self.id = request_id
        self.undo = undo
        """What to do about a last answer that nobody took."""
        self.undoing: Mailbox | None = None
        """The request that takes it back."""
        self.ended = False
        """The daemon's last word on the request has come, or none will."""
        self.abandoned = False
        """Nobody will take what still comes."""
        self.error: InferdError | None = None
        self.weight = 0
        """About how many bytes wait to be taken."""
        self.full = False
        """More than the bound was waiting when the last read began."""
        self._answers: deque[Answer] = deque()

    @property
    def settled(self) -> bool:
        """The daemon's last word has come, on what takes the answer back as well."""
        return self.ended and (self.undoing is None or self.undoing.ended)

    @property
    def ready(self) -> bool:
        """True where `take` has something to say."""
        return bool(self._answers) or self.ended or self.error is not None

    def take(self) -> Answer | None:
        """The next answer; None after the last. Raises what ended the request early.

        Only to be called when `ready`.
        """
        if self._answers:
            answer = self._answers.popleft()
            self.weight -= _weight(answer)
            return answer
        if self.error is not None:
            raise self.error
        assert self.ended
        return None

    def put(self, answer: Answer) -> None:
        """Keep an answer until it is taken."""
        self._answers.append(answer)
        self.weight += _weight(answer)

    def end(self, error: InferdError | None = None) -> None:
        """No more answers will come."""
        self.ended = True
        if self.error is None:
            self.error = error

    def abandon(self) -> Answer | None:
        """Drop what is there and what still comes. Returns the last answer, where it was there."""
        self.abandoned = True
        untaken = self._answers[-1] if self.ended and self._answers else None
        self._answers.clear()
        self.weight = 0
        return untaken


class Switchboard:
    """Requests to bytes, bytes to mailboxes."""

    def __init__(
        self, *, encoding: Encoding = "json", max_buffered_bytes: int = MAX_BUFFERED_BYTES
    ) -> None:
        self.outbox: deque[memoryview] = deque()
        """Bytes to write, in order; tell `sent` how many were."""
        self._connection = ClientConnection(encoding=_FRAME_TYPES[encoding])
        self._max_buffered_bytes = max_buffered_bytes
        self._mailboxes: dict[str, Mailbox] = {}
        self._owed: set[str] = set()
        self._opened = 0
        self._refusal: Error | None = None
        self._lost: Callable[[], InferdError] | None = None

    @property
    def lost(self) -> bool:
        """True once the connection is gone."""
        return self._lost is not None

    @property
    def in_flight(self) -> int:
        """How many requests have no last answer yet."""
        return len(self._mailboxes)

    @property
    def owes(self) -> bool:
        """True while a grant may be on its way that nobody will take, or is being taken back."""
        return bool(self._owed)

    def open(self, build: Build, undo: Undo | None = None) -> Mailbox:
        """Queue a request. Raises ConnectionLost or ClientClosed where there is no connection,
        ValueError where a frame would be over the wire's cap.

        What is granted to nobody is taken back by `undo`, however late the answer comes.
        """
        if self._lost is not None:
            raise self._lost()
        self._opened += 1
        request, blobs = build(f"r{self._opened}")
        frames = self._connection.send_request(request, blobs)
        self.outbox.extend(memoryview(frame) for frame in frames)
        mailbox = self._mailboxes[request.id] = Mailbox(request.id, undo)
        return mailbox

    def abandon(self, mailbox: Mailbox) -> None:
        """Nobody will take what still comes. Queues a cancel, unless the request has ended."""
        untaken = mailbox.abandon()
        self.cancel(mailbox)
        if untaken is not None:
            self._take_back(mailbox, untaken)
        elif mailbox.undo is not None and not mailbox.ended:
            self._owed.add(mailbox.id)

    def cancel(self, mailbox: Mailbox) -> None:
        """Queue a cancel, unless the request has ended; its last answer still has to come."""
        if mailbox.ended or self._lost is not None:
            return
        self.outbox.append(memoryview(self._connection.send_cancel(mailbox.id)))

    def sent(self, count: int) -> None:
        """`count` bytes of the first piece of `outbox` were written."""
        piece = self.outbox.popleft()
        if count < len(piece):
            self.outbox.appendleft(piece[count:])

    def receive(self, data: bytes) -> list[Mailbox]:
        """Take what was read, b"" at the end of the stream. Returns the mailboxes it touched."""
        for mailbox in self._mailboxes.values():
            # Of the one that reads nothing waits: the bound is for those that others read past.
            mailbox.full = mailbox.weight > self._max_buffered_bytes
        touched: dict[str, Mailbox] = {}
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) is not None:
                if isinstance(event, Closed):
                    return [*touched.values(), *self.lose(self._why_closed(event))]
                receiver = self._deliver(event)
                if receiver is not None:
                    touched[receiver.id] = receiver
        except RemoteProtocolError as error:
            why = f"the daemon's answer makes no sense: {error.message}"
            return [*touched.values(), *self.lose(lambda: ProtocolViolation(why))]
        return list(touched.values())

    def lose(self, error: Callable[[], InferdError]) -> list[Mailbox]:
        """The connection is gone: end every request. The first reason stands."""
        if self._lost is None:
            self._lost = error
        self.outbox.clear()
        ended = list(self._mailboxes.values())
        self._mailboxes.clear()
        self._owed.clear()
        for mailbox in ended:
            mailbox.end(self._lost())
        return ended

    def close(self) -> list[Mailbox]:
        """This side ends the connection."""
        return self.lose(lambda: ClientClosed("the client is closed"))

    def _deliver(self, event: AnswerReceived) -> Mailbox | None:
        answer = event.answer
        mailbox = self._mailboxes.get(event.id)
        if mailbox is None:
            if isinstance(answer, Error):
                self._refusal = answer  # about the connection: its end follows
            return None
        if event.terminal:
            del self._mailboxes[event.id]
            self._owed.discard(event.id)
        if isinstance(answer, Error):
            details = answer.details if isinstance(answer.details, dict) else None
            mailbox.end(request_failed(answer.code, answer.message, details))
        elif not mailbox.abandoned:
            self._keep(mailbox, answer)
        elif event.terminal:
            self._take_back(mailbox, answer)  # the cancel was late: what was asked is done
        if event.terminal:
            mailbox.end()
        return mailbox

    def _keep(self, mailbox: Mailbox, answer: Answer) -> None:
        if mailbox.error is not None:
            return  # it overflowed: the gap must not be papered over
        if not mailbox.full or is_terminal(answer):
            mailbox.put(answer)
            return
        mailbox.error = StreamOverflow(
            f"over {self._max_buffered_bytes} bytes of this stream were not taken while others"
            " on its connection were read; give it a client of its own, or take its events"
        )
        self.cancel(mailbox)

    def _take_back(self, mailbox: Mailbox, answer: Answer) -> None:
        build = None if mailbox.undo is None else mailbox.undo(answer)
        if build is None or self._lost is not None:
            return
        mailbox.undoing = self.open(build)
        mailbox.undoing.abandon()
        self._owed.add(mailbox.undoing.id)

    def _why_closed(self, event: Closed) -> Callable[[], InferdError]:
        refusal = self._refusal
        if refusal is not None:
            return lambda: request_failed(refusal.code, refusal.message, None)
        where = "" if event.clean else ", inside an answer"
        return lambda: ConnectionLost(
            f"the daemon closed the connection{where}: it stopped, restarted, or found this"
            " client too slow"
        )


def _weight(answer: Answer) -> int:
    match answer:
        case BlockAnswer(block=TextDelta(delta=text) | ThinkingDelta(delta=text)):
            return _ANSWER_OVERHEAD + len(text)
        case Token():
            return _ANSWER_OVERHEAD + len(answer.content)
        case BlockAnswer() | Item():
            return _ANSWER_OVERHEAD + len(encode(FrameType.MSGPACK, answer))
        case _:
            return _ANSWER_OVERHEAD
