"""Streams that trickle beside many others: each ends as it would alone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.base import (
    Batch,
    Capabilities,
    Finished,
    GenerateRequest,
    Sampling,
    TextDeltas,
)
from inferd_daemon.backends.chat_client import ChatClient
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.deadlines import Deadlines
from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.errors import BackendFault
from inferd_proto import Message, Text, Usage
from tests.support.scripted_upstream import (
    CHUNKS_END,
    EVENTS_HEAD,
    Close,
    Pause,
    Repeat,
    Script,
    ScriptedUpstream,
    chunk,
    serve,
)

HI = GenerateRequest([Message("user", [Text("hi")])], Sampling(max_tokens=4))
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
TOKENS = 40
STREAMS = 60
TRICKLE: Script = [
    EVENTS_HEAD,
    *(step for _ in range(TOKENS) for step in (chunk(TEXT), Pause(0.001))),
]


@asynccontextmanager
async def connected(
    directory: Path, *scripts: Script, **deadlines: float
) -> AsyncGenerator[tuple[ChatClient, ScriptedUpstream], None]:
    async with serve(directory, *scripts) as upstream:
        client = ChatClient(
            PlainTransport(uds=upstream.uds),
            dialect=DIALECTS["generic"],
            deadlines=Deadlines(**deadlines),
        )
        with trio.fail_after(90):
            yield client, upstream
        await client.aclose()


async def read(client: ChatClient, got: list[Batch]) -> None:
    async with aclosing(client.generate(HI, Capabilities())) as batches:
        async for batch in batches:
            got.append(batch)  # noqa: PERF401 (what came before a failure counts)


async def read_all(client: ChatClient) -> list[list[Batch]]:
    answers: list[list[Batch]] = [[] for _ in range(STREAMS)]
    async with trio.open_nursery() as nursery:
        for got in answers:
            nursery.start_soon(read, client, got)
    return answers


def tokens(got: list[Batch]) -> int:
    return sum(len(e.deltas) for batch in got for e in batch if isinstance(e, TextDeltas))


@pytest.mark.usefixtures("long_kept")
async def test_all_are_whole(tmp_path: Path) -> None:
    async with connected(tmp_path, [*TRICKLE, chunk(END) + CHUNKS_END]) as (client, upstream):
        for _ in range(2):
            answers = await read_all(client)
            assert [tokens(got) for got in answers] == [TOKENS] * STREAMS
            assert {str(got[-1][-1]) for got in answers} == {str(Finished("end_turn", Usage(0, 0)))}
        assert upstream.connections == STREAMS


async def failure_of_the_first(
    client: ChatClient, upstream: ScriptedUpstream
) -> tuple[BackendFault, int]:
    """And how many tokens came before; the others are whole."""
    faults: list[BackendFault] = []
    got: list[Batch] = []

    async def read_first() -> None:
        with pytest.raises(BackendFault) as caught:
            await read(client, got)
        faults.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_first)
        await upstream.arrived.wait()
        answers = await read_all(client)
        assert [tokens(other) for other in answers] == [TOKENS] * STREAMS
    return faults[0], tokens(got)


GOOD: Script = [*TRICKLE, chunk(END) + CHUNKS_END]


async def test_a_lost_connection_fails_after_what_came(tmp_path: Path) -> None:
    async with connected(tmp_path, [*TRICKLE, Close()], GOOD) as (client, upstream):
        fault, came = await failure_of_the_first(client, upstream)
        assert "broke the connection" in fault.message
        assert came == TOKENS


async def test_the_total_time_ends_a_stream_that_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    endless: Script = [EVENTS_HEAD, Repeat(chunk(TEXT), 0.0005)]
    async with connected(tmp_path, endless, GOOD, total_s=2.0) as (client, upstream):
        fault, came = await failure_of_the_first(client, upstream)
        assert "longer than it may" in fault.message
        assert came > TOKENS


async def test_silence_is_noticed(tmp_path: Path, autojump_clock: MockClock) -> None:
    silent: Script = [*TRICKLE, Pause(60)]
    async with connected(tmp_path, silent, GOOD, idle_s=1.0) as (client, upstream):
        fault, came = await failure_of_the_first(client, upstream)
        assert "did not go on" in fault.message
        assert came == TOKENS
