"""The backend without a model, as it behaves and as it misbehaves on request."""

from contextlib import aclosing
from math import isclose, sqrt
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.base import (
    EmbedRequest,
    Finished,
    GenerateEvent,
    GenerateRequest,
    Readiness,
    RerankRequest,
    Sampling,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.backends.mock import BATCH, FIRST_BATCH, MAX_NUMBERS, MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.errors import BackendFault, CallerFault
from inferd_proto import ErrorCode, Message, Text, Tool, Usage

USER = [Message("user", [Text("one two three")])]
TOOLS = [Tool("first", {}), Tool("second", {})]


def mock(**config: Any) -> MockBackend:  # noqa: ANN401  fields of any type
    return MockBackend("m", MockConfig(**config))


async def events(backend: MockBackend, **request: Any) -> list[GenerateEvent]:  # noqa: ANN401
    async with aclosing(backend.generate(GenerateRequest(USER, **request))) as batches:
        return [event async for batch in batches for event in batch]


async def test_counts_tokens_up_to_the_budget() -> None:
    assert await events(mock(), sampling=Sampling(max_tokens=3)) == [
        TextDeltas(["tok0 ", "tok1 ", "tok2 "]),
        Finished("max_tokens", Usage(3, 3)),
    ]
    *_, end = await events(mock(max_tokens=5))
    assert end == Finished("end_turn", Usage(3, 5))


async def test_the_first_batch_is_small() -> None:
    *texts, _end = await events(mock(max_tokens=1000))
    sizes = [len(text.deltas) for text in texts if isinstance(text, TextDeltas)]
    assert sizes[:2] == [FIRST_BATCH, BATCH]
    assert sum(sizes) == 1000


async def test_takes_its_time(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    found = await events(mock(first_token_ms=500, token_ms=20, max_tokens=10))
    assert trio.current_time() - started == pytest.approx(0.7)
    assert found[:2] == [TextDeltas(["tok0 "]), TextDeltas(["tok1 "])]


async def test_thinks_aloud_where_asked() -> None:
    first, *_ = await events(mock(), thinking=True)
    assert first == ThinkingDeltas(["thought "])


@pytest.mark.parametrize(
    ("config", "request_", "calls"),
    [
        ({}, {}, False),
        ({"tool_call": True}, {}, False),
        ({}, {"tools": TOOLS}, False),
        ({}, {"tools": TOOLS, "tool_choice": "auto"}, False),
        ({}, {"tools": TOOLS, "tool_choice": "required"}, True),
        ({"tool_call": True}, {"tools": TOOLS}, True),
        ({"tool_call": True}, {"tools": TOOLS, "tool_choice": "none"}, False),
    ],
)
async def test_calls_the_first_tool_when_told_to(
    config: dict[str, Any], request_: dict[str, Any], calls: bool
) -> None:
    first, *_, end = await events(mock(**config), **request_)
    assert isinstance(end, Finished)
    assert (end.stop_reason == "tool_use") is calls
    assert (first == ToolCall("mock-call-0", "first", {})) is calls


async def test_fails_before_its_stream() -> None:
    broken = mock(error="out of order")
    for failing in (
        events(broken),
        broken.embed(EmbedRequest(["x"])),
        broken.rerank(RerankRequest("q", ["d"])),
    ):
        with pytest.raises(BackendFault, match="out of order"):
            await failing


@pytest.mark.parametrize("after", [0, 1, 30])
async def test_drops_its_stream(after: int) -> None:
    seen = 0
    generating = mock(drop_after=after, max_tokens=100).generate(GenerateRequest(USER))

    async def read() -> None:
        nonlocal seen
        async with aclosing(generating) as batches:
            async for batch in batches:
                seen += sum(len(e.deltas) for e in batch if isinstance(e, TextDeltas))

    with pytest.raises(BackendFault, match=f"dropped the stream after {after} tokens"):
        await read()
    assert seen == after


async def test_a_drop_after_the_end_is_none() -> None:
    *_, end = await events(mock(drop_after=16, max_tokens=16))
    assert isinstance(end, Finished)


def test_readiness_and_slots_as_configured() -> None:
    assert mock().readiness() == Readiness(True)
    assert mock(not_ready="asleep").readiness() == Readiness(False, "asleep")
    assert mock(slots=3).slots == 3


async def test_vectors_are_units_and_equal_for_equal_texts() -> None:
    found = await mock(dimensions=100).embed(EmbedRequest(["a b", "c", "a b"]))
    first, other, again = found.embeddings
    assert first == again != other
    assert [len(vector) for vector in found.embeddings] == [100] * 3
    assert all(isclose(sqrt(sum(x * x for x in vector)), 1) for vector in found.embeddings)
    assert (found.model, found.input_tokens) == ("m", 5)


@pytest.mark.parametrize(
    "request_",
    [
        EmbedRequest(["x"], dimensions=2**31 - 1),
        EmbedRequest(["x"] * 1001, dimensions=MAX_NUMBERS // 1000),
    ],
)
async def test_more_numbers_than_it_makes(request_: EmbedRequest) -> None:
    with pytest.raises(CallerFault) as caught:
        await mock().embed(request_)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


async def test_ranks_by_shared_words() -> None:
    found = await mock().rerank(RerankRequest("Red fox", ["a red FOX", "red", "", "foxes"]))
    assert found.scores == [1.0, 0.5, 0.0, 0.0]
    assert (await mock().rerank(RerankRequest(" ", ["x"]))).scores == [0.0]
