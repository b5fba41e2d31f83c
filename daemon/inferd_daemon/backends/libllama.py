"""Answers through llama.cpp's own server in a worker process that the daemon owns.

Requests go straight to the worker's Unix socket; its process is the supervisor's business and is
seen here as a `Runtime` only.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import httpx
import trio

from ..config import LibllamaConfig
from ..errors import BackendFault, OperatorError, UpstreamFault
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
from .runtime import ModelFacts, Runtime
from .silence import busy_slots

if TYPE_CHECKING:
    from .relaying_client import RelayingClient

PATIENCE_S = 5.0
"""How long a request waits for a worker that loads or restarts: longer than a crash and a small
model take, shorter than a client's own patience."""
NOTICE_S = 0.5
"""The kernel tells of a worker's end within milliseconds; this is for a loaded machine."""
DEADLINES = Deadlines(total_s=6 * 3600, connect_s=5, first_byte_s=1800, idle_s=300)
"""A slow machine may take that long over a long prompt. A worker that hangs is found by its health
checks, and its end breaks the streams."""


class LibllamaBackend(Backend):
    """One model in one worker, with `parallel` slots."""

    kind = "libllama"

    def __init__(
        self,
        name: str,
        config: LibllamaConfig,
        runtime: Runtime,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Raises OperatorError for a runtime that does not listen on a Unix socket."""
        self.name = name
        self._config = config
        self._runtime = runtime
        self._patience_s = patience_s
        # Each request holds one of the worker's HTTP threads. Were all held, health checks would
        # wait behind them, and a worker that is only busy would be taken for hung.
        self._turns = EngineTurns(config.parallel, lambda: busy_slots(self._client))
        if runtime.endpoint.uds is None:
            raise OperatorError(f"backend {name}: its runtime has no Unix socket")

    @property
    def slots(self) -> int:
        """The engine's slots."""
        return self._config.parallel

    @property
    def capabilities(self) -> Capabilities:
        """By the configuration; by the model as well once it was loaded."""
        config, facts = self._config, self._runtime.facts or ModelFacts()
        generates = not (config.embeddings or config.reranking)
        return Capabilities(
            generate=generates,
            # llama.cpp constrains calls by grammar, whatever the chat template knows of tools.
            tools=generates,
            tool_choice=generates,
            response_format=generates,
            grammar=generates,
            apis=DIALECTS["llama_server"].apis if generates else None,
            thinking=generates and facts.template_thinking,
            vision=facts.vision,
            audio=facts.audio,
            embed=config.embeddings and not config.reranking,
            rerank=config.reranking,
            accelerator=facts.accelerator,
            gpu_layers=facts.gpu_layers,
            n_ctx=facts.n_ctx,
        )

    @property
    def dropped(self) -> int:
        """Malformed lines that the worker has sent so far."""
        return self._client.dropped if "_client" in vars(self) else 0

    def readiness(self) -> Readiness:
        """As its supervisor sees it."""
        return self._runtime.readiness()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """As the interface says. Raises BackendFault with the worker's reason while it is down."""
        await self._wait_ready()
        if not self.capabilities.generate:
            raise BackendFault(f"backend {self.name} serves a model that generates no text")
        answer = self._turns.generate(
            lambda: self._client, request, lambda: self.capabilities, self._wait_restarted
        )
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """As the interface says."""
        if not self.capabilities.embed:
            return await super().embed(request)
        await self._wait_ready()
        return await self._turns.ask(lambda: self._client.embed, request, self._wait_restarted)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """As the interface says."""
        if not self.capabilities.rerank:
            return await super().rerank(request)
        await self._wait_ready()
        return await self._turns.ask(lambda: self._client.rerank, request, self._wait_restarted)

    @asynccontextmanager
    async def relay(self, request: RelayRequest) -> AsyncGenerator[Relayed, None]:
        """As the interface says."""
        await self._wait_ready()
        answer = self._turns.relay(
            lambda: self._client, request, lambda: self.capabilities, self._wait_restarted
        )
        async with answer as relayed:
            yield relayed

    async def run(self) -> None:
        """Watch over its turns until cancelled."""
        await self._turns.run()

    async def close(self) -> None:
        """Close idle connections to the worker."""
        if "_client" in vars(self):  # it was used
            await self._client.aclose()

    @cached_property
    def _client(self) -> "RelayingClient":
        # httpx takes long to load, and after an upgrade clients wait for whatever loads first
        from .relaying_client import RelayingClient
        from .transport import PlainTransport

        endpoint = self._runtime.endpoint
        return RelayingClient(
            PlainTransport(uds=str(endpoint.uds), leave=self._turns.leave),
            dialect=DIALECTS["llama_server"],
            api_key=endpoint.key,
            deadlines=DEADLINES,
        )

    async def _wait_ready(self) -> None:
        """Wait a short while for a worker that is on its way. Raises BackendFault."""
        if self._runtime.readiness().ready:
            return
        with trio.move_on_after(self._patience_s):
            await self._runtime.wait_settled()
        readiness = self._runtime.readiness()
        if not readiness.ready:
            raise BackendFault(readiness.reason)

    async def _wait_restarted(self, fault: BackendFault) -> None:
        """Where the worker could not even be reached, wait for its next life; else raise `fault`,
        or why the worker ended where its end was what broke the connection.

        A worker that died a moment ago refuses connections before its supervisor knows. Nothing
        was sent to it, so sending now repeats nothing.
        """
        broken = fault.__cause__
        if not isinstance(broken, httpx.NetworkError | httpx.RemoteProtocolError):
            raise fault
        with trio.move_on_after(NOTICE_S):
            while self._runtime.readiness().ready:
                await self._runtime.wait_changed()
        readiness = self._runtime.readiness()
        if readiness.ready:
            raise fault
        if not isinstance(broken, httpx.ConnectError):
            raise UpstreamFault(f"lost in the middle of a request: {readiness.reason}") from broken
        await self._wait_ready()
