"""Streams that nobody takes from: other streams go on, and memory does not."""

import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

from inferd_client import Client, StreamOverflow, TextDelta
from inferd_client.blocking import Client as BlockingClient
from tests.clients.scripted_daemon import Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]

FLOOD = 20_000
DELTA = "x" * 100


class Flood:
    """Answers the first request with a flood, the others with a few words; counts what went out.

    With `endless` the flood has no end but the client's cancel.
    """

    def __init__(self, *, endless: bool = False) -> None:
        self.sent = 0
        self._endless = endless

    def __call__(self, asked: Asked) -> None:
        if asked.id != "r1":
            asked.text("a ", "few ", "words")
            asked.done(3)
            return
        for _ in range(FLOOD):
            if asked.cancelled.is_set():
                asked.done(reason="cancelled")
                return
            asked.text(DELTA)
            self.sent += 1
        if self._endless:
            asked.await_cancel()
        else:
            asked.done(FLOOD)


def test_alone_it_slows_the_daemon_down_and_loses_nothing(run: Run, daemon: ScriptedDaemon) -> None:
    flood = daemon.script = Flood()

    async def main() -> None:
        async with (
            Client(daemon.path, max_buffered_bytes=100_000) as client,
            client.generate("x") as answer,
        ):
            assert await anext(answer) == TextDelta(DELTA)
            before = -1
            while not flood.sent or flood.sent != before:  # the socket fills, then the daemon waits
                before = flood.sent
                await anyio.sleep(0.05)
            assert 0 < flood.sent < FLOOD
            rest = [event.delta async for event in answer if isinstance(event, TextDelta)]
        assert len(rest) == FLOOD - 1

    flood.sent = 0
    run(main)


def test_beside_another_it_is_cancelled_and_the_other_is_whole(
    run: Run, daemon: ScriptedDaemon
) -> None:
    daemon.script = Flood(endless=True)

    async def main() -> None:
        async with (
            Client(daemon.path, max_buffered_bytes=100_000) as client,
            client.generate("x") as slow,
        ):
            await anext(slow)
            texts = [await client.generate("y").text() for _ in range(3)]
            # Reading for the others goes past the slow one until it is over its bound.
            while not daemon.asked[0].cancelled.is_set():
                texts.append(await client.generate("y").text())
            assert set(texts) == {"a few words"}
            with pytest.raises(StreamOverflow, match="100000 bytes"):
                await slow.collect()
            assert 100_000 < len(slow.completion.text) * 4 < 2_000_000

    run(main)
    assert daemon.asked[0].cancelled.is_set()


def test_threads_have_the_same_rule(daemon: ScriptedDaemon) -> None:
    daemon.script = Flood(endless=True)
    with (
        BlockingClient(daemon.path, max_buffered_bytes=100_000, timeout_s=60) as client,
        client.generate("x") as slow,
    ):
        next(slow)
        while not daemon.asked[0].cancelled.is_set():
            assert client.generate("y").text() == "a few words"
        with pytest.raises(StreamOverflow):
            slow.collect()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_an_upload_goes_out_while_answers_fill_the_socket(
    daemon: ScriptedDaemon, backend: str
) -> None:
    """Neither side may wait for the other to read first."""
    from inferd_client import RgbImage, user

    reading = threading.Event()
    picture = RgbImage(bytes(2000 * 2000 * 3), width=2000, height=2000)
    flood = Flood()

    def script(asked: Asked) -> None:
        flood(asked)
        reading.set()

    daemon.script = script

    async def main() -> None:
        with anyio.fail_after(60):
            async with Client(daemon.path) as client, client.generate("x") as answer:
                await anext(answer)
                await anyio.sleep(0.1)  # the daemon has filled the socket by now
                assert await client.generate([user("y", picture)]).text() == "a few words"
                rest = [event async for event in answer]
                assert len(rest) == FLOOD

    anyio.run(main, backend=backend)
