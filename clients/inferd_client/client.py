"""The asynchronous client: one verb, one method, on trio and on asyncio.

    >>> import anyio
    >>> from inferd_client import Client, TextDelta
    >>> async def main() -> None:
    ...     async with Client() as client:
    ...         async with client.generate("Say hello.") as answer:
    ...             async for event in answer:
    ...                 if isinstance(event, TextDelta):
    ...                     print(event.delta, end="")
    ...         print(f" ({answer.completion.usage.output_tokens} tokens)")
    >>> anyio.run(main, backend="trio")
    Hello from inferd. (3 tokens)

Any number of tasks may use one client at once: their requests share its connection. Raises
`InferdError` and its subclasses, see `errors`; a wait is bounded by the caller's cancel scope.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from types import TracebackType
from typing import Self, TypeVar, Unpack

import anyio

from inferd_proto import Embeddings, JsonObject, LeaseEnsured, Ranking, Result, TextMessage

from . import requests
from .async_link import AsyncLink
from .content import Prompt
from .control import ControlVerbs
from .errors import ClientClosed
from .held_lease import HeldLease, take_lease
from .metrics import MetricFamily, to_metrics
from .requests import EmbedTask, GenerateOptions, GenerateV1Options
from .status import NotReady, RouteStatus, Status, to_routes, to_status, what_is_missing
from .streams import AnswerStream, Generation, ItemStream, RecordStream
from .switchboard import MAX_BUFFERED_BYTES, Encoding, Switchboard

__all__ = ["AnswerStream", "Client", "Generation", "HeldLease", "ItemStream", "RecordStream"]

T = TypeVar("T")

READY_POLL_S = 0.05
"""Between two looks at the status while a daemon comes up."""


class Client(ControlVerbs):
    """A connection to the daemon; use it in `async with`.

    `socket` is the socket's path, by default found by the rule of wire.md section 1
    (`$INFERD_SOCKET`, else `inferd.sock` in the runtime directory). A daemon that does not listen
    yet is waited for as long as `wait_s`. `label` groups this program's requests in the daemon's
    fair queue. Of a stream that is not read while another on this client is, at most
    `max_buffered_bytes` are kept: past that it is cancelled and raises `StreamOverflow`; no
    other stream is touched. When nothing is read from the client, nothing is kept: the daemon
    and its engine wait, up to the daemon's write deadline.

    Once the connection is lost every call raises `ConnectionLost`: open a new client.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        connect_timeout_s: float = 5.0,
        wait_s: float = 0.0,
        label: str = "",
        encoding: Encoding = "json",
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
    ) -> None:
        self._path = socket
        self._connect_timeout_s = connect_timeout_s
        self._wait_s = wait_s
        self._label = label
        self._encoding: Encoding = encoding
        self._max_buffered_bytes = max_buffered_bytes
        self._connected: AsyncLink | None = None

    async def __aenter__(self) -> Self:
        """Connect, once. Raises DaemonNotRunning or another ConnectError."""
        if self._connected is not None:
            raise ClientClosed("a client connects once; make another")
        self._connected = await self._dial()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the daemon cancels what was in flight on it."""
        if self._connected is not None:
            self._connected.close()

    async def _dial(self, at_most_s: float = inf) -> AsyncLink:
        switchboard = Switchboard(
            encoding=self._encoding, max_buffered_bytes=self._max_buffered_bytes
        )
        return await AsyncLink.connect(
            self._path,
            switchboard,
            connect_timeout_s=min(self._connect_timeout_s, at_most_s),
            wait_s=min(self._wait_s, at_most_s),
        )

    @property
    def _link(self) -> AsyncLink:
        if self._connected is None:
            raise ClientClosed("the client is not connected; use `async with Client() as client`")
        return self._connected

    # -- generation ------------------------------------------------------------------------

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Generation:
        """Ask a model; returns a stream of `TextDelta`, `ThinkingDelta`, `ToolUse`, `Queued`
        and, last, `Done`.

        `prompt` is a question or a conversation (see `content`). Nothing is sent before the
        stream is entered or read. Raises ValueError for options at odds with each other.

            >>> import anyio
            >>> from inferd_client import Client, Tool, ToolUse
            >>> weather = Tool("weather", {"type": "object", "properties": {}})
            >>> async def main() -> None:
            ...     async with Client() as client:
            ...         answer = client.generate("Rain?", tools=[weather], tool_choice="required")
            ...         for call in (await answer.collect()).tool_calls:
            ...             print(call.name, call.input)
            >>> anyio.run(main)
            weather {'city': 'Oslo'}
        """
        return Generation(self._link, requests.generate(prompt, options, self._label))

    def generate_v1(
        self, messages: str | Sequence[TextMessage], **options: Unpack[GenerateV1Options]
    ) -> Generation:
        """Ask in the plain-text form of the wire, which alone takes a `grammar` (GBNF).

        The events are those of `generate`.
        """
        return Generation(self._link, requests.generate_v1(messages, options, self._label))

    # -- vectors ---------------------------------------------------------------------------

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        task: EmbedTask | None = None,
    ) -> Embeddings:
        """One vector of `dimensions` floats for each text, in order."""
        build = requests.embed(
            texts, model=model, dimensions=dimensions, task=task, label=self._label
        )
        return await self._link.ask(build, Embeddings)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
    ) -> Ranking:
        """The documents (1 to 256) by raw score, best first, the best `top_n` of them."""
        build = requests.rerank(query, documents, model=model, top_n=top_n, label=self._label)
        return await self._link.ask(build, Ranking)

    # -- control ---------------------------------------------------------------------------

    async def status(self) -> Status:
        """What the daemon says of itself."""
        return to_status(await self.call("status"))

    async def routes(self) -> list[RouteStatus]:
        """The names that can be asked for."""
        return to_routes(await self.call("route.list"))

    async def metrics(self) -> list[MetricFamily]:
        """What the daemon has counted, and how things stand now."""
        return to_metrics(await self.call("metrics"))

    async def wait_ready(self, model: str | None = None, *, timeout_s: float) -> Status:
        """Wait until the daemon, or the route `model`, is ready.

        Raises NotReady after `timeout_s`, NotFound at once where there is no such route.
        """
        deadline = anyio.current_time() + timeout_s
        while True:
            status = await self.status()
            missing = what_is_missing(status, model)
            if missing is None:
                return status
            if anyio.current_time() >= deadline:
                raise NotReady(f"not ready after {timeout_s:g} s: {missing}", status)
            await anyio.sleep(READY_POLL_S)

    async def call(self, op: str, /, **arguments: object) -> object:
        """One control operation; returns the plain JSON value of its result."""
        return (await self._link.ask(requests.control(op, arguments), Result)).value

    def stream(self, op: str, /, **arguments: object) -> ItemStream:
        """A control operation that answers with a stream of plain JSON values."""
        return ItemStream(self._link, requests.control(op, arguments))

    async def _take(self, asked: JsonObject) -> LeaseEnsured:
        return await take_lease(self._link, asked)

    def _hold(self, asked: JsonObject) -> HeldLease:
        return HeldLease(lambda: self._link, self._dial, asked)

    def _records(
        self,
        op: str,
        arguments: Callable[[], Awaitable[JsonObject]],
        read: Callable[[object], T],
        *,
        endless: bool,
    ) -> RecordStream[T]:
        return RecordStream(self._link, op, arguments, read)
