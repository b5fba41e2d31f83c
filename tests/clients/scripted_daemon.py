"""A daemon for the clients' tests that says what a script tells it to, over a real socket.

It speaks through `ServerConnection`, one thread a connection and one a request, and knows no
model: it stands for the daemon where a test needs it to stall, break off or misbehave on cue.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from inferd_proto import (
    Answer,
    BlockAnswer,
    CancelReceived,
    Control,
    DoneV1,
    DoneV2,
    Embed,
    Embeddings,
    Error,
    ErrorCode,
    Event,
    GenerateV1,
    GenerateV2,
    InputUsage,
    Item,
    JsonObject,
    RankedDocument,
    Ranking,
    Refused,
    Request,
    RequestReceived,
    Rerank,
    Result,
    ServerConnection,
    StopReason,
    StreamDone,
    TextDelta,
    Token,
    ToolUse,
    UploadCancelled,
    Usage,
    UsageV1,
)
from tests.clients.lease_records import CHANGES, ENSURED, LEASE, LOG, PLAN, RUNTIMES

PATIENCE_S = 40.0
"""A script that waits longer than this for its cue has a test that is wrong."""

ROUTES = [
    {
        "name": "demo",
        "ready": True,
        "reason": "",
        "default": True,
        "active": 1,
        "queued": 0,
        "permits": 4,
        "queue_depth": 10,
        "backends": [
            {
                "name": "demo",
                "kind": "libllama",
                "ready": True,
                "reason": "",
                "capabilities": {"backend": "libllama", "tools": True, "n_ctx": 4096},
            }
        ],
        "aliases": ["gpt"],
    },
    {"name": "big", "ready": False, "reason": "the model is loading", "default": False},
]
STATUS = {
    "version": "0.1.0",
    "pid": 4242,
    "uptime_s": 75.0,
    "state": "ready",
    "ready": True,
    "socket": "/run/inferd/inferd.sock",
    "connections": 1,
    "routes": ROUTES,
}

METRICS = {
    "metrics": [
        {
            "kind": "counter",
            "name": "inferd_requests",
            "help": "Requests\\that\nended.",
            "samples": [
                {
                    "labels": {"route": 'a "b"\\\n', "kind": "generate", "outcome": "ok"},
                    "value": 3,
                }
            ],
        },
        {
            "kind": "histogram",
            "name": "inferd_request_duration_seconds",
            "help": "From a request to its end.",
            "samples": [
                {
                    "labels": {"route": "demo"},
                    "value": {"count": 4, "sum": 1.25, "buckets": {"0.1": 1, "1.0": 3, "inf": 4}},
                }
            ],
        },
        {
            "kind": "gauge",
            "name": "inferd_leases",
            "help": "Live leases.",
            "samples": [{"labels": {}, "value": 2}],
        },
    ]
}


class Asked:
    """One request, as a script sees it."""

    def __init__(self, caller: "_Caller", received: RequestReceived) -> None:
        self.id = received.id
        self.request: Request = received.request
        self.blobs = received.blobs
        self.cancelled = threading.Event()
        self._caller = caller

    def send(self, *answers: Answer) -> None:
        """Answer; raises OSError where the client has gone."""
        self._caller.send(*answers)

    def send_raw(self, data: bytes) -> None:
        """Write bytes past the protocol."""
        self._caller.write(data)

    def text(self, *deltas: str) -> None:
        """Text deltas."""
        self.send(*(BlockAnswer(self.id, TextDelta(delta)) for delta in deltas))

    def done(self, tokens: int = 0, reason: StopReason = "end_turn") -> None:
        """The end of a v2 answer."""
        self.send(DoneV2(self.id, Usage(7, tokens), reason, "scripted"))

    def fail(self, code: ErrorCode, message: str) -> None:
        """An error instead of an answer."""
        self.send(Error(self.id, code, message))

    def await_cancel(self) -> None:
        """Until the client cancels; then the terminal answer that belongs to it."""
        assert self.cancelled.wait(PATIENCE_S), "no cancel came"
        self.done(reason="cancelled")

    def hang_up(self) -> None:
        """Close the connection, as a daemon that dies."""
        self._caller.hang_up()


Script = Callable[[Asked], None]


def friendly(asked: Asked) -> None:
    """A short right answer to whatever was asked."""
    id_, request = asked.id, asked.request
    match request:
        case GenerateV2(tool_choice="required"):
            asked.send(BlockAnswer(id_, ToolUse("call-1", request.tools[0].name, {"city": "Oslo"})))
            asked.done(5, "tool_use")
        case GenerateV2():
            asked.text("Hello", " from", " inferd.")
            asked.done(3)
        case GenerateV1():
            asked.send(Token(id_, "Hello"), Token(id_, " from v1."))
            asked.send(DoneV1(id_, "Hello from v1.", UsageV1(7, 2), "length", "scripted"))
        case Embed():
            vectors = [[float(i), 0.5, 1.0] for i in range(len(request.input))]
            asked.send(Embeddings(id_, vectors, 3, "demo", InputUsage(4), "scripted"))
        case Rerank():
            ranked = [RankedDocument(i, 1.0 - i) for i in range(len(request.documents))]
            asked.send(Ranking(id_, ranked[: request.top_n], "demo", InputUsage(9), "scripted"))
        case Control(op="status"):
            asked.send(Result(id_, STATUS))
        case Control(op="route.list"):
            asked.send(Result(id_, {"routes": ROUTES}))
        case Control(op="metrics"):
            asked.send(Result(id_, METRICS))
        case Control(op="echo"):
            asked.send(Result(id_, request.arguments))
        case Control(op="count"):
            asked.send(*(Item(id_, i) for i in range(3)), StreamDone(id_))
        case Control(op="logs"):
            asked.send(*(Item(id_, line) for line in LOG), StreamDone(id_))
        case Control(op="watch"):
            asked.send(*(Item(id_, change) for change in CHANGES), StreamDone(id_))
        case Control(op=op) if op.startswith(("lease.", "runtime.")):
            asked.send(Result(id_, _lease_answer(op, request.arguments)))
        case _:
            asked.fail(ErrorCode.NOT_FOUND, "there is no such operation")


def _lease_answer(op: str, arguments: JsonObject) -> object:
    """Without a state: every lease is the one of `lease_records`."""
    match op:
        case "lease.ensure" if arguments.get("plan"):
            return PLAN
        case "lease.ensure":
            given = {name: arguments[name] for name in ("bind", "ttl_ms") if name in arguments}
            left = {"left_ms": given.get("ttl_ms", LEASE["left_ms"])}
            return ENSURED | {"lease": LEASE | given | left}
        case "lease.renew":
            return LEASE | {"ttl_ms": arguments["ttl_ms"], "left_ms": arguments["ttl_ms"]}
        case "lease.list":
            return {"leases": [LEASE]}
        case "lease.release":
            return {"lease_ref": arguments["lease_ref"]}
        case "lease.get":
            return LEASE
        case "runtime.list":
            return {"runtimes": RUNTIMES}
        case _:
            return RUNTIMES[0]


class ScriptedDaemon:
    """Listens on `path` while its block lasts."""

    def __init__(self, path: Path, script: Script = friendly) -> None:
        self.path = path
        self.script = script
        self.asked: list[Asked] = []
        self.clean_ends = threading.Semaphore(0)
        """Released for each connection whose client closed it."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []
        self._callers: list[_Caller] = []
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # Who was accepted a moment ago is on the list once the thread that accepts has ended.
        for accepting in self._threads[:1]:
            accepting.join(PATIENCE_S)
        for caller in self._callers:
            caller.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a script hangs"
        self._listener.close()
        for caller in self._callers:
            caller.socket.close()
        self.path.unlink(missing_ok=True)
        if self.failures and error is None:
            raise self.failures[0]

    def _spawn(self, target: Callable[[], None]) -> None:
        def run() -> None:
            try:
                target()
            except OSError:
                pass  # the client has gone, as tests make it
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            caller = _Caller(connected)
            self._callers.append(caller)
            self._spawn(lambda caller=caller: self._serve(caller))  # type: ignore[misc]

    def _serve(self, caller: "_Caller") -> None:
        running: dict[str, Asked] = {}
        for event in caller.events():
            if isinstance(event, RequestReceived):
                asked = running[event.id] = Asked(caller, event)
                self.asked.append(asked)
                self._spawn(lambda asked=asked: self.script(asked))  # type: ignore[misc]
            elif isinstance(event, CancelReceived):
                running[event.id].cancelled.set()
        for asked in running.values():
            asked.cancelled.set()
        self.clean_ends.release()


class _Caller:
    """One connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._connection = ServerConnection()
        self._state_lock = threading.Lock()
        self._write_lock = threading.Lock()

    def events(self) -> Iterator[Event]:
        """What the client sends, until it closes."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return
            with self._state_lock:
                self._connection.receive_data(data)
                received: list[Event] = []
                while (event := self._connection.next_event()) is not None:
                    received.append(event)
            for event in received:
                if isinstance(event, Refused | UploadCancelled):
                    self.write(event.data)
                if isinstance(event, Refused) and event.close:
                    self.hang_up()
            yield from received
            if not data:
                return

    def send(self, *answers: Answer) -> None:
        with self._write_lock:
            with self._state_lock:
                data = b"".join(self._connection.send(answer) for answer in answers)
            self.socket.sendall(data)

    def write(self, data: bytes) -> None:
        with self._write_lock:
            self.socket.sendall(data)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
