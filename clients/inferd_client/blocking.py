"""The blocking client: the verbs of the asynchronous one, on plain sockets, for threads.

    >>> from inferd_client.blocking import Client
    >>> with Client() as client:
    ...     with client.generate("Say hello.") as answer:
    ...         for piece in answer.deltas():
    ...             print(piece, end="|")
    Hello| from| inferd.|

Any number of threads may use one client at once. Needs no event loop, and starts no thread but
the one that renews a lease, which ends with the lease's block.
"""

import os
import time
from collections.abc import Callable, Sequence
from math import inf
from types import TracebackType
from typing import Self, TypeVar, Unpack

from inferd_proto import Embeddings, JsonObject, LeaseEnsured, Ranking, Result, TextMessage

from . import requests
from .blocking_control import ControlVerbs
from .blocking_lease import HeldLease, take_lease
from .blocking_link import BlockingLink
from .blocking_streams import AnswerStream, Generation, ItemStream, RecordStream
from .content import Prompt
from .errors import ClientClosed
from .metrics import MetricFamily, to_metrics
from .requests import EmbedTask, GenerateOptions, GenerateV1Options
from .status import NotReady, RouteStatus, Status, to_routes, to_status, what_is_missing
from .switchboard import MAX_BUFFERED_BYTES, Encoding, Switchboard

__all__ = ["AnswerStream", "Client", "Generation", "HeldLease", "ItemStream", "RecordStream"]

T = TypeVar("T")

READY_POLL_S = 0.05
"""Between two looks at the status while a daemon comes up."""


class Client(ControlVerbs):
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
        self._encoding: Encoding = encoding
        self._max_buffered_bytes = max_buffered_bytes
        self._connected: BlockingLink | None = None

    def __enter__(self) -> Self:
        """Connect, once. Raises DaemonNotRunning or another ConnectError."""
        if self._connected is not None:
            raise ClientClosed("a client connects once; make another")
        self._connected = self._dial()
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

    def _dial(self, at_most_s: float = inf) -> BlockingLink:
        switchboard = Switchboard(
            encoding=self._encoding, max_buffered_bytes=self._max_buffered_bytes
        )
        return BlockingLink.connect(
            self._path,
            switchboard,
            connect_timeout_s=min(self._connect_timeout_s, at_most_s),
            wait_s=min(self._wait_s, at_most_s),
        )

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
        return self._link.ask(build, Embeddings, self._timeout_s)

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
        return self._link.ask(build, Ranking, self._timeout_s)

    # -- control ---------------------------------------------------------------------------

    def status(self) -> Status:
        """What the daemon says of itself."""
        return to_status(self.call("status"))

    def routes(self) -> list[RouteStatus]:
        """The names that can be asked for."""
        return to_routes(self.call("route.list"))

    def metrics(self) -> list[MetricFamily]:
        """What the daemon has counted, and how things stand now."""
        return to_metrics(self.call("metrics"))

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
        timeout_s = self._patience_s(arguments)
        return self._link.ask(requests.control(op, arguments), Result, timeout_s).value

    def stream(self, op: str, /, **arguments: object) -> ItemStream:
        """A control operation that answers with a stream of plain JSON values."""
        return ItemStream(self._link, requests.control(op, arguments), self._timeout_s)

    def _take(self, asked: JsonObject) -> LeaseEnsured:
        return take_lease(self._link, asked, self._patience_s(asked))

    def _hold(self, asked: JsonObject) -> HeldLease:
        return HeldLease(lambda: self._link, self._dial, asked, self._patience_s(asked))

    def _records(
        self,
        op: str,
        arguments: Callable[[], JsonObject],
        read: Callable[[object], T],
        *,
        endless: bool,
    ) -> RecordStream[T]:
        # What is to come may not come for hours.
        timeout_s = None if endless else self._timeout_s
        return RecordStream(self._link, op, arguments, timeout_s, read)

    def _patience_s(self, arguments: JsonObject) -> float | None:
        """For an operation that was asked to wait, its waiting comes on top."""
        wait_ms = arguments.get("wait_ms", 0)
        if self._timeout_s is None or not isinstance(wait_ms, int):
            return self._timeout_s
        return self._timeout_s + wait_ms / 1000
