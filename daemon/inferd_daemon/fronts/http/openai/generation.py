"""One generation over HTTP: from its batches to the client, as a stream or as one object; or from
its upstream's bytes, where these are as good.

The last of a stream goes out when the backend is free again. Nothing is sent before the first
batch, so that what fails until then still has a status of its own.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import trio

from inferd_proto import Usage

from ....backends.base import (
    Batch,
    Capabilities,
    GenerateRequest,
    Pieces,
    Relayed,
    RelayRequest,
)
from ....errors import RequestError, UpstreamFault
from ....routing.dispatch import Dispatch
from ....routing.router import Route, Router
from .failures import UnknownModel
from .reply import Reply

CHAT = "/v1/chat/completions"


class Answer(Protocol):
    """How batches become bytes: by `encode`, or by `add` and `object`."""

    finished: bool
    usage: Usage

    def encode(self, batch: Batch) -> bytes:
        """The events for `batch`, those that end the stream with its `Finished`."""

    def add(self, batch: Batch) -> None:
        """Keep it. Raises RequestError where it is too much."""

    def object(self) -> bytes:
        """All that was kept."""


def find_route(router: Router, model: str | None) -> Route:
    """Raises UnknownModel."""
    try:
        return router.find(model)
    except RequestError as error:
        raise UnknownModel(error.message) from None


async def generate(
    reply: Reply,
    route: Route,
    request: GenerateRequest,
    new_answer: Callable[[], Answer],
    *,
    stream: bool,
    raw: RelayRequest | None = None,
) -> None:
    """Answer `request`, to which the route's presets are applied. Raises RequestError.

    `raw` is the same for a backend that can relay it; then there is nothing to encode.
    """
    whole = b""
    dispatch = Dispatch(route, request, reply.caller.peer)
    async with dispatch as backend:
        if raw is not None and backend.relays(raw):
            async with backend.relay(raw) as relayed:
                last = await send_pieces(reply, relayed, dispatch.answered)
            _count(dispatch, relayed)
        else:
            answer = new_answer()
            batches = backend.generate(request)
            last = await send_batches(reply, batches, answer, dispatch.answered, stream=stream)
            dispatch.used(answer.usage)
            if not stream:
                whole = answer.object()
    if stream:
        await reply.end(last)
    else:
        await reply.whole(whole)


async def relay(
    reply: Reply,
    route: Route,
    request: RelayRequest,
    reword: Callable[[Pieces, Capabilities], Pieces] | None = None,
) -> None:
    """Answer `request` in the words of a backend that serves its API, but for what `reword` does to
    them, knowing the backend. Raises RequestError.
    """
    dispatch = Dispatch(route, request, reply.caller.peer)
    async with dispatch as backend, backend.relay(request) as relayed:
        if reword is not None:
            relayed = relayed._replace(pieces=reword(relayed.pieces, backend.capabilities))
        if request.stream:
            last = await send_pieces(reply, relayed, dispatch.answered)
        else:
            last = b"".join([piece async for piece in relayed.pieces])
        _count(dispatch, relayed)
    if request.stream:
        await reply.end(last)
    else:
        await reply.whole(last, relayed.content_type)


async def send_pieces(reply: Reply, relayed: Relayed, answered: Callable[[], None]) -> bytes:
    """Send what comes but the last, which is returned. Calls `answered` with each piece.

    Raises RequestError where the upstream fails or ends before the answer does.
    """
    pieces = relayed.pieces
    async for piece in pieces:
        answered()
        if not reply.begun:
            await reply.begin()
        if pieces.over:
            return piece
        await reply.send(piece)
    return b""


async def send_batches(
    reply: Reply,
    batches: AsyncGenerator[Batch, None],
    answer: Answer,
    answered: Callable[[], None],
    *,
    stream: bool,
) -> bytes:
    """Send what comes but the last, which is returned. Without `stream` all stays in `answer`.

    Calls `answered` with each batch. Raises RequestError as `batches` does, and where they end
    without an end.
    """
    last = b""
    async with aclosing(batches):
        async for batch in batches:
            answered()
            if not stream:
                answer.add(batch)
                # a backend that never waits must not keep the daemon from the others
                await trio.lowlevel.checkpoint()
                continue
            data = answer.encode(batch)
            if not reply.begun:
                await reply.begin()
            if answer.finished:
                last = data
            elif data:
                await reply.send(data)
            else:
                await trio.lowlevel.checkpoint()
    if not answer.finished:
        raise UpstreamFault("the backend ended its answer without saying why")
    return last


def _count(dispatch: Dispatch, relayed: Relayed) -> None:
    usage = relayed.pieces.usage
    if usage is not None:
        dispatch.used(usage)
