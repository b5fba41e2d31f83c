"""The agent backend: what it says of itself is its runner's word, and so is its answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from inferd_daemon.backends.agent import AgentBackend
from inferd_daemon.backends.base import (
    Batch,
    Capabilities,
    EmbedRequest,
    Finished,
    GenerateRequest,
    Readiness,
    TextDeltas,
)
from inferd_daemon.errors import RequestError
from inferd_daemon.routing.requirements import missing
from inferd_proto import Message, Text, Tool, Usage

HI = [Message("user", [Text("hi")])]
END = Finished("end_turn", Usage(1, 1))


class PlainRunner:
    """Repeats what it is asked."""

    slots = 3
    capabilities = Capabilities(thinking=True)

    def readiness(self) -> Readiness:
        return Readiness(False, "logged out")

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        (block,) = request.messages[0].content
        assert isinstance(block, Text)
        yield [TextDeltas([block.text])]
        yield [END]


async def test_it_answers_by_its_runner() -> None:
    backend = AgentBackend("coder", PlainRunner())
    assert (backend.name, backend.kind, backend.slots) == ("coder", "agent", 3)
    assert backend.readiness() == Readiness(False, "logged out")
    async with aclosing(backend.generate(GenerateRequest(HI))) as batches:
        assert [batch async for batch in batches] == [[TextDeltas(["hi"])], [END]]


async def test_it_has_neither_tools_nor_vectors() -> None:
    backend = AgentBackend("coder", PlainRunner())
    asked = GenerateRequest(HI, tools=[Tool("f", {"type": "object"})])
    assert missing(asked, backend.capabilities) is not None
    assert missing(GenerateRequest(HI), backend.capabilities) is None
    with pytest.raises(RequestError, match="no embeddings"):
        await backend.embed(EmbedRequest(["a"]))
