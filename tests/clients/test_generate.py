"""`Client.generate` on both event loops: events, cancellation, several at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

from inferd_client import (
    Client,
    ClientClosed,
    DaemonBusy,
    Done,
    PcmAudio,
    RgbImage,
    TextDelta,
    Tool,
    Turn,
    assistant,
    system,
    tool_result,
    user,
)
from inferd_proto import (
    Audio,
    AudioAttachment,
    BlockAnswer,
    DoneV2,
    ErrorCode,
    GenerateV2,
    Image,
    ImageAttachment,
    Message,
    Queued,
    Text,
    ThinkingDelta,
    ToolResult,
    ToolUse,
    Usage,
)
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]

WEATHER = Tool("weather", {"type": "object"}, "Tells the weather.")


def test_events_come_in_order_and_typed(run: Run, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        call = ToolUse("c1", "weather", {"city": "Oslo"})
        for block in (
            Queued(2, 150),
            ThinkingDelta("hm"),
            TextDelta("It "),
            TextDelta("rains"),
            call,
        ):
            asked.send(BlockAnswer(asked.id, block))
        asked.done(4, "tool_use")

    daemon.script = script

    async def main() -> None:
        async with Client(daemon.path) as client, client.generate("Rain?") as answer:
            events = [event async for event in answer]
        assert events == [
            Queued(2, 150),
            ThinkingDelta("hm"),
            TextDelta("It "),
            TextDelta("rains"),
            ToolUse("c1", "weather", {"city": "Oslo"}),
            Done("tool_use", Usage(7, 4), "scripted"),
        ]
        whole = answer.completion
        assert (whole.text, whole.thinking) == ("It rains", "hm")
        assert whole.tool_calls == [ToolUse("c1", "weather", {"city": "Oslo"})]
        assert whole.usage == Usage(7, 4)

    run(main)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_every_option_reaches_the_daemon(run: Run, daemon: ScriptedDaemon, encoding: str) -> None:
    async def main() -> None:
        async with Client(daemon.path, label="tests", encoding=encoding) as client:  # type: ignore[arg-type]
            text = await client.generate(
                "Rain?",
                system="Be brief.",
                model="demo",
                max_tokens=9,
                temperature=0.5,
                top_p=0.9,
                top_k=3,
                min_p=0.1,
                seed=7,
                stop=("x", "y"),
                tools=[WEATHER],
                tool_choice="auto",
                thinking=True,
                queue_events=True,
            ).text()
        assert text == "Hello from inferd."

    run(main)
    assert daemon.asked[0].request == GenerateV2(
        id="r1",
        messages=[Message("system", [Text("Be brief.")]), Message("user", [Text("Rain?")])],
        model="demo",
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        seed=7,
        stop=["x", "y"],
        tools=[WEATHER],
        tool_choice="auto",
        thinking=True,
        queue_events=True,
        client="tests",
    )


def test_attachments_travel_with_their_blocks(run: Run, daemon: ScriptedDaemon) -> None:
    picture = RgbImage(bytes(range(12)), width=2, height=2)
    sound = PcmAudio.from_samples([0.0, 1.0], sample_rate=16_000)
    big = RgbImage(bytes(3000 * 1000 * 3), width=3000, height=1000)
    call = ToolUse("c1", "look", {})
    prompt: list[Turn] = [
        system("Look."),
        user("what?", picture, sound),
        assistant(call),
        tool_result(call, "seen", picture, big),
    ]

    async def main() -> None:
        async with Client(daemon.path) as client:
            await client.generate(prompt).text()

    run(main)
    asked = daemon.asked[0]
    assert isinstance(asked.request, GenerateV2)
    assert asked.request.attachments == [
        ImageAttachment("upload-1", 2, 2),
        AudioAttachment("upload-2", 16_000),
        ImageAttachment("upload-3", 3000, 1000),
    ]
    assert asked.blobs == (picture.pixels, b"\0\0\0\0\0\0\x80\x3f", big.pixels)
    assert asked.request.messages[1:] == [
        Message("user", [Text("what?"), Image("upload-1"), Audio("upload-2")]),
        Message("assistant", [call]),
        Message("user", [ToolResult("c1", [Text("seen"), Image("upload-1"), Image("upload-3")])]),
    ]


def test_an_answer_that_is_not_streamed_has_its_text(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.send(
        DoneV2(asked.id, Usage(1, 2), "end_turn", "scripted", content="whole")
    )

    async def main() -> None:
        async with Client(daemon.path) as client:
            assert await client.generate("x", stream=False).text() == "whole"

    run(main)


def test_v1_has_the_same_events(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            events = [event async for event in client.generate_v1("x", grammar='root ::= "a"')]
        assert events == [
            TextDelta("Hello"),
            TextDelta(" from v1."),
            Done("max_tokens", Usage(7, 2), "scripted", "Hello from v1."),
        ]

    run(main)


def test_mistakes_are_raised_where_they_are_made(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(ValueError, match="no messages"):
                client.generate([])
            with pytest.raises(ValueError, match="user message has no parts"):
                client.generate([user()])
            with pytest.raises(ValueError, match="needs `tools`"):
                client.generate("x", tool_choice="required")
        assert daemon.asked == []

    run(main)
    with pytest.raises(ValueError, match="2 x 2 RGB is 12"):
        RgbImage(b"123", width=2, height=2)
    with pytest.raises(ValueError, match="float32"):
        PcmAudio(b"123", sample_rate=16_000)


# -- leaving early -------------------------------------------------------------------------


def _endless(asked: Asked) -> None:
    while not asked.cancelled.is_set():
        asked.text("more ")
    asked.done(reason="cancelled")


def test_leaving_the_block_cancels(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: (_endless if asked.id == "r1" else _hello)(asked)

    async def main() -> None:
        async with Client(daemon.path) as client:
            async with client.generate("x") as answer:
                async for _ in answer:
                    break
            assert daemon.asked[0].cancelled.is_set()
            assert [event async for event in answer] == []
            assert await client.generate("again").text() == "hello"

    run(main)


def _hello(asked: Asked) -> None:
    asked.text("hello")
    asked.done(1)


def test_a_cancelled_scope_cancels_the_request(run: Run, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.text("one")
            asked.await_cancel()
        else:
            _hello(asked)

    daemon.script = script

    async def main() -> None:
        async with Client(daemon.path) as client:
            with anyio.CancelScope() as scope:
                async for _ in client.generate("x"):
                    scope.cancel()
            assert scope.cancelled_caught
            assert daemon.asked[0].cancelled.is_set()
            assert await client.generate("x").text() == "hello"

    run(main)


def test_asyncio_s_own_timeout_cancels_the_request(daemon: ScriptedDaemon) -> None:
    """It cancels tasks past the library's scopes."""

    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.text("one")
            asked.await_cancel()
        else:
            _hello(asked)

    daemon.script = script

    async def read_for_a_moment(client: Client) -> None:
        async with asyncio.timeout(None) as limit:
            async for _ in client.generate("x"):
                limit.reschedule(asyncio.get_running_loop().time() + 0.05)

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(TimeoutError):
                await read_for_a_moment(client)
            assert daemon.asked[0].cancelled.is_set()
            assert await client.generate("x").text() == "hello"

    asyncio.run(main())


def test_a_client_connects_once(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(ClientClosed, match="connects once"):
                await client.__aenter__()

    run(main)


def test_a_dropped_stream_is_reported(run: Run, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        asked.text("one")
        asked.await_cancel()

    daemon.script = script

    async def main() -> None:
        async with Client(daemon.path) as client:
            answer = client.generate("x")
            await anext(answer)
            with pytest.warns(ResourceWarning, match="use `async with`"):
                answer.__del__()
            await answer.aclose()

    run(main)


def test_pieces_of_text_alone(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client, client.generate("x") as answer:
            assert [piece async for piece in answer.deltas()] == ["Hello", " from", " inferd."]

    run(main)


def test_leaving_is_bounded_where_the_daemon_ignores_cancel(
    run: Run, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd_client.async_link.END_TIMEOUT_S", 0.1)
    daemon.script = lambda asked: asked.text("one") if asked.id == "r1" else _hello(asked)

    async def main() -> None:
        async with Client(daemon.path) as client:
            async with client.generate("x") as answer:
                await anext(answer)
            assert await client.generate("x").text() == "hello"

    run(main)


def test_an_error_in_the_body_comes_out_bare(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.await_cancel()

    async def main() -> None:
        with pytest.raises(KeyError):
            async with Client(daemon.path) as client, client.generate("x"):
                raise KeyError("mine")

    run(main)


# -- several at once -----------------------------------------------------------------------


def test_requests_share_the_connection(run: Run, daemon: ScriptedDaemon) -> None:
    together = threading.Barrier(20)

    def script(asked: Asked) -> None:
        together.wait(PATIENCE_S)
        for i in range(50):
            asked.text(f"{asked.id}.{i} ")
        asked.done(50)

    daemon.script = script
    texts: list[str] = []

    async def main() -> None:
        async def ask() -> None:
            texts.append(await client.generate("x").text())

        async with Client(daemon.path) as client, anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)

    run(main)
    expected = {"".join(f"r{n}.{i} " for i in range(50)) for n in range(1, 21)}
    assert len(texts) == 20
    assert set(texts) == expected


def test_the_one_that_reads_hands_over_when_it_is_cancelled(
    run: Run, daemon: ScriptedDaemon
) -> None:
    go = threading.Event()

    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.await_cancel()
            go.set()
        else:
            assert go.wait(PATIENCE_S)
            _hello(asked)

    daemon.script = script
    go.clear()
    texts: list[str] = []

    async def main() -> None:
        go.clear()
        texts.clear()

        async def lead() -> None:
            with anyio.move_on_after(0.1):
                await client.generate("x").text()

        async def follow() -> None:
            await anyio.sleep(0.03)
            texts.append(await client.generate("x").text())

        async with Client(daemon.path) as client, anyio.create_task_group() as group:
            group.start_soon(lead)
            group.start_soon(follow)
            group.start_soon(follow)
        assert texts == ["hello", "hello"]

    run(main)


def test_a_refused_request_leaves_the_others_alone(run: Run, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if asked.id == "r1":
            asked.text("half")
            asked.fail(ErrorCode.QUEUE_FULL, "10 requests wait")
        else:
            _hello(asked)

    daemon.script = script

    async def main() -> None:
        async with Client(daemon.path) as client:
            with pytest.raises(DaemonBusy, match="10 requests wait") as raised:
                await client.generate("x").text()
            assert raised.value.code is ErrorCode.QUEUE_FULL
            assert raised.value.retryable
            assert await client.generate("x").text() == "hello"

    run(main)
