"""A backend without a model, shipped as product code: for trying clients and for tests.

It says what it is in every token, and misbehaves on purpose as its configuration asks.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import sqrt

import trio

from inferd_proto import StopReason, Text, Usage

from ..config import MockConfig
from ..errors import BackendFault, CallerFault
from .base import (
    Backend,
    Batch,
    Capabilities,
    EmbedRequest,
    EmbedResult,
    Finished,
    GenerateRequest,
    Readiness,
    RerankRequest,
    RerankResult,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)

FIRST_BATCH = 8
"""A small first batch: a reader sees the first token before the rest is made."""
BATCH = 64
"""Tokens between two turns of the event loop: what a fast upstream brings in one receive."""
MAX_NUMBERS = 1_000_000
"""In the vectors of one answer: a client must not have the daemon's memory for the asking."""


class MockBackend(Backend):
    """Answers `max_tokens` tokens `tok0 tok1 …`."""

    kind = "mock"

    def __init__(self, name: str, config: MockConfig) -> None:
        self.name = name
        self._config = config

    @property
    def slots(self) -> int:
        """As configured."""
        return self._config.slots

    @property
    def capabilities(self) -> Capabilities:
        """Everything: it looks at none of it."""
        return Capabilities(
            tools=True,
            tool_choice=True,
            response_format=True,
            grammar=True,
            thinking=True,
            vision=True,
            audio=True,
            embed=True,
            rerank=True,
        )

    def readiness(self) -> Readiness:
        """As configured."""
        if self._config.not_ready is not None:
            return Readiness(False, self._config.not_ready)
        return Readiness(True)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """Tokens, or a tool call where configured or required.

        Raises BackendFault as configured.
        """
        config = self._config
        if config.error is not None:
            raise BackendFault(config.error)
        if config.first_token_ms:
            await trio.sleep(config.first_token_ms / 1000)
        count = request.sampling.max_tokens or config.max_tokens
        words = _count_words(request)
        tool_call = self._tool_call(request)
        if tool_call is not None:
            yield [tool_call, Finished("tool_use", Usage(words, 1))]
            return
        if request.thinking:
            yield [ThinkingDeltas(["thought "])]
        async with aclosing(self._tokens(count)) as tokens:
            async for deltas in tokens:
                yield [TextDeltas(deltas)]
        reason: StopReason = "max_tokens" if request.sampling.max_tokens else "end_turn"
        yield [Finished(reason, Usage(words, count))]

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Unit vectors drawn from a hash: equal texts get equal vectors, nothing more.

        Raises CallerFault over `MAX_NUMBERS`, BackendFault as configured.
        """
        self._fail_if_told()
        size = request.dimensions or self._config.dimensions
        if size * len(request.input) > MAX_NUMBERS:
            raise CallerFault(
                f"backend {self.name} makes at most {MAX_NUMBERS} numbers a request,"
                f" not {len(request.input)} vectors of {size}"
            )
        vectors: list[list[float]] = []
        for text in request.input:
            vectors.append(_vector(text, size))
            await trio.lowlevel.checkpoint()
        return EmbedResult(vectors, self.name, sum(len(text.split()) for text in request.input))

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """The share of the query's words that a document holds."""
        self._fail_if_told()
        query = set(request.query.lower().split())
        scores: list[float] = []
        for document in request.documents:
            shared = query & set(document.lower().split())
            scores.append(len(shared) / len(query) if query else 0.0)
            await trio.lowlevel.checkpoint()
        total = sum(len(text.split()) for text in (request.query, *request.documents))
        return RerankResult(scores, self.name, total)

    def _fail_if_told(self) -> None:
        if self._config.error is not None:
            raise BackendFault(self._config.error)

    def _tool_call(self, request: GenerateRequest) -> ToolCall | None:
        if not request.tools or request.tool_choice == "none":
            return None
        if self._config.tool_call or request.tool_choice == "required":
            return ToolCall("mock-call-0", request.tools[0].name, {})
        return None

    async def _tokens(self, count: int) -> AsyncGenerator[list[str], None]:
        config = self._config
        end = count if config.drop_after is None else min(count, config.drop_after)
        start = 0
        size = 1 if config.token_ms else FIRST_BATCH
        while start < end:
            stop = min(start + size, end)
            yield [f"tok{i} " for i in range(start, stop)]
            start = stop
            if config.token_ms:
                await trio.sleep(config.token_ms / 1000)
            else:
                size = BATCH
        if end < count:
            raise BackendFault(f"backend {self.name} dropped the stream after {end} tokens")


def _count_words(request: GenerateRequest) -> int:
    blocks = (block for message in request.messages for block in message.content)
    return sum(len(block.text.split()) for block in blocks if isinstance(block, Text))


def _vector(text: str, size: int) -> list[float]:
    raw = b"".join(
        hashlib.blake2b(text.encode(), salt=i.to_bytes(8, "little")).digest()
        for i in range(size // 64 + 1)
    )
    values = [byte - 127.5 for byte in raw[:size]]
    norm = sqrt(sum(value * value for value in values))
    return [value / norm for value in values]
