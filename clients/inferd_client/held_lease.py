"""A lease that is held for a block, and renewed as long as the block lasts; trio and asyncio.

The task that renews belongs to the block: it begins after the lease was granted, and has ended
before the lease is given back. Requests to the endpoint do not pass through here.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from inferd_proto import (
    CompatibilityResult,
    EndpointDescriptor,
    JsonObject,
    Lease,
    LeaseEnsured,
    Result,
)

from . import leases, requests
from .async_link import AsyncLink
from .endpoint import async_http_client
from .errors import AnswerTimeout, ClientClosed, ConnectionLost, InferdError, LeaseLost
from .renewal import PATIENCE_S, Renewal
from .uncancelled import uncancelled

if TYPE_CHECKING:
    import httpx
    from anyio.abc import TaskGroup

RELEASE_TIMEOUT_S = 2.0
"""What leaving the block waits for; a lease that could not be released ends by its ttl."""

Dial = Callable[[float], Awaitable[AsyncLink]]
"""A new connection; while no daemon listens it is waited for, so many seconds at most."""


class HeldLease:
    """One hold on one runtime; use it in `async with`, once.

        >>> import anyio
        >>> from inferd_client import Client
        >>> async def main() -> None:
        ...     async with Client() as client:
        ...         async with client.lease("qwen3", ttl=60) as lease:
        ...             print(lease.endpoint.base_url, lease.endpoint.model_identity)
        >>> anyio.run(main)
        http://localhost/v1 qwen3-8b

    On entering, the runtime is ready. Where the lease is lost (it could not be renewed in time,
    or somebody ended it), the block is cancelled and raises LeaseLost. A daemon that restarts
    meanwhile is found again, on a connection of the lease's own. On leaving, the lease is
    released, whatever ended the block; a cancellation waits for that, at most 4 s where the daemon
    does not answer.
    """

    def __init__(self, link: Callable[[], AsyncLink], dial: Dial, asked: JsonObject) -> None:
        self._find_link = link
        self._dial = dial
        self._asked = asked
        self._hold: _Hold | None = None

    def __repr__(self) -> str:
        if self._hold is None:
            return "<HeldLease, not entered>"
        return f"<HeldLease {self.ref}{', lost' if self._hold.lost else ''}>"

    @property
    def granted(self) -> LeaseEnsured:
        """All that the daemon answered. It holds a key: not for logs."""
        if self._hold is None:
            raise ClientClosed("the lease is not held; use `async with client.lease(…) as lease`")
        return self._hold.granted

    @property
    def ref(self) -> str:
        """The daemon's name for it."""
        return self.record.lease_ref

    @property
    def record(self) -> Lease:
        """The lease as it was granted."""
        return self.granted.lease

    @property
    def endpoint(self) -> EndpointDescriptor:
        """Where to send requests, with which headers. It holds a key: not for logs."""
        return self.granted.endpoint

    @property
    def compatibility(self) -> CompatibilityResult:
        """How the runtime fits what was asked; `warnings` are optional capabilities not met."""
        return self.granted.compatibility

    def http_client(self) -> "httpx.AsyncClient":
        """An HTTP client for the endpoint, its Unix socket and headers set; use `async with`.

        `client.post("/chat/completions", json=…)`; or hand it to another library together with
        `endpoint.base_url`.
        """
        return async_http_client(self.endpoint)

    async def __aenter__(self) -> Self:
        """Have the runtime ready, and hold it.

        Raises NotFound, Incompatible, NoRoom, BackendFailed and other RequestFailed.
        """
        if self._hold is not None:
            raise ClientClosed("a lease is entered once; ask the client for another")
        link = self._find_link()
        granted = await take_lease(link, self._asked)
        self._hold = _Hold(link, self._dial, granted)
        await self._hold.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._hold is not None
        return await self._hold.end(kind, error, traceback)


class _Hold:
    """A granted lease with the task that renews it."""

    def __init__(self, link: AsyncLink, dial: Dial, granted: LeaseEnsured) -> None:
        self.granted = granted
        self.lost: LeaseLost | None = None
        self._ref = granted.lease.lease_ref
        self._link = link
        self._own_link: AsyncLink | None = None
        self._dial = dial
        self._renewal = Renewal(granted.lease, anyio.current_time())
        self._group: TaskGroup = anyio.create_task_group()
        self._body = anyio.CancelScope()
        self._renewing = anyio.CancelScope()

    async def begin(self) -> None:
        await self._group.__aenter__()
        self._body.__enter__()
        self._group.start_soon(self._keep)

    async def end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._renewing.cancel()
        self._group.cancel_scope.shield = True
        try:
            cancelled_by_loss = self._body.__exit__(kind, error, traceback)
        finally:
            try:
                # Without the block's error: the group would wrap it in another.
                await self._group.__aexit__(None, None, None)
            finally:  # asyncio's own cancellation is raised by the group, or by what follows
                await self._let_go()
        if self.lost is None:
            return False
        if error is None or cancelled_by_loss:
            raise self.lost
        if isinstance(error, Exception):
            error.add_note(str(self.lost))
        return False

    async def _keep(self) -> None:
        with self._renewing:
            while self.lost is None:
                await anyio.sleep_until(self._renewal.next_at)
                self.lost = self._renewal.expired(anyio.current_time()) or await self._renew()
            self._body.cancel()

    async def _renew(self) -> LeaseLost | None:
        asked_at = anyio.current_time()
        error: InferdError = AnswerTimeout("the daemon did not answer")
        with anyio.move_on_after(self._renewal.patience_s(asked_at)):
            try:
                await self._ask_to_renew()
            except InferdError as failure:
                error = failure
            else:
                self._renewal.succeeded(asked_at)
                return None
        return self._renewal.failed(error, anyio.current_time())

    async def _ask_to_renew(self) -> None:
        link = await self._living_link()
        op, arguments = self._renewal.request()
        await link.ask(requests.control(op, arguments), Result)

    async def _living_link(self) -> AsyncLink:
        """The client's connection; once that is lost, one of our own: the daemon may be back."""
        if self._link.lost and not self._link.closed:
            self._link = await self._dial(PATIENCE_S)
            if self._own_link is not None:
                self._own_link.close()
            self._own_link = self._link
        return self._link

    async def _let_go(self) -> None:
        try:
            await uncancelled(self._give_back, RELEASE_TIMEOUT_S)
        finally:
            if self._own_link is not None:
                self._own_link.close()

    async def _give_back(self) -> None:
        """Release it. Where the daemon cannot be told, the lease ends by its ttl."""
        with suppress(InferdError):
            try:
                await self._link.ask(leases.release(self._ref), Result)
            except (ConnectionLost, ClientClosed):
                # A lease outlives its daemon: the next one has it, and would keep it.
                await self._release_elsewhere()

    async def _release_elsewhere(self) -> None:
        link = await self._dial(RELEASE_TIMEOUT_S)
        try:
            await link.ask(leases.release(self._ref), Result)
        finally:
            link.close()


async def take_lease(link: AsyncLink, asked: JsonObject) -> LeaseEnsured:
    """Have a runtime ready and leased. Cancelled, it leaves no lease, whatever crossed."""
    build = requests.control("lease.ensure", asked)
    answer = await link.ask(build, Result, undo=leases.release_of)
    return leases.to_ensured(answer.value)
