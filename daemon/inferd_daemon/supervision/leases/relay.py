"""Carries a request of a lease's owner to the lease's runtime, and the answer back, undecoded.

For those who know only URLs: the daemon's HTTP front is their way to a runtime on a Unix socket.
The runtime's own key never leaves the daemon.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import httpx
import trio

from inferd_proto import ErrorCode

from ...backends.runtime import Endpoint
from ...backends.thread import in_thread
from ...engines.llama_server.address import root_url
from ...errors import BackendFault, RequestError, UpstreamFault
from ..runtimes.machine import SERVING, State
from ..runtimes.managed import Managed
from ..runtimes.registry import Runtimes
from .endpoint import pinned_model
from .entrance import Entry

if TYPE_CHECKING:
    from ...backends.transport import PlainTransport

RETURN_PATIENCE_S = 20.0
"""How long a request waits for a runtime that restarts: most are back in a few seconds."""
RETRY_AFTER_S = 1
CONNECT_S = 5.0
FIRST_BYTE_S = 1800.0
"""A slow machine may take that long over a long prompt; a server that hangs is replaced, and its
end breaks the connection."""
SILENCE_S = 300.0
NOTICE_S = 0.5
"""The kernel tells of a process's end within milliseconds; this is for a loaded machine."""
PASSED_HEADERS = frozenset({b"content-type", b"content-length", b"cache-control", b"retry-after"})
"""Of an answer. What concerns a connection is that connection's own."""


class Comeback(BackendFault):
    """The runtime is away for the moment; its details say when to look again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, details={"estimate_ms": RETRY_AFTER_S * 1000})


def away(runtime: Managed) -> Comeback:
    """Why a runtime takes no requests now."""
    life = runtime.supervisor
    reason, last = life.readiness().reason, life.status().last_error
    return Comeback(reason if last is None or last in reason else f"{reason} ({last})")


class Relayed(NamedTuple):
    """An answer as it comes; iterating `pieces` raises BackendFault where it breaks."""

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: AsyncIterator[bytes]


class Relay:
    """One way to each runtime, kept while its address stays."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._ways: dict[str, tuple[Endpoint, PlainTransport]] = {}
        runtimes.on_ending.append(self._break_off)

    def runtime(self, instance_key: str) -> Managed:
        """Raises RequestError where it is forgotten."""
        runtime = self._runtimes.get(instance_key)
        if runtime is None:
            raise RequestError(ErrorCode.NOT_FOUND, "the lease's runtime is gone: ensure again")
        return runtime

    def model(self, entry: Entry) -> str:
        """The model that is pinned; "" where any may be asked for. Raises RequestError."""
        runtime = self.runtime(entry.instance_key)
        return entry.model or pinned_model(runtime.blueprint, runtime.supervisor.facts)

    async def serving(self, instance_key: str) -> Managed:
        """The runtime, once it serves: one that is leased comes back by itself.

        Raises Comeback where that takes too long, or it failed; the refusal where it was stopped by
        force, and BackendFault where it is stopped and nobody has it started.
        """
        with trio.move_on_after(RETURN_PATIENCE_S):
            while (runtime := self.runtime(instance_key)).state not in SERVING:
                if runtime.state is State.FAILED:
                    raise away(runtime)
                if not runtime.wanted:
                    await self._wait_wanted(runtime)
                else:
                    await self._runtimes.wait_changed()
            return runtime
        raise away(self.runtime(instance_key))

    async def _wait_wanted(self, runtime: Managed) -> None:
        """A restart has it stopped for as long as its process takes, and started at once then."""
        if runtime.refusal is not None:
            raise BackendFault(runtime.refusal.message)
        if runtime.state is not State.STOPPED:
            await self._runtimes.wait_changed()
            return
        with trio.move_on_after(NOTICE_S):
            while runtime.state is State.STOPPED and not runtime.wanted:
                await self._runtimes.wait_changed()
            return
        raise BackendFault(away(runtime).message)

    @asynccontextmanager
    async def exchange(
        self,
        instance_key: str,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Relayed]:
        """Send a request to `path` below the API prefix; the answer is open for the block.

        Leaving the block early ends the request at the runtime. Raises BackendFault, Comeback.
        """
        from ...backends.http_messages import stream_of

        response = await self._send(instance_key, method, path, body, headers or {})
        stream = stream_of(response)
        try:
            passed = [
                (name.lower(), value)
                for name, value in response.headers.raw
                if name.lower() in PASSED_HEADERS
            ]
            yield Relayed(response.status_code, passed, _pieces(stream))
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Close what is idle. Running exchanges were ended before."""
        while self._ways:
            _, (_, transport) = self._ways.popitem()
            await transport.aclose()

    async def _send(
        self, instance_key: str, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> "httpx.Response":
        while True:
            runtime = await self.serving(instance_key)
            endpoint = runtime.supervisor.endpoint
            request = _request(endpoint, method, path, body, headers)
            transport = await self._way(instance_key, endpoint)
            try:
                with trio.fail_after(FIRST_BYTE_S):
                    return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing was sent: where its process ended, the next one may have it.
                if not await self._went(instance_key):
                    raise BackendFault("the runtime cannot be connected to") from error
            except httpx.TransportError as error:
                raise UpstreamFault("the runtime broke the connection") from error
            except trio.TooSlowError:
                why = "the runtime sent no answer in time"
                raise BackendFault(why, ErrorCode.TIMEOUT) from None

    async def _went(self, instance_key: str) -> bool:
        """Whether the runtime is seen to have ended."""
        with trio.move_on_after(NOTICE_S):
            while self.runtime(instance_key).state in SERVING:
                await self._runtimes.wait_changed()
            return True
        return False

    def _break_off(self, instance_key: str) -> bool:
        if instance_key not in self._ways:
            return False
        _, transport = self._ways[instance_key]
        return transport.break_off()

    async def _way(self, instance_key: str, endpoint: Endpoint) -> "PlainTransport":
        known = self._ways.get(instance_key)
        if known is not None and known[0] == endpoint:
            return known[1]
        transport = await _open(endpoint)
        known = self._ways.get(instance_key)
        for key in [key for key in self._ways if self._runtimes.get(key) is None]:
            await self._ways.pop(key)[1].aclose()
        self._ways[instance_key] = (endpoint, transport)
        if known is not None:
            await known[1].aclose()
        return transport


async def _open(endpoint: Endpoint) -> "PlainTransport":
    """Raises BackendFault."""
    from ...backends.transport import PlainTransport

    if not endpoint.tls:
        return PlainTransport(uds=None if endpoint.uds is None else str(endpoint.uds))
    try:
        context = await in_thread(ssl.create_default_context, None)
    except OSError as error:
        raise BackendFault(f"no TLS: {error.strerror}") from error
    from ...backends.transport.tls import TlsTransport

    return TlsTransport(context)


def _request(
    endpoint: Endpoint, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> "httpx.Request":
    from ...backends.http_messages import header_lines

    url = httpx.URL(f"{root_url(endpoint)}{path}")
    lines = header_lines(url, endpoint.key, {**headers, **endpoint.headers})
    return httpx.Request(
        method,
        url,
        headers=[*lines, (b"content-length", b"%d" % len(body))],
        stream=httpx.ByteStream(body),
        extensions={"timeout": {"connect": CONNECT_S, "read": None, "write": SILENCE_S}},
    )


async def _pieces(stream: "httpx.AsyncByteStream") -> AsyncIterator[bytes]:
    pieces = stream.__aiter__()
    while True:
        try:
            with trio.fail_after(SILENCE_S):
                piece = await pieces.__anext__()
        except StopAsyncIteration:
            return
        except httpx.TransportError as error:
            raise UpstreamFault("the runtime broke the connection") from error
        except trio.TooSlowError:
            raise UpstreamFault("the runtime went silent in the middle of its answer") from None
        yield piece
