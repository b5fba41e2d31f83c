"""One HTTP client's connection: hypercorn's server for it, with deadlines and an end in order.

A client that stops half-way in a request, or does not read its answer, loses its connection; one
between two requests can be handed over to the daemon's next self.
"""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.events import Event as ConnectionEvent
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from .client_stream import ClientStream
from .errors import plain_answer
from .exchange import ASGIApp, Ender
from .incoming import BadRequest
from .protocol import Http1

_TLS = trio.SSLStream[trio.SocketStream]
LINGER_S = 2.0
"""To read what a refused client still sends: to close on it would destroy the answer."""
LINGER_BYTES = 4 * 1024 * 1024


class Connection(TCPServer):
    """Served by `run`; the rest may be called by others meanwhile."""

    def __init__(
        self,
        asgi: ASGIApp,
        client: ClientStream,
        tls: ssl.SSLContext | None,
        config: Config,
        context: WorkerContext,
        *,
        uid: int | None,
        max_head_bytes: int,
        idle_timeout_s: float,
        on_change: Callable[[], None],
        once: bool = False,
    ) -> None:
        """`uid` is the client's user, if the kernel knows it. `on_change` is called when a request
        begins or ends, and when it comes to rest. With `once` one request is answered.
        """
        stream: trio.abc.Stream = client
        if tls is not None:
            stream = trio.SSLStream(client, tls, server_side=True, https_compatible=True)
        state = ConnectionState({})
        # of the stream it uses what every stream has
        super().__init__(ASGIWrapper(asgi), config, context, state, cast("_TLS", stream))
        self._asgi = asgi
        self._client = client
        self._secure = tls is not None
        self._http: Http1 | None = None
        self._uid = uid
        self._max_head_bytes = max_head_bytes
        self._idle_timeout_s = idle_timeout_s
        self._on_change = on_change
        self._once = once
        self._since = trio.current_time()
        self._paused = False
        self._resting = False
        self.retired = False
        """It was told to end in favour of another one."""
        self._wait = trio.CancelScope()

    @property
    def busy(self) -> bool:
        """A request has not been answered."""
        return self._http is not None and self._http.busy

    @property
    def resting(self) -> bool:
        """It is paused, nothing is under way, and its socket may go to another owner."""
        return self._resting and not self._client.writing

    @property
    def under_way(self) -> bool:
        """A paused connection has yet to come to rest: a request runs, or is coming in."""
        http = self._http
        if http is None:
            return not self._secure  # its task is about to begin; a handshake may take its time
        return not self.resting and (http.busy or not http.closing)

    def pause(self) -> None:
        """Read no further requests; what runs goes on."""
        self._paused = True
        self._wait.cancel()

    @property
    def idle_since(self) -> float:
        """When it came to be between two requests, by trio's clock; inf where it is not.

        A handshake that has not ended is rest: nothing was asked for.
        """
        http = self._http
        if self.retired or self._client.writing:
            return inf
        if http is None:
            return self._since if self._secure else inf
        return http.waits_since if http.at_rest else inf

    def retire(self) -> None:
        """End it between two requests."""
        self.retired = True
        self._client.abort()

    def hand_over(self) -> int:
        """The descriptor of the resting client's socket, which is its next owner's from now on."""
        return self._client.detach()

    def end_request(self, by: Ender) -> None:
        """End the running request, if any."""
        if self._http is not None and self._http.stream is not None:
            self._http.stream.end(by)

    def abort(self) -> None:
        """Drop the client now."""
        self._client.abort()

    async def protocol_send(self, event: ConnectionEvent) -> None:
        """Without the lock and the shield of hypercorn's: one task writes, and has a deadline."""
        if isinstance(event, RawData):
            try:
                await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())
                self._client.abort()

    async def _read_data(self) -> None:
        await self.idle_task.stop()  # there are deadlines here
        http = self._http = Http1(
            self.protocol,
            self._asgi,
            uid=self._uid,
            max_head_bytes=self._max_head_bytes,
            idle_timeout_s=self._idle_timeout_s,
            on_change=self._changed,
            once=self._once,
        )
        self.protocol.protocol = http
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                await self._read_requests(http)
            except BadRequest as error:
                await self._while_there(http, http.idle)
                if not http.closing:
                    await self.protocol_send(RawData(plain_answer(error.status, error.message)))
                http.closing = True
            await self._linger(http)
        await http.handle(Closed())

    async def _read_requests(self, http: Http1) -> None:
        while not http.closing:
            if http.full:
                await self._while_there(http, http.room)
                continue
            if self._paused and http.at_rest:
                if self._secure:
                    return  # what TLS has agreed on cannot be handed over
                await self._rest()
            with trio.CancelScope(deadline=http.deadline) as self._wait:
                data = await self.stream.receive_some(MAX_RECV)
            if self._wait.cancelled_caught:
                if trio.current_time() >= self._wait.deadline:
                    await self._timed_out(http)
            elif not data:
                return
            else:
                await http.handle(RawData(bytes(data)))
                if http.closing:
                    await self._while_there(http, http.idle)

    async def _while_there(self, http: Http1, wait: Callable[[], Awaitable[None]]) -> None:
        """`wait` for what `http` does, with nobody reading: a client that leaves ends that."""

        async def watch() -> None:
            await self._client.wait_left()
            await http.handle(Closed())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait()
            nursery.cancel_scope.cancel()

    async def _timed_out(self, http: Http1) -> None:
        if http.at_rest:
            http.closing = True
        elif http.stream is not None and not http.stream.incoming.complete:
            http.stream.end("upload")
            await http.idle()
            http.closing = True
        else:
            raise BadRequest(408, "the request did not come in time")

    async def _linger(self, http: Http1) -> None:
        """Let the client read its last answer while it still sends."""
        if self._secure and http.at_rest:
            return  # it is told by TLS
        with trio.move_on_after(LINGER_S):
            if not self._secure:
                await self._client.send_eof()
            discarded = 0
            while discarded < LINGER_BYTES:
                data = await self._client.receive_some()
                if not data:
                    return
                discarded += len(data)

    async def _rest(self) -> None:
        self._resting = True
        self._on_change()
        await trio.sleep_forever()

    def _changed(self) -> None:
        http = self._http
        assert http is not None
        if http.closing or (self._paused and http.at_rest):
            self._wait.cancel()
        else:
            self._wait.deadline = http.deadline
        self._on_change()
