"""A lease that is held for a block, for threads: a thread of its own renews it, and is joined.

Nothing can cancel a thread's block: a loss is told by `lost`, `check()` and the block's end.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from inferd_proto import (
    CompatibilityResult,
    EndpointDescriptor,
    JsonObject,
    Lease,
    LeaseEnsured,
    Result,
)

from . import leases, requests
from .blocking_link import BlockingLink
from .endpoint import http_client
from .errors import ClientClosed, ConnectionLost, InferdError, LeaseLost
from .renewal import Renewal

if TYPE_CHECKING:
    import httpx

RELEASE_TIMEOUT_S = 2.0
"""What leaving the block waits for; a lease that could not be released ends by its ttl."""

Dial = Callable[[float], BlockingLink]
"""A new connection; while no daemon listens it is waited for, so many seconds at most."""


class HeldLease:
    """One hold on one runtime; use it in `with`, once.

        >>> from inferd_client.blocking import Client
        >>> with Client() as client, client.lease("qwen3", ttl=60) as lease:
        ...     print(lease.endpoint.base_url, lease.endpoint.model_identity)
        http://localhost/v1 qwen3-8b

    As `inferd_client.HeldLease`, but a block in a thread cannot be cancelled: where the lease is
    lost, `lost` says why, `check()` raises it, and so does the end of a block that had no error
    of its own.
    """

    def __init__(
        self,
        link: Callable[[], BlockingLink],
        dial: Dial,
        asked: JsonObject,
        timeout_s: float | None,
    ) -> None:
        self._find_link = link
        self._dial = dial
        self._asked = asked
        self._timeout_s = timeout_s
        self._hold: _Hold | None = None

    def __repr__(self) -> str:
        if self._hold is None:
            return "<HeldLease, not entered>"
        return f"<HeldLease {self.ref}{', lost' if self._hold.lost else ''}>"

    @property
    def granted(self) -> LeaseEnsured:
        """All that the daemon answered. It holds a key: not for logs."""
        if self._hold is None:
            raise ClientClosed("the lease is not held; use `with client.lease(…) as lease`")
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

    @property
    def lost(self) -> LeaseLost | None:
        """Why the lease ended before its block; None while it is held."""
        return None if self._hold is None else self._hold.lost

    def check(self) -> None:
        """Raises LeaseLost where the lease is lost."""
        if self.lost is not None:
            raise self.lost

    def http_client(self) -> "httpx.Client":
        """An HTTP client for the endpoint, its Unix socket and headers set; use `with`.

        `client.post("/chat/completions", json=…)`; or hand it to another library together with
        `endpoint.base_url`.
        """
        return http_client(self.endpoint)

    def __enter__(self) -> Self:
        """Have the runtime ready, and hold it.

        Raises NotFound, Incompatible, NoRoom, BackendFailed and other RequestFailed.
        """
        if self._hold is not None:
            raise ClientClosed("a lease is entered once; ask the client for another")
        link = self._find_link()
        granted = take_lease(link, self._asked, self._timeout_s)
        self._hold = _Hold(link, self._dial, granted)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._hold is not None
        self._hold.end()
        if error is None:
            self.check()
        elif self.lost is not None and isinstance(error, Exception):
            error.add_note(str(self.lost))


class _Hold:
    """A granted lease with the thread that renews it."""

    def __init__(self, link: BlockingLink, dial: Dial, granted: LeaseEnsured) -> None:
        self.granted = granted
        self.lost: LeaseLost | None = None
        self._ref = granted.lease.lease_ref
        self._link = link
        self._own_link: BlockingLink | None = None
        self._dial = dial
        self._renewal = Renewal(granted.lease, time.monotonic())
        self._over = threading.Event()
        # A block that is never left must not keep the program from ending.
        self._thread = threading.Thread(target=self._keep, name=f"renew {self._ref}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._give_back()
        if self._own_link is not None:
            self._own_link.close()

    def _keep(self) -> None:
        while self.lost is None:
            if self._over.wait(max(0.0, self._renewal.next_at - time.monotonic())):
                return
            self.lost = self._renewal.expired(time.monotonic()) or self._renew()

    def _renew(self) -> LeaseLost | None:
        asked_at = time.monotonic()
        op, arguments = self._renewal.request()
        try:
            link = self._living_link()
            link.ask(requests.control(op, arguments), Result, self._renewal.patience_s(asked_at))
        except InferdError as error:
            return self._renewal.failed(error, time.monotonic())
        self._renewal.succeeded(asked_at)
        return None

    def _living_link(self) -> BlockingLink:
        """The client's connection; once that is lost, one of our own: the daemon may be back."""
        if self._link.lost and not self._link.closed:
            # One attempt: whoever leaves the block waits for it.
            self._link = self._dial(0.0)
            if self._own_link is not None:
                self._own_link.close()
            self._own_link = self._link
        return self._link

    def _give_back(self) -> None:
        """Release it. Where the daemon cannot be told, the lease ends by its ttl."""
        deadline = time.monotonic() + RELEASE_TIMEOUT_S
        build = leases.release(self._ref)
        with suppress(InferdError):
            try:
                self._link.ask(build, Result, RELEASE_TIMEOUT_S)
            except (ConnectionLost, ClientClosed):
                # A lease outlives its daemon: the next one has it, and would keep it.
                with closing(self._dial(max(0.0, deadline - time.monotonic()))) as link:
                    link.ask(build, Result, max(0.0, deadline - time.monotonic()))


def take_lease(link: BlockingLink, asked: JsonObject, timeout_s: float | None) -> LeaseEnsured:
    """Have a runtime ready and leased. Interrupted, it leaves no lease, whatever crossed."""
    build = requests.control("lease.ensure", asked)
    answer = link.ask(build, Result, timeout_s, undo=leases.release_of)
    return leases.to_ensured(answer.value)
