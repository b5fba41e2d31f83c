"""Takes one request to a backend: chosen, admitted, counted while it runs, judged when it ends.

Never retries, never changes the backend once the request has one.
"""

from types import TracebackType

from ..backends.base import Backend
from .gate import OnQueued, Permit
from .requirements import AnyRequest
from .router import Choice, Route
from .shares import PeerKey


class Dispatch:
    """A context manager that holds a permit and a backend for the block.

    The block raises what the backend raised: a BackendFault counts against it. Entering raises
    RequestError: nobody can answer (at once, even where it would have to wait), `queue_full`,
    `timeout`.
    """

    __slots__ = ("_attempt", "_choice", "_permit", "_request", "_route")

    def __init__(
        self,
        route: Route,
        request: AnyRequest,
        peer: PeerKey,
        on_queued: OnQueued | None = None,
    ) -> None:
        self._route = route
        self._request = request
        self._permit: Permit = route.gate.admitted(peer, on_queued)

    async def __aenter__(self) -> Backend:
        route = self._route
        choice = route.choose(self._request)
        route.gate.resize(route.permits)
        permit = self._permit
        await permit.__aenter__()
        if permit.waited:
            try:
                choice = route.choose(self._request)
            except BaseException as error:
                await permit.__aexit__(type(error), error, None)
                raise
        self._choice: Choice = choice
        self._attempt = choice.upstream.begin()
        return choice.upstream.backend

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._choice.upstream.end(self._attempt, error)
        if error is None:
            self._route.remember(self._choice)
        await self._permit.__aexit__(kind, error, traceback)

    def answered(self) -> None:
        """The first of the answer is there."""
        if self._attempt.trial:
            self._attempt = self._choice.upstream.answered(self._attempt)
