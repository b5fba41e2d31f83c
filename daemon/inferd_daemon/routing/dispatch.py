"""Takes one request to a backend: chosen, admitted, counted while it runs, judged when it ends.

Never retries, never changes the backend once the request has one.
"""

from types import TracebackType
from typing import TYPE_CHECKING

import trio

from inferd_proto import ErrorCode, Usage

from ..backends.base import Backend, EmbedRequest, GenerateRequest, RerankRequest
from ..errors import CallerLeft, RequestError
from .gate import OnQueued, Permit
from .requirements import AnyRequest
from .router import Choice, Route
from .shares import PeerKey

if TYPE_CHECKING:
    from .upstream import Attempt

_KINDS: dict[type, str] = {
    GenerateRequest: "generate",
    EmbedRequest: "embed",
    RerankRequest: "rerank",
}


class Dispatch:
    """A context manager that holds a permit and a backend for the block.

    The block raises what the backend raised: a BackendFault counts against it. Entering raises
    RequestError: nobody can answer (at once, even where it would have to wait), `queue_full`,
    `timeout`.
    """

    __slots__ = (
        "_attempt",
        "_began",
        "_choice",
        "_permit",
        "_refused",
        "_request",
        "_route",
        "_unanswered",
    )

    def __init__(
        self,
        route: Route,
        request: AnyRequest,
        peer: PeerKey,
        on_queued: OnQueued | None = None,
    ) -> None:
        self._route = route
        self._request = request
        self._permit: Permit = route.gate.admitted(
            peer, on_queued, self._begin, route.lanes.of(request)
        )
        self._attempt: Attempt | None = None
        self._refused: RequestError | None = None
        self._began = trio.current_time()
        self._unanswered = True

    async def __aenter__(self) -> Backend:
        try:
            return await self._enter()
        except BaseException as error:
            self._count(error)
            raise

    async def _enter(self) -> Backend:
        route = self._route
        # first: whom it lets in may be the one that tries a backend, and nobody else may then
        route.gate.let_in()
        self._choice: Choice = route.choose(self._request)
        try:
            await self._permit.__aenter__()
        except BaseException as error:
            self._end(error)
            raise
        if self._refused is not None:
            route.gate.hand_on(self._permit)
            raise self._refused
        return self._choice.upstream.backend

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gate = self._route.gate
        gate.take_back(self._permit)
        self._end(error)
        if error is None:
            self._route.remember(self._choice)
        self._count(error)
        gate.let_in()

    def answered(self) -> None:
        """The first of the answer is there; may be told more than once."""
        if self._unanswered:
            self._unanswered = False
            first_s = trio.current_time() - self._began
            self._route.counts.first_tokens_s.observe(first_s)
        attempt = self._attempt
        if attempt is not None and attempt.trial:
            self._attempt = self._choice.upstream.answered(attempt)

    def used(self, usage: Usage) -> None:
        """What the answer took, as the backend says."""
        self._route.counts.used(usage.input_tokens, usage.output_tokens)

    def _begin(self) -> None:
        """Its turn has come: take the slot now, before its task runs and others look for one."""
        if self._permit.waited:
            try:
                self._choice = self._route.choose(self._request)
            except RequestError as error:
                self._refused = error
                return
        self._attempt = self._choice.upstream.begin()

    def _end(self, error: BaseException | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._choice.upstream.end(attempt, error)

    def _count(self, error: BaseException | None) -> None:
        kind = _KINDS.get(type(self._request), "relay")
        took_s = trio.current_time() - self._began
        self._route.counts.ended(kind, _outcome(error), took_s)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, RequestError):
        return error.code.value
    if isinstance(error, CallerLeft) or not isinstance(error, Exception):
        return "cancelled"
    return ErrorCode.INTERNAL.value
