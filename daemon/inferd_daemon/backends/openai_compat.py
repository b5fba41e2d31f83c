"""The backend for a server that someone else runs and that speaks Chat Completions.

It only puts together: the client sends, the mapping translates, the transport carries. Readiness is
what the last probe said, or a request that went well since; a failed request is the breaker's
business, unless it confirms that the key is wrong.
"""

import os
import ssl
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import trio
from msgspec.structs import asdict, replace

from ..config import OpenAICompatConfig
from ..config.backend_rules import API_PREFIXES, base_url_mistake, broken_rules, is_key
from ..config.checking import dotted
from ..config.lines import Path as KeyPath
from ..errors import BackendFault, BackendSilence, OperatorError
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
from .chat_completions import Dialect, dialect_of
from .deadlines import Deadlines
from .upstream_facts import Facts, read_facts

if TYPE_CHECKING:
    from .relaying_client import RelayingClient
    from .transport import PlainTransport

PROBE_INTERVAL_S = 10.0
FAR_PROBE_INTERVAL_S = 60.0
"""Of what is not on this machine: a probe may cost a TLS handshake, and be counted."""
PROBE_TIMEOUT_S = 5.0
KEY_RETRY_S = 60.0
"""One that took our key neither when probed nor for a request may have it mended: so often one
request more finds out."""
DEFAULT_SLOTS = 32
LLAMA_SERVER_SLOTS = 4
"""What llama-server makes where nothing is said; it tells its real number when it is probed."""
MAX_KEY_BYTES = 64 * 1024
_REFUSED = frozenset((401, 403))
_NOT_IMPLEMENTED = 501


class UnfitKey(OperatorError):
    """What stands at `key` of the backend's table cannot work."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class OpenAICompatBackend(Backend):
    """Any Chat Completions server, over http, https or a Unix socket."""

    kind = "openai_compat"

    def __init__(self, name: str, config: OpenAICompatConfig) -> None:
        """Raises OperatorError where the configuration cannot work."""
        self.name = name
        self._config = config
        self._dialect = dialect_of(config)
        self._verdict = Readiness(True)
        self._refused: int | None = None
        self._probed_at = -inf
        self._facts = Facts()
        self._capabilities = Capabilities(
            tools=config.tools,
            tool_choice=self._dialect.tool_choice,
            response_format=self._dialect.response_format,
            grammar=self._dialect.grammar_field is not None,
            thinking=self._dialect.thinking_by is not None,
            vision=config.vision,
            audio=config.audio,
            embed=config.embed,
            rerank=config.rerank,
            apis=self._dialect.apis or None,
            audio_sample_rate=config.audio_sample_rate,
        )
        for path, why in broken_rules(self.kind, asdict(config)):
            raise OperatorError(f"backend {name}: {dotted(path)}: {why}")
        self._far = config.uds is None and not _is_loopback(config.base_url)
        try:
            self._client = _client(config, self._dialect)
        except OperatorError as error:
            raise OperatorError(f"backend {name}: {error}") from None

    @property
    def slots(self) -> int:
        """As configured, else what llama-server tells; of the others their owner knows."""
        if self._config.slots is not None:
            return self._config.slots
        if self._config.upstream == "llama_server":
            return self._facts.slots or LLAMA_SERVER_SLOTS
        return DEFAULT_SLOTS

    @property
    def capabilities(self) -> Capabilities:
        """By the configuration and the kind of upstream; llama-server tells more when probed."""
        return self._capabilities

    @property
    def dropped(self) -> int:
        """Malformed lines that the upstream has sent so far."""
        return self._client.dropped

    def readiness(self) -> Readiness:
        """What the last probe said, or a success since; ready before the first probe.

        A key that may not list models may still do for requests, so that a probe was refused proves
        nothing until a request is, too.
        """
        signs, refused = self._client.signs, self._refused
        if signs.succeeded_at > (self._probed_at if refused is None else -inf):
            return Readiness(True)
        if refused is not None and trio.current_time() - signs.refused_at < KEY_RETRY_S:
            words = f"upstream answered {refused}: it does not accept the api_key"
            return Readiness(False, words)
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

    def relays(self, request: RelayRequest) -> bool:
        """See `can_be_relayed`."""
        from .relaying_client import can_be_relayed

        body = request.body
        return isinstance(body, GenerateRequest) and can_be_relayed(body, self._dialect)

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[Relayed]:
        """See `RelayingClient.relay`."""
        return self._client.relay(request, self._capabilities)

    async def run(self) -> None:
        """Probe from time to time, until cancelled."""
        while True:
            if not self._far or not self._served_lately():
                await self.probe()
            # one that is gone is looked for more often, wherever it was
            rare = self._far and self.readiness().ready
            await trio.sleep(FAR_PROBE_INTERVAL_S if rare else PROBE_INTERVAL_S)

    async def probe(self) -> Readiness:
        """Ask the upstream whether it serves, and remember the answer. Never raises.

        One that answers our requests has no time for it where it does one thing at a time.
        """
        tells = self._config.upstream == "llama_server"
        path = "/health" if tells else f"{self._dialect.api_prefix}/v1/models"
        try:
            if self._far:
                status = await self._client.status_of(path, timeout_s=PROBE_TIMEOUT_S)
            else:
                status, _ = await self._client.get(path, timeout_s=PROBE_TIMEOUT_S)
            if tells and status == 200:
                status = await self._learn()
        except BackendFault as error:
            if _is_silence(error) and self._busy():
                return self.readiness()
            self._verdict = Readiness(False, error.message)
            self._refused = None
        else:
            self._verdict = _judge(status)
            self._refused = status if status in _REFUSED else None
        self._probed_at = trio.current_time()
        return self._verdict

    def _busy(self) -> bool:
        """A part of an answer came so lately that the next may still be on its way, or a request is
        yet to be answered: reading a long prompt takes its time.

        Where another ran out of its time, and nothing was heard since, that proves nothing.
        """
        signs = self._client.signs
        if signs.unheard and signs.silent_at <= max(signs.heard_at, self._probed_at):
            return True
        return trio.current_time() - signs.heard_at < self._config.idle_timeout_s

    def _served_lately(self) -> bool:
        return trio.current_time() - self._client.signs.succeeded_at < FAR_PROBE_INTERVAL_S

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _learn(self) -> int:
        """What llama-server says of its model; wakes none that sleeps. Raises BackendFault."""
        status, body = await self._client.get("/props", timeout_s=PROBE_TIMEOUT_S)
        facts = read_facts(body) if status == 200 else None
        if facts is not None:
            self._facts = facts
            self._capabilities = replace(
                self._capabilities,
                vision=self._config.vision or facts.vision,
                audio=self._config.audio or facts.audio,
                n_ctx=facts.n_ctx,
            )
        return status


def unfit_keys(config: OpenAICompatConfig) -> Iterator[tuple[KeyPath, str]]:
    """What of the table breaks a rule, or does not fit this machine: each key and why."""
    broken = list(broken_rules(OpenAICompatBackend.kind, asdict(config)))
    yield from broken
    if broken:
        return
    steps: list[Callable[[OpenAICompatConfig], object]] = [_ready_url]
    if config.api_key_file is None or not _is_pipe(config.api_key_file):
        steps.append(_read_key)
    if config.tls_ca_file is not None:
        steps.append(_tls_context)
    for attempt in steps:
        try:
            attempt(config)
        except UnfitKey as error:
            yield (error.key,), error.why


def _is_pipe(name: str) -> bool:
    """Such as the shell's `<(…)`: what is read from it once is gone."""
    try:
        return stat.S_ISFIFO(Path(name).stat().st_mode)
    except OSError:
        return False


def normalise_base_url(base_url: str, api_prefix: str = "") -> str:
    """Scheme and host alone; a trailing slash, `/v1` and `api_prefix` are dropped.

    Raises UnfitKey.
    """
    mistake = base_url_mistake(base_url, api_prefix)
    if mistake is not None:
        raise UnfitKey("base_url", mistake)
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise UnfitKey("base_url", str(error)) from None
    return f"{url.scheme}://{url.netloc.decode()}"


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _is_silence(fault: BackendFault) -> bool:
    """Whether the time ran out, which a server may let happen that is busy."""
    return isinstance(fault, BackendSilence) or isinstance(fault.__cause__, httpx.TimeoutException)


def _ready_url(config: OpenAICompatConfig) -> str:
    return normalise_base_url(config.base_url, API_PREFIXES.get(config.upstream, ""))


def _client(config: OpenAICompatConfig, dialect: Dialect) -> "RelayingClient":
    # httpx takes long to load: who configures no such backend is not to wait for it.
    from .relaying_client import RelayingClient

    base_url = _ready_url(config)
    return RelayingClient(
        _transport(config, base_url),
        base_url=base_url,
        dialect=dialect,
        model=config.model,
        api_key=_read_key(config),
        headers=config.headers,
        deadlines=Deadlines(
            total_s=config.timeout_s,
            connect_s=config.connect_timeout_s,
            first_byte_s=config.first_byte_timeout_s,
            idle_s=config.idle_timeout_s,
        ),
        api_prefix=dialect.api_prefix,
    )


def _transport(config: OpenAICompatConfig, base_url: str) -> "PlainTransport":
    from .transport import PlainTransport

    if base_url.startswith("http://"):
        return PlainTransport(uds=config.uds)
    from .transport.tls import TlsTransport

    return TlsTransport(_tls_context(config), uds=config.uds)


# The name is not looked up at once: ssl is long to load, and seldom needed.
def _tls_context(config: OpenAICompatConfig) -> "ssl.SSLContext":
    context = ssl.create_default_context()
    if config.tls_ca_file is not None:
        try:
            context.load_verify_locations(cafile=config.tls_ca_file)
        except OSError as error:
            raise UnfitKey("tls_ca_file", f"cannot be used: {error}") from None
    return context


def _read_key(config: OpenAICompatConfig) -> str | None:
    """Raises UnfitKey, without a word of the key."""
    if config.api_key_env is not None:
        where, key = "api_key_env", os.environ.get(config.api_key_env)
        if key is None:
            raise UnfitKey(where, f"there is no variable {config.api_key_env} in the environment")
    elif config.api_key_file is not None:
        where, key = "api_key_file", _read_file(config.api_key_file)
    else:
        return config.api_key or None
    key = key.strip()
    if not is_key(key):
        raise UnfitKey(where, "must hold one line of ASCII")
    return key or None


def _read_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_KEY_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UnfitKey("api_key_file", f"cannot be read: {reason}") from None


def _judge(status: int) -> Readiness:
    """A server without `/v1/models` serves all the same; so may one that does not let us list."""
    if status in _REFUSED:
        return Readiness(True, f"upstream answered {status} when probed: its api_key may be wrong")
    if status >= 500 and status != _NOT_IMPLEMENTED:
        return Readiness(False, f"upstream answered {status}; it may still be loading its model")
    return Readiness(True)
