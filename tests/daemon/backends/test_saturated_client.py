"""Streams that are read by the beat: the same answers and failures as without it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.base import (
    Batch,
    Capabilities,
    Finished,
    GenerateRequest,
    Sampling,
    TextDeltas,
)
from inferd_daemon.backends.chat_client import ChatClient, Deadlines
from inferd_daemon.backends.chat_completions import DIALECTS
from inferd_daemon.backends.transport import Beat, PlainTransport
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
TOKENS = 60


class CountingBeat(Beat):
    """Of a loop that always works."""

    def __init__(self) -> None:
        super().__init__(trio.current_time, trio.current_time)
        self.waits = 0

    async def wait(self) -> bool:
        waited = await super().wait()
        self.waits += waited
        return waited


@asynccontextmanager
async def saturated(
    directory: Path, script: Script, **deadlines: float
) -> AsyncGenerator[tuple[ChatClient, ScriptedUpstream, CountingBeat], None]:
    async with serve(directory, script) as upstream:
        transport = PlainTransport(uds=upstream.uds)
        beat = transport.beat = CountingBeat()
        client = ChatClient(
            transport, dialect=DIALECTS["generic"], deadlines=Deadlines(**deadlines)
        )
        yield client, upstream, beat
        await client.aclose()


async def read(client: ChatClient, got: list[Batch]) -> None:
    async with aclosing(client.generate(HI, Capabilities())) as batches:
        async for batch in batches:
            got.append(batch)  # noqa: PERF401 (what came before a failure counts)


def trickle() -> Script:
    pause = Pause(0.001)
    return [EVENTS_HEAD, *(step for _ in range(TOKENS) for step in (chunk(TEXT), pause))]


def tokens(got: list[Batch]) -> int:
    return sum(len(e.deltas) for batch in got for e in batch if isinstance(e, TextDeltas))


async def test_the_answer_is_whole_and_comes_in_fewer_pieces(tmp_path: Path) -> None:
    script = [*trickle(), chunk(END) + CHUNKS_END]
    async with saturated(tmp_path, script) as (client, upstream, beat):
        for _ in range(2):
            got: list[Batch] = []
            await read(client, got)
            assert tokens(got) == TOKENS
            assert got[-1][-1] == Finished("end_turn", Usage(0, 0))
        assert beat.waits > 10
        assert upstream.connections == 1


async def test_a_lost_connection_fails_after_what_came(tmp_path: Path) -> None:
    async with saturated(tmp_path, [*trickle(), Close()]) as (client, _, beat):
        got: list[Batch] = []
        with pytest.raises(BackendFault, match="broke the connection"):
            await read(client, got)
        assert tokens(got) == TOKENS
        assert beat.waits > 10


async def test_the_total_time_ends_a_stream_that_never_has_to_be_waited_for(
    tmp_path: Path,
) -> None:
    script: Script = [EVENTS_HEAD, Repeat(chunk(TEXT), 0.0005)]
    async with saturated(tmp_path, script, total_s=0.3) as (client, _, beat):
        got: list[Batch] = []
        with (
            trio.fail_after(5),
            pytest.raises(BackendFault, match="did not end its answer in time"),
        ):
            await read(client, got)
        assert beat.waits > 10


async def test_silence_is_noticed(tmp_path: Path) -> None:
    script = [*trickle(), Pause(60)]
    async with saturated(tmp_path, script, idle_s=0.2) as (client, _, _):
        with trio.fail_after(5), pytest.raises(BackendFault, match="did not go on"):
            await read(client, [])
