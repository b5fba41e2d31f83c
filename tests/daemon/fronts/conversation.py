"""A session in this process with a client at the other end of its socket, speaking plain JSON."""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from inferd_daemon.backends.base import Backend
from inferd_daemon.config import Config, MockConfig, RouteConfig
from inferd_daemon.control.view import DaemonView
from inferd_daemon.fronts.byte_budget import ByteBudget
from inferd_daemon.fronts.peer import peer_of
from inferd_daemon.fronts.session import Session
from inferd_daemon.routing.table import build_router
from inferd_proto import FrameReader, FrameType, pack

Answer = dict[str, Any]
HELLO = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


class Conversation:
    """The client's end. Answers are dicts, as they came."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = trio.socket.from_stdlib_socket(sock)
        self._reader = FrameReader()

    async def say(self, **fields: object) -> None:
        """One message; `wire_version` is added."""
        await self.say_bytes(frame(fields))

    async def generate(self, request_id: str, **fields: object) -> None:
        """A v2 request."""
        await self.say(id=request_id, messages=HELLO, **fields)

    async def say_bytes(self, data: bytes) -> None:
        """Bytes as they are."""
        while data:
            data = data[await self.sock.send(data) :]

    async def hear(self) -> Answer:
        """The next answer. Raises EOFError where the daemon closed, after 30 s TooSlowError."""
        with trio.fail_after(30):
            while (got := self._reader.next()) is None:
                data = await self.sock.recv(65_536)
                if not data:
                    self._reader.finish()
                    raise EOFError
                self._reader.feed(data)
        assert got.payload is not None
        answer: Answer = json.loads(got.payload)
        return answer

    async def hear_until_end(self, request_id: str) -> list[Answer]:
        """Every answer to this request up to its terminal one; others are passed over."""
        heard: list[Answer] = []
        while not (heard and heard[-1]["type"] not in ("frame", "token", "item")):
            answer = await self.hear()
            if answer["id"] == request_id:
                heard.append(answer)
        return heard

    async def hear_end(self, request_id: str) -> Answer:
        """The terminal answer of this request."""
        return (await self.hear_until_end(request_id))[-1]

    async def hear_close(self) -> None:
        """The daemon closed, between two frames."""
        try:
            answer = await self.hear()
        except (EOFError, ConnectionResetError):
            return
        raise AssertionError(f"expected the end, got {answer}")

    def leave(self) -> None:
        """Close at once."""
        self.sock.close()


def frame(fields: Mapping[str, object]) -> bytes:
    """A message as bytes."""
    return pack(FrameType.JSON, json.dumps({"wire_version": 1, **fields}).encode())


def text_of(answers: list[Answer]) -> str:
    """What the deltas say."""
    return "".join(a["block"]["delta"] for a in answers if a["type"] == "frame")


def view_of(backend: Backend, **route: Any) -> DaemonView:  # noqa: ANN401  fields of any type
    """A daemon with one route `r` to `backend`."""
    config = Config(
        backends={backend.name: MockConfig()},
        routes={"r": RouteConfig(backends=[backend.name], **route)},
    )
    return DaemonView("0", "/s", build_router(config, {backend.name: backend}))


class Daemon:
    """Sessions of one view."""

    def __init__(
        self,
        view: DaemonView,
        nursery: trio.Nursery,
        write_timeout_s: float,
        read_timeout_s: float,
        budget: ByteBudget,
        starts: trio.Semaphore,
    ) -> None:
        self.view = view
        self.budget = budget
        self._starts = starts
        self._read_timeout_s = read_timeout_s
        self.sessions: list[Session] = []
        self._connected = 0
        self._clients: list[Conversation] = []
        self._nursery = nursery
        self._write_timeout_s = write_timeout_s

    def connect(self) -> Conversation:
        """A new client."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._connected += 1
        session = Session(
            theirs,
            peer_of(theirs),
            self._connected,
            self.view,
            self._write_timeout_s,
            nothing,
            read_timeout_s=self._read_timeout_s,
            budget=self.budget,
            starts=self._starts,
        )
        self.sessions.append(session)
        self._nursery.start_soon(self._serve, theirs, session)
        client = Conversation(ours)
        self._clients.append(client)
        return client

    def hang_up(self) -> None:
        """Every client leaves."""
        for client in self._clients:
            client.leave()

    async def _serve(self, sock: socket.socket, session: Session) -> None:
        with sock:
            await session.run()
        self.sessions.remove(session)


def nothing() -> None:
    """Nobody waits for the end of requests."""


@asynccontextmanager
async def daemon(
    view: DaemonView,
    *,
    write_timeout_s: float = 60.0,
    read_timeout_s: float = 60.0,
    limit: int = 512 * 1024 * 1024,
    starts_a_turn: int = 4,
) -> AsyncIterator[Daemon]:
    """Serves until the block ends, then drops everyone."""
    async with trio.open_nursery() as nursery:
        starts = trio.Semaphore(starts_a_turn)
        running = Daemon(view, nursery, write_timeout_s, read_timeout_s, ByteBudget(limit), starts)
        try:
            yield running
        finally:
            nursery.cancel_scope.cancel()
            running.hang_up()


async def eventually(true: Callable[[], bool], within_s: float = 30.0) -> float:
    """Waits until `true()`; how long it took, in seconds."""
    started = trio.current_time()
    with trio.fail_after(within_s):
        while not true():  # noqa: ASYNC110  what is waited for has no event
            await trio.sleep(0.001)
    return trio.current_time() - started
