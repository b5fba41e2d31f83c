"""Requests of one connection, without a socket: one after the other, and none after the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from trio.testing import MockClock

from inferd_daemon.fronts.http.incoming import BadRequest
from inferd_daemon.fronts.http.protocol import Http1

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
ENDS = b"0\r\n\r\n"


class Line:
    """What a connection sends, and an application that does as its path says."""

    def __init__(self) -> None:
        self.sent = b""
        self.began: list[str] = []
        self.ended: list[str] = []
        self.open = trio.Event()
        self.http: Http1

    async def app(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        path = scope["path"]
        self.began.append(path)
        try:
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    break
            await self.open.wait()
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": path.encode() + body})
        finally:
            self.ended.append(path)

    async def send(self, event: object) -> None:
        if isinstance(event, RawData):
            self.sent += event.data

    async def hear(self, data: bytes) -> None:
        await self.http.handle(RawData(data))
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """Its application's tasks end with the block."""
    made = Line()
    async with TaskGroup() as tasks:
        wrapper = SimpleNamespace(
            app=None,
            config=Config(),
            context=WorkerContext(None),
            task_group=tasks,
            state={},
            ssl=False,
            client=None,
            server=None,
            send=made.send,
        )

        async def guarded(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
            with scope["extensions"]["inferd.exchange"].cancel_scope:
                await made.app(scope, receive, send)

        made.http = Http1(
            wrapper,  # type: ignore[arg-type]
            guarded,
            uid=None,
            max_head_bytes=4096,
            idle_timeout_s=9.0,
            on_change=lambda: None,
        )
        yield made
        await made.http.handle(Closed())


async def test_one_after_the_other() -> None:
    async with line() as one:
        await one.hear(GET % 1 + POST % 2 + b"body" + GET % 3)
        assert one.began == ["/1"]
        one.open.set()
        await trio.testing.wait_all_tasks_blocked()
        assert one.began == ["/1", "/2", "/3"]
        parts = [part.partition(b"\r\n\r\n")[2] for part in one.sent.split(b"HTTP/1.1")[1:]]
        assert parts == [b"2\r\n/1\r\n" + ENDS, b"6\r\n/2body\r\n" + ENDS, b"2\r\n/3\r\n" + ENDS]
        assert one.http.at_rest


@pytest.mark.parametrize("request_", [GET % 1 + GET % 2, POST % 1 + b"bo"])
async def test_who_leaves_leaves_nothing_behind(request_: bytes) -> None:
    async with line() as one:
        await one.hear(request_)
        await one.http.handle(Closed())
        await trio.testing.wait_all_tasks_blocked()
        assert (one.began, one.ended, one.sent) == (["/1"], ["/1"], b"")
        assert not one.http.busy
        with trio.fail_after(10):
            await one.http.room()
            await one.http.idle()


async def test_nothing_begins_once_it_closes() -> None:
    async with line() as one:
        one.open.set()
        await one.hear(b"GET /1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert one.http.closing
        await one.hear(POST % 2 + b"bo")
        assert one.began == ["/1"]
        assert not one.http.busy


async def test_a_broken_body_ends_the_request_that_waits_for_it() -> None:
    async with line() as one:
        await one.hear(b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        with pytest.raises(BadRequest):
            await one.hear(b"no length\r\n")
        with trio.fail_after(10):
            await one.http.idle()
        assert one.ended == ["/1"]


async def test_deadlines_follow_what_is_awaited(mock_clock: MockClock) -> None:
    async with line() as one:
        now = trio.current_time()
        assert one.http.deadline == now + 9
        await one.hear(POST % 1)
        assert one.http.deadline == now + 9
        await one.hear(b"body")
        assert one.http.deadline == float("inf")  # the application's turn
        await one.hear(b"GET /2")
        assert one.http.deadline < float("inf")
