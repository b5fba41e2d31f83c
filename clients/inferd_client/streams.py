"""Answers that come in parts, for the asynchronous client: the request lives as long as its block.

Leaving the block, closing the stream, or a cancelled scope cancels the request at the daemon.
"""

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from inferd_proto import Answer, Item, JsonObject, StreamDone, TextDelta

from . import requests
from .answers import Collector, Completion, Event, to_event
from .async_link import AsyncLink
from .errors import ProtocolViolation
from .requests import Build
from .switchboard import Mailbox

T = TypeVar("T")


class AnswerStream(Generic[T]):
    """An asynchronous iterator over one answer's parts.

    Use it in `async with`; the request is sent on entering, and cancelled on leaving unless it
    has ended. Iterated without a block, it has to be read to its end, or closed by `aclose()`.
    """

    def __init__(self, link: AsyncLink, build: Build) -> None:
        self._link = link
        self._build = build
        self._mailbox: Mailbox | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Raises InferdError for what ended the answer early."""
        while not self._closed:
            try:
                answer = await self._link.next(await self._start())
                if answer is None or isinstance(answer, StreamDone):
                    break
                return self._part(answer)
            except BaseException:
                await self.aclose()
                raise
        self._closed = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the request unless it has ended. Waits for the daemon's word on it, 2 s at
        most, whether cancelled or not."""
        self._closed = True
        if self._mailbox is not None:
            await self._link.end(self._mailbox)

    def __del__(self) -> None:
        if self._mailbox is not None and not self._closed and not self._mailbox.ended:
            warnings.warn(
                f"{self!r} was dropped before its end; use `async with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def _start(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = await self._link.start(await self._request())
        return self._mailbox

    async def _request(self) -> Build:
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
        link: AsyncLink,
        op: str,
        arguments: Callable[[], Awaitable[JsonObject]],
        read: Callable[[object], T],
    ) -> None:
        super().__init__(link, requests.control(op, {}))
        self._op = op
        self._arguments = arguments
        self._read = read

    async def _request(self) -> Build:
        return requests.control(self._op, await self._arguments())

    def _part(self, answer: Answer) -> T:
        if isinstance(answer, Item):
            return self._read(answer.value)
        raise ProtocolViolation(f"a control stream was answered with {type(answer).__name__}")


class Generation(AnswerStream[Event]):
    """The events of one generation; the last is `Done`."""

    def __init__(self, link: AsyncLink, build: Build) -> None:
        super().__init__(link, build)
        self._collector = Collector()

    @property
    def completion(self) -> Completion:
        """What was taken so far, put together; whole once the iteration has ended."""
        return self._collector.completion()

    async def collect(self) -> Completion:
        """Read to the end; returns the whole answer."""
        async with self:
            async for _ in self:
                pass
        return self.completion

    async def text(self) -> str:
        """Read to the end; returns the text alone."""
        return (await self.collect()).text

    async def deltas(self) -> AsyncIterator[str]:
        """Pieces of the text alone, as they come. Read it to its end, or close the stream."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.delta

    def _part(self, answer: Answer) -> Event:
        event = to_event(answer)
        self._collector.add(event)
        return event
