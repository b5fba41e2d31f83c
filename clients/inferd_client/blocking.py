"""The blocking client: the verbs of the asynchronous one, on plain sockets, for threads.

    >>> from inferd_client.blocking import Client
    >>> with Client() as client:
    ...     with client.generate("Say hello.") as answer:
    ...         for piece in answer.deltas():
    ...             print(piece, end="|")
    Hello| from| inferd.|

Any number of threads may use one client at once. Needs no event loop, and starts no thread.
"""

import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from inferd_proto import Embeddings, Ranking, Result, TextMessage

from . import requests
from .blocking_link import BlockingLink
from .blocking_streams import AnswerStream, Generation, ItemStream
from .content import Prompt
from .errors import ClientClosed, ProtocolViolation
from .requests import Build, EmbedTask, GenerateOptions, GenerateV1Options
from .status import NotReady, RouteStatus, Status, to_routes, to_status, what_is_missing
from .switchboard import MAX_BUFFERED_BYTES, Encoding, Switchboard

__all__ = ["AnswerStream", "Client", "Generation", "ItemStream"]

T = TypeVar("T")

READY_POLL_S = 0.05
"""Between two looks at the status while a daemon comes up."""


class Client:
    """A connection to the daemon; use it in `with`.

    As `inferd_client.Client`; in addition `timeout_s` is the longest silence within an answer:
    past it the request is cancelled and raises `AnswerTimeout`. None waits for ever.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        connect_timeout_s: float = 5.0,
        wait_s: float = 0.0,
        timeout_s: float | None = 600.0,
        label: str = "",
        encoding: Encoding = "json",
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
    ) -> None:
        self._path = socket
        self._connect_timeout_s = connect_timeout_s
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._label = label
        self._switchboard = Switchboard(encoding=encoding, max_buffered_bytes=max_buffered_bytes)
        self._connected: BlockingLink | None = None

    def __enter__(self) -> Self:
        """Connect, once. Raises DaemonNotRunning or another ConnectError."""
        if self._connected is not None:
            raise ClientClosed("a client connects once; make another")
        self._connected = BlockingLink.connect(
            self._path,
            self._switchboard,
            connect_timeout_s=self._connect_timeout_s,
            wait_s=self._wait_s,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the daemon cancels what was in flight on it. From any thread."""
        if self._connected is not None:
            self._connected.close()

    @property
    def _link(self) -> BlockingLink:
        if self._connected is None:
            raise ClientClosed("the client is not connected; use `with Client() as client`")
        return self._connected

    # -- generation ------------------------------------------------------------------------

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Generation:
        """Ask a model; returns a stream of `TextDelta`, `ThinkingDelta`, `ToolUse`, `Queued`
        and, last, `Done`.

        `prompt` is a question or a conversation (see `content`). Nothing is sent before the
        stream is entered or read. Raises ValueError for options at odds with each other.
        """
        build = requests.generate(prompt, options, self._label)
        return Generation(self._link, build, self._timeout_s)

    def generate_v1(
        self, messages: str | Sequence[TextMessage], **options: Unpack[GenerateV1Options]
    ) -> Generation:
        """Ask in the plain-text form of the wire, which alone takes a `grammar` (GBNF)."""
        build = requests.generate_v1(messages, options, self._label)
        return Generation(self._link, build, self._timeout_s)

    # -- vectors ---------------------------------------------------------------------------

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        task: EmbedTask | None = None,
    ) -> Embeddings:
        """One vector of `dimensions` floats for each text, in order.

        >>> from inferd_client.blocking import Client
        >>> with Client() as client:
        ...     answer = client.embed(["one", "two"])
        >>> len(answer.embeddings), answer.dimensions
        (2, 3)
        """
        build = requests.embed(
            texts, model=model, dimensions=dimensions, task=task, label=self._label
        )
        return self._ask(build, Embeddings)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
    ) -> Ranking:
        """The documents (1 to 256) by raw score, best first, the best `top_n` of them."""
        build = requests.rerank(query, documents, model=model, top_n=top_n, label=self._label)
        return self._ask(build, Ranking)

    # -- control ---------------------------------------------------------------------------

    def status(self) -> Status:
        """What the daemon says of itself."""
        return to_status(self.call("status"))

    def routes(self) -> list[RouteStatus]:
        """The names that can be asked for."""
        return to_routes(self.call("route.list"))

    def wait_ready(self, model: str | None = None, *, timeout_s: float) -> Status:
        """Wait until the daemon, or the route `model`, is ready.

        Raises NotReady after `timeout_s`, NotFound at once where there is no such route.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            missing = what_is_missing(status, model)
            if missing is None:
                return status
            if time.monotonic() >= deadline:
                raise NotReady(f"not ready after {timeout_s:g} s: {missing}", status)
            time.sleep(READY_POLL_S)

    def call(self, op: str, /, **arguments: object) -> object:
        """One control operation; returns the plain JSON value of its result."""
        return self._ask(requests.control(op, arguments), Result).value

    def stream(self, op: str, /, **arguments: object) -> ItemStream:
        """A control operation that answers with a stream of plain JSON values."""
        return ItemStream(self._link, requests.control(op, arguments), self._timeout_s)

    def _ask(self, build: Build, kind: type[T]) -> T:
        link = self._link
        mailbox = link.start(build, self._timeout_s)
        try:
            answer = link.next(mailbox, self._timeout_s)
        finally:
            link.end(mailbox)
        if not isinstance(answer, kind):
            raise ProtocolViolation(f"{kind.__name__} was due, {type(answer).__name__} came")
        return answer
