"""Answers that come in parts, for the blocking client: the request lives as long as its block.

Leaving the block or closing the stream cancels the request at the daemon.
"""

import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from inferd_proto import Answer, Item, JsonObject, StreamDone, TextDelta

from . import requests
from .answers import Collector, Completion, Event, to_event
from .blocking_link import BlockingLink
from .errors import ProtocolViolation
from .requests import Build
from .switchboard import Mailbox

T = TypeVar("T")


class AnswerStream(Generic[T]):
    """An iterator over one answer's parts; for one thread at a time.

    Use it in `with`; the request is sent on entering, and cancelled on leaving unless it has
    ended. Iterated without a block, it has to be read to its end, or closed by `close()`.
    """

    def __init__(self, link: BlockingLink, build: Build, timeout_s: float | None) -> None:
        self._link = link
        self._build = build
        self._timeout_s = timeout_s
        self._mailbox: Mailbox | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """Raises InferdError for what ended the answer early."""
        if not self._closed:
            try:
                answer = self._link.next(self._start(), self._timeout_s)
                if answer is not None and not isinstance(answer, StreamDone):
                    return self._part(answer)
            except BaseException:
                self.close()
                raise
        self._closed = True
        raise StopIteration

    def close(self) -> None:
        """Cancel the request unless it has ended; waits at most 2 s for its end."""
        self._closed = True
        if self._mailbox is not None:
            self._link.end(self._mailbox)

    def __del__(self) -> None:
        if self._mailbox is not None and not self._closed and not self._mailbox.ended:
            warnings.warn(
                f"{self!r} was dropped before its end; use `with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _start(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = self._link.start(self._request(), self._timeout_s)
        return self._mailbox

    def _request(self) -> Build:
        return self._build

    def _part(self, answer: Answer) -> T:
        raise NotImplementedError


class ItemStream(AnswerStream[object]):
    """The items of a control stream, as plain JSON values."""

    def _part(self, answer: Answer) -> object:
        if isinstance(answer, Item):
            return answer.value
        raise ProtocolViolation(f"a control stream was answered with {type(answer).__name__}")


class RecordStream(AnswerStream[T]):
    """The items of a control stream, each as the record that `read` makes of it.

    `arguments` are found when the stream begins.
    """

    def __init__(
        self,
        link: BlockingLink,
        op: str,
        arguments: Callable[[], JsonObject],
        timeout_s: float | None,
        read: Callable[[object], T],
    ) -> None:
        super().__init__(link, requests.control(op, {}), timeout_s)
        self._op = op
        self._arguments = arguments
        self._read = read

    def _request(self) -> Build:
        return requests.control(self._op, self._arguments())

    def _part(self, answer: Answer) -> T:
        if isinstance(answer, Item):
            return self._read(answer.value)
        raise ProtocolViolation(f"a control stream was answered with {type(answer).__name__}")


class Generation(AnswerStream[Event]):
    """The events of one generation; the last is `Done`."""

    def __init__(self, link: BlockingLink, build: Build, timeout_s: float | None) -> None:
        super().__init__(link, build, timeout_s)
        self._collector = Collector()

    @property
    def completion(self) -> Completion:
        """What was taken so far, put together; whole once the iteration has ended."""
        return self._collector.completion()

    def collect(self) -> Completion:
        """Read to the end; returns the whole answer."""
        with self:
            for _ in self:
                pass
        return self.completion

    def text(self) -> str:
        """Read to the end; returns the text alone."""
        return self.collect().text

    def deltas(self) -> Iterator[str]:
        """Pieces of the text alone, as they come."""
        return (event.delta for event in self if isinstance(event, TextDelta))

    def _part(self, answer: Answer) -> Event:
        event = to_event(answer)
        self._collector.add(event)
        return event
