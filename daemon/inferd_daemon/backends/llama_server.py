"""Answers through a llama-server that the daemon starts when a request needs it.

Requests go straight to the server's own socket; each holds the runtime while it runs. Starting,
stopping and making room for it is others' business, seen here as an `OnDemandRuntime` only.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from ..config import LlamaServerConfig
from ..errors import BackendFault
from .base import (
    Backend,
    Batch,
    Capabilities,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    Readiness,
    Relayed,
    RelayRequest,
    RerankRequest,
    RerankResult,
)
from .chat_completions import DIALECTS
from .deadlines import Deadlines
from .engine_turns import EngineTurns
from .runtime import Endpoint, OnDemandRuntime
from .silence import busy_slots

if TYPE_CHECKING:
    from .relaying_client import RelayingClient
    from .transport import PlainTransport

DEFAULT_SLOTS = 4
"""What llama-server makes where `parallel` is not given."""
DEADLINES = Deadlines(total_s=6 * 3600, connect_s=5, first_byte_s=1800, idle_s=300)
"""A slow machine may take that long over a long prompt. A server that hangs is found by its health
checks, and its end breaks the streams."""


class LlamaServerBackend(Backend):
    """One llama-server, by the boot spec in its table."""

    kind = "llama_server"

    def __init__(self, name: str, config: LlamaServerConfig, runtime: OnDemandRuntime) -> None:
        self.name = name
        self._config = config
        self._runtime = runtime
        self._turns = EngineTurns(self.slots, self._busy_slots)
        self._client: RelayingClient | None = None
        self._client_for: Endpoint | None = None
        self._dropped = 0  # of former clients
        self._transport: PlainTransport | None = None
        runtime.on_ending(self._break_off)

    @property
    def slots(self) -> int:
        """As configured, else as the server makes them."""
        return self._config.parallel or DEFAULT_SLOTS

    @property
    def capabilities(self) -> Capabilities:
        """By the spec; by the model as well once it was loaded. Until then nothing is ruled out
        that the model could bring.
        """
        config, facts = self._config, self._runtime.facts
        generates = not (config.embeddings or config.reranking)
        sees = config.mmproj is not None
        return Capabilities(
            generate=generates,
            # llama.cpp constrains calls by grammar, whatever the chat template knows of tools.
            tools=generates,
            tool_choice=generates,
            response_format=generates,
            grammar=generates,
            apis=DIALECTS["llama_server"].apis if generates else None,
            thinking=generates and (facts is None or facts.template_thinking),
            vision=generates and (sees if facts is None else facts.vision),
            audio=generates and (sees if facts is None else facts.audio),
            embed=config.embeddings,
            rerank=config.reranking,
            accelerator=None if facts is None else facts.accelerator,
            gpu_layers=None if facts is None else facts.gpu_layers,
            n_ctx=None if facts is None else facts.n_ctx,
        )

    @property
    def dropped(self) -> int:
        """Malformed lines that its servers have sent so far."""
        return self._dropped + (0 if self._client is None else self._client.dropped)

    def readiness(self) -> Readiness:
        """Ready when it runs or can be started."""
        return self._runtime.readiness()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """As the interface says. Raises BackendFault where the server cannot be had."""
        async with self._runtime.holding():
            answer = self._turns.generate(
                self._open, request, lambda: self.capabilities, self._wait_replaced
            )
            async with aclosing(answer) as batches:
                async for batch in batches:
                    yield batch

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """As the interface says."""
        if not self.capabilities.embed:
            return await super().embed(request)
        async with self._runtime.holding():
            return await self._turns.ask(lambda: self._open().embed, request, self._wait_replaced)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """As the interface says."""
        if not self.capabilities.rerank:
            return await super().rerank(request)
        async with self._runtime.holding():
            return await self._turns.ask(lambda: self._open().rerank, request, self._wait_replaced)

    @asynccontextmanager
    async def relay(self, request: RelayRequest) -> AsyncGenerator[Relayed, None]:
        """As the interface says."""
        async with (
            self._runtime.holding(),
            self._turns.relay(
                self._open, request, lambda: self.capabilities, self._wait_replaced
            ) as relayed,
        ):
            yield relayed

    async def run(self) -> None:
        """Watch over its turns until cancelled."""
        await self._turns.run()

    async def close(self) -> None:
        """Close idle connections to the server."""
        if self._client is not None:
            await self._client.aclose()

    def _break_off(self) -> bool:
        """A llama-server that is interrupted in mid-stream can hang in its clean-up."""
        return self._transport is not None and self._transport.break_off()

    async def _busy_slots(self) -> int | None:
        if self._client is None or self._client_for is None:
            return None
        return await busy_slots(self._client, self._client_for.api_prefix)

    async def _wait_replaced(self, fault: BackendFault) -> None:
        """Where the server could not even be reached, wait for its next life; else raise `fault`.

        Nothing was sent, so sending now repeats nothing.
        """
        if not isinstance(fault.__cause__, httpx.ConnectError):
            raise fault
        if not await self._runtime.replaced():
            raise fault

    def _open(self) -> "RelayingClient":
        """A client of the address as it is now; only a port that the server chose can change."""
        # httpx takes long to load, and after an upgrade clients wait for whatever loads first
        from .relaying_client import RelayingClient
        from .transport import PlainTransport

        endpoint = self._runtime.endpoint
        if self._client is None or endpoint != self._client_for:
            self._dropped = self.dropped
            host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
            self._transport = PlainTransport(
                uds=str(endpoint.uds) if endpoint.uds else None, leave=self._turns.leave
            )
            self._client = RelayingClient(
                self._transport,
                base_url="http://localhost" if endpoint.uds else f"http://{host}:{endpoint.port}",
                dialect=DIALECTS["llama_server"],
                api_key=endpoint.key,
                deadlines=DEADLINES,
                api_prefix=endpoint.api_prefix,
            )
            self._client_for = endpoint
        return self._client
