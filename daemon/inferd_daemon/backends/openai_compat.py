"""The backend for a server that someone else runs and that speaks Chat Completions.

It only puts together: the client sends, the mapping translates, the transport carries. Readiness is
what the last probe said, or a request that went well since; a failed request is the breaker's
business.
"""

import ssl
from collections.abc import AsyncGenerator
from math import inf
from pathlib import Path

import httpx
import trio
from msgspec.structs import replace

from ..config import OpenAICompatConfig
from ..errors import BackendFault, OperatorError
from .base import (
    Backend,
    Batch,
    Capabilities,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    Readiness,
    RerankRequest,
    RerankResult,
)
from .chat_client import ChatClient, Deadlines
from .chat_completions import DIALECTS
from .transport import PlainTransport
from .upstream_facts import read_facts

PROBE_INTERVAL_S = 10.0
PROBE_TIMEOUT_S = 5.0
MAX_KEY_BYTES = 64 * 1024


class OpenAICompatBackend(Backend):
    """Any Chat Completions server, over http, https or a Unix socket."""

    kind = "openai_compat"

    def __init__(self, name: str, config: OpenAICompatConfig) -> None:
        """Raises OperatorError where the configuration cannot work."""
        self.name = name
        self._config = config
        self._dialect = DIALECTS[config.upstream]
        self._verdict = Readiness(True)
        self._probed_at = -inf
        self._capabilities = Capabilities(
            tools=True,
            tool_choice=self._dialect.tool_choice,
            response_format=self._dialect.response_format,
            grammar=self._dialect.grammar_field is not None,
            thinking=self._dialect.thinking_by is not None,
            vision=config.vision,
            audio=config.audio,
            embed=config.embed,
            rerank=config.rerank,
        )
        try:
            base_url = normalise_base_url(config.base_url)
            self._client = ChatClient(
                _transport(config, base_url),
                base_url=base_url,
                dialect=self._dialect,
                model=config.model,
                api_key=_read_key(config),
                headers=_check_headers(config.headers),
                deadlines=Deadlines(
                    total_s=config.timeout_s,
                    connect_s=config.connect_timeout_s,
                    first_byte_s=config.first_byte_timeout_s,
                    idle_s=config.idle_timeout_s,
                ),
            )
        except OperatorError as error:
            raise OperatorError(f"backend {name}: {error}") from None

    @property
    def slots(self) -> int:
        """As configured: what the upstream works on at once is its owner's knowledge."""
        return self._config.slots

    @property
    def capabilities(self) -> Capabilities:
        """By the kind of upstream and the configuration; llama-server tells more when probed."""
        return self._capabilities

    @property
    def dropped(self) -> int:
        """Malformed lines that the upstream has sent so far."""
        return self._client.dropped

    def readiness(self) -> Readiness:
        """What the last probe said, or a success since; ready before the first probe."""
        if self._client.succeeded_at > self._probed_at:
            return Readiness(True)
        return self._verdict

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """See `ChatClient.generate`."""
        return self._client.generate(request, self._capabilities)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """See `ChatClient.embed`."""
        return await self._client.embed(request)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """See `ChatClient.rerank`."""
        return await self._client.rerank(request)

    async def run(self) -> None:
        """Probe from time to time, until cancelled."""
        while True:
            await self.probe()
            await trio.sleep(PROBE_INTERVAL_S)

    async def probe(self) -> Readiness:
        """Ask the upstream whether it serves, and remember the answer. Never raises."""
        local = self._config.upstream == "llama_server"
        try:
            status, _ = await self._client.get(
                "/health" if local else "/v1/models", timeout_s=PROBE_TIMEOUT_S
            )
            if local and status == 200:
                status = await self._learn()
        except BackendFault as error:
            self._verdict = Readiness(False, error.message)
        else:
            self._verdict = _judge(status)
        self._probed_at = trio.current_time()
        return self._verdict

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _learn(self) -> int:
        """What llama-server says of its model; wakes none that sleeps. Raises BackendFault."""
        status, body = await self._client.get("/props", timeout_s=PROBE_TIMEOUT_S)
        facts = read_facts(body) if status == 200 else None
        if facts is not None:
            self._capabilities = replace(
                self._capabilities,
                vision=self._config.vision or facts.vision,
                audio=self._config.audio or facts.audio,
                n_ctx=facts.n_ctx,
            )
        return status


def normalise_base_url(base_url: str) -> str:
    """Scheme and host alone; a trailing slash and `/v1` are dropped. Raises OperatorError."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise OperatorError(f"base_url: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or {" ", "%"} & set(url.host):
        raise OperatorError("base_url: must be http://host or https://host, with a port if needed")
    if url.userinfo:
        raise OperatorError("base_url: must hold no user or password; use api_key_file")
    path = url.path.rstrip("/").removesuffix("/v1")
    if path or url.query or url.fragment:
        raise OperatorError("base_url: must end after the host; `/v1/…` is appended")
    return f"{url.scheme}://{url.netloc.decode()}"


def _transport(config: OpenAICompatConfig, base_url: str) -> httpx.AsyncBaseTransport:
    if base_url.startswith("http://"):
        if config.tls_ca_file is not None:
            raise OperatorError("tls_ca_file: needs a base_url with https://")
        return PlainTransport(uds=config.uds)
    context = ssl.create_default_context()
    if config.tls_ca_file is not None:
        try:
            context.load_verify_locations(cafile=config.tls_ca_file)
        except OSError as error:
            raise OperatorError(f"tls_ca_file: cannot be used: {error}") from None
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4.0)
    return httpx.AsyncHTTPTransport(verify=context, limits=limits, uds=config.uds, trust_env=False)


def _read_key(config: OpenAICompatConfig) -> str | None:
    """Raises OperatorError, without a word of the key."""
    if config.api_key_file is None:
        key = config.api_key or ""
    else:
        if config.api_key is not None:
            raise OperatorError("api_key_file: excludes api_key")
        try:
            with Path(config.api_key_file).open("rb") as file:
                key = file.read(MAX_KEY_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise OperatorError(f"api_key_file: cannot be read: {reason}") from None
    if not key.isascii() or not key.isprintable():
        raise OperatorError("api_key: must be one line of ASCII")
    return key or None


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not plain or not value.isprintable():
            raise OperatorError(f"headers: {name!r} is no header that can be sent")
        if name.lower() in ("content-length", "transfer-encoding", "connection"):
            raise OperatorError(f"headers: {name!r} is the transport's own")
    return headers


def _judge(status: int) -> Readiness:
    """A server without `/v1/models` serves all the same; one that refuses the key does not."""
    if status in (401, 403):
        return Readiness(False, f"upstream answered {status}: it does not accept the api_key")
    if status >= 500:
        return Readiness(False, f"upstream answered {status}; it may still be loading its model")
    return Readiness(True)
