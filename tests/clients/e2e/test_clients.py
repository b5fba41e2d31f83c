"""Both clients against the real daemon: every verb, cancellation, queueing, its end."""

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from inferd_client import (
    BackendFailed,
    Client,
    ConnectionLost,
    DaemonBusy,
    Done,
    NotReady,
    PcmAudio,
    Queued,
    RequestFailed,
    RequestRefused,
    RgbImage,
    TextDelta,
    Tool,
    Usage,
    user,
)
from inferd_client.blocking import Client as BlockingClient
from tests.clients.e2e.conftest import Start
from tests.support.daemon import wait_until

Run = Callable[[Callable[[], Awaitable[None]]], None]

WAIT_S = 45.0
WEATHER = Tool("weather", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_every_verb(run: Run, socket: Path, encoding: str) -> None:
    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S, encoding=encoding) as client:  # type: ignore[arg-type]
            status = await client.wait_ready("mock", timeout_s=WAIT_S)
            assert status.socket == str(socket)
            routes = await client.routes()
            assert {r.name: r.ready for r in routes} == {
                "mock": True,
                "slow": True,
                "caller": True,
                "broken": True,
                "down": False,
            }
            events = [event async for event in client.generate("Hi", max_tokens=2)]
            assert events[:2] == [TextDelta("tok0 "), TextDelta("tok1 ")]
            assert isinstance(events[2], Done)
            assert events[2].usage.output_tokens == 2
            assert await client.generate("Hi", max_tokens=2, stream=False).text() == "tok0 tok1 "
            assert await client.generate_v1("Hi", max_tokens=3).text() == "tok0 tok1 tok2 "
            calls = await client.generate("Rain?", model="caller", tools=[WEATHER]).collect()
            assert [call.name for call in calls.tool_calls] == ["weather"]
            embedded = await client.embed(["a", "b"], dimensions=4)
            assert [len(vector) for vector in embedded.embeddings] == [4, 4]
            ranking = await client.rerank("a", ["b", "a", "c"], top_n=2)
            assert len(ranking.results) == 2

    run(main)


def test_attachments_arrive(run: Run, socket: Path) -> None:
    picture = RgbImage(bytes(640 * 480 * 3), width=640, height=480)
    sound = PcmAudio.from_samples([0.0] * 16_000, sample_rate=16_000)

    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S) as client:
            answer = client.generate([user("what?", picture, sound)], max_tokens=1)
            assert await answer.text() == "tok0 "

    run(main)


def test_errors_have_their_class(run: Run, socket: Path) -> None:
    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S) as client:
            with pytest.raises(RequestRefused, match="nobody"):
                await client.generate("Hi", model="nobody").text()
            with pytest.raises(RequestFailed, match="out for lunch"):
                await client.generate("Hi", model="down").text()
            with pytest.raises(NotReady, match="out for lunch"):
                await client.wait_ready("down", timeout_s=0.1)
            answer = client.generate("Hi", model="broken")
            with pytest.raises(BackendFailed):
                await answer.text()
            assert answer.completion.text == "tok0 tok1 tok2 "
            with pytest.raises(RequestRefused):
                await client.call("sing")
            assert await client.generate("Hi", max_tokens=1).text() == "tok0 "

    run(main)


def test_a_cancelled_request_frees_its_permit_at_once(run: Run, socket: Path) -> None:
    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S) as client:
            for _ in range(5):
                with anyio.fail_after(18):  # it would end by itself after 20 s
                    async with client.generate("Hi", model="slow") as answer:
                        assert await anext(answer) == TextDelta("tok0 ")
            with anyio.fail_after(18):
                while any(r.active for r in await client.routes()):  # noqa: ASYNC110
                    await anyio.sleep(0.01)

    run(main)


def test_the_queue_is_seen_and_is_bounded(run: Run, socket: Path) -> None:
    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S) as client, client.generate("1", model="slow") as a:
            await anext(a)
            async with client.generate("2", model="slow", queue_events=True) as b:
                place = await anext(b)
                assert isinstance(place, Queued)
                assert place.position == 1
                with pytest.raises(DaemonBusy):
                    await client.generate("3", model="slow").text()
                await a.aclose()
                while isinstance(event := await anext(b), Queued):
                    pass
                assert event == TextDelta("tok0 ")

    run(main)


def test_requests_of_many_threads_share_a_connection(socket: Path) -> None:
    texts: list[str] = []

    def ask(client: BlockingClient) -> None:
        texts.append(client.generate("Hi", max_tokens=100).text())

    with BlockingClient(socket, wait_s=WAIT_S, timeout_s=60) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        wait_until(lambda: client.status().connections == 1, 5, "one connection alone")
    assert texts == ["".join(f"tok{i} " for i in range(100))] * 16


def test_a_slow_reader_loses_nothing(run: Run, socket: Path) -> None:
    async def main() -> None:
        async with Client(socket, wait_s=WAIT_S) as client:
            async with client.generate("Hi", max_tokens=50_000) as answer:
                await anext(answer)
                await anyio.sleep(0.3)
                quick = await client.generate("Hi", max_tokens=3).text()
                assert quick == "tok0 tok1 tok2 "
                async for _ in answer:
                    pass
            assert answer.completion.usage.output_tokens == 50_000
            assert answer.completion.text.endswith("tok49999 ")

    run(main)


def test_the_daemon_is_killed_in_mid_stream(start: Start, run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "k.sock"
        with start(path) as process:
            async with Client(path, wait_s=WAIT_S) as client:
                answer = client.generate("Hi", model="slow")
                await anext(answer)
                os.kill(process.pid, signal.SIGKILL)
                with pytest.raises(ConnectionLost):
                    await answer.text()
            # Until the kernel is through with it, its socket may still take connections.
            process.wait(60)
            # The next daemon takes the stale socket over, and a client that waits finds it.
            with start(path):
                async with Client(path, wait_s=WAIT_S) as client:
                    await client.wait_ready("mock", timeout_s=WAIT_S)
                    assert await client.generate("Hi", max_tokens=1).text() == "tok0 "

    run(main)


def test_the_daemon_drains(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with start(path) as process:
        with (
            BlockingClient(path, wait_s=WAIT_S, timeout_s=60) as client,
            client.generate("Hi", model="slow", max_tokens=10) as answer,
        ):
            next(answer)
            process.send_signal(signal.SIGTERM)
            assert answer.text() == "".join(f"tok{i} " for i in range(10))
            assert answer.completion.usage == Usage(1, 10)
        assert process.wait(60) == 0
