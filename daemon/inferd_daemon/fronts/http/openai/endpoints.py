"""The routes of the OpenAI surface, and what each does with a request.

Bodies are parsed here or, where they are large, in a worker thread; mapping is other files' work.
"""

import time
from collections.abc import Callable
from secrets import token_hex
from typing import TypeVar

import trio
from starlette.routing import Route

from inferd_proto import Usage

from ....backends.base import Capabilities, Pieces, RelayRequest
from ....backends.chat_completions.upstream import COMPLETIONS
from ....backends.thread import in_thread
from ....errors import MachineFault
from ....routing.dispatch import Dispatch
from .chat_answer import ChatAnswer
from .chat_request import parse_chat
from .completion_answer import CompletionAnswer
from .completion_request import parse_completion
from .completion_words import CompletionWords
from .endpoint import Endpoint
from .failures import ANTHROPIC, OPENAI, RESPONSES
from .generation import CHAT, find_route, generate, relay
from .media import decode_media
from .raw_request import (
    RawAsked,
    output_limit,
    parse_count,
    parse_messages,
    parse_responses,
    raw_completion,
    with_presets,
)
from .reply import Reply
from .response_words import Limits, ResponseWords, RewordedPieces
from .vectors import embed_answer, parse_embed, parse_rerank, rerank_answer

T = TypeVar("T")

THREADS = 2
"""For large bodies and media: each takes the interpreter from the loop for as long as it lasts."""
LARGE_BYTES = 128 * 1024
"""What takes less to parse than it takes to hand it to a thread."""
MANY_NUMBERS = 32 * 1024


def routes() -> list[Route]:
    """One list for one application."""
    api = Api()
    return [
        Route("/v1/chat/completions", Endpoint(api.chat, OPENAI), methods=["POST"]),
        Route("/v1/completions", Endpoint(api.complete, OPENAI), methods=["POST"]),
        Route("/v1/embeddings", Endpoint(api.embed, OPENAI), methods=["POST"]),
        Route("/v1/rerank", Endpoint(api.rerank, OPENAI), methods=["POST"]),
        Route("/v1/responses", Endpoint(api.respond, RESPONSES), methods=["POST"]),
        Route("/v1/messages", Endpoint(api.messages, ANTHROPIC), methods=["POST"]),
        Route("/v1/messages/count_tokens", Endpoint(api.count, ANTHROPIC), methods=["POST"]),
    ]


class Api:
    """Every endpoint; owns the limit on its threads."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(THREADS)

    async def chat(self, reply: Reply) -> None:
        """`POST /v1/chat/completions`. Raises RequestError."""
        asked = await self._parsed(parse_chat, await reply.body())
        route = find_route(reply.view.router, asked.model)
        media = await self._in_thread(decode_media, asked.media) if asked.media else {}
        request = route.presets.apply(asked.complete(media))

        def answer() -> ChatAnswer:
            return ChatAnswer(route.name, _identity("chatcmpl"), _now(), asked.include_usage)

        raw = RelayRequest(CHAT, request, True, asked.include_usage) if asked.stream else None
        await generate(reply, route, request, answer, stream=asked.stream, raw=raw)

    async def complete(self, reply: Reply) -> None:
        """`POST /v1/completions`. Raises RequestError."""
        asked = await self._parsed(parse_completion, await reply.body())
        route = find_route(reply.view.router, asked.model)
        request = route.presets.apply(asked.generate)
        if any(COMPLETIONS in (backend.capabilities.apis or ()) for backend in route.backends):

            def reword(pieces: Pieces, _can: Capabilities) -> Pieces:
                return CompletionWords(
                    pieces, stream=asked.stream, include_usage=asked.include_usage
                )

            await relay(reply, route, raw_completion(asked, request), reword)
            return

        def answer() -> CompletionAnswer:
            return CompletionAnswer(route.name, _identity("cmpl"), _now(), asked.include_usage)

        await generate(reply, route, request, answer, stream=asked.stream)

    async def embed(self, reply: Reply) -> None:
        """`POST /v1/embeddings`. Raises RequestError."""
        asked = await self._parsed(parse_embed, await reply.body())
        route = find_route(reply.view.router, asked.model)
        dispatch = Dispatch(route, asked.request, reply.caller.peer)
        async with dispatch as backend:
            result = await backend.embed(asked.request)
            dispatch.used(Usage(result.input_tokens, 0))
        if sum(map(len, result.embeddings)) > MANY_NUMBERS:
            await reply.whole(await self._in_thread(embed_answer, result, asked.encoding))
        else:
            await reply.whole(embed_answer(result, asked.encoding))

    async def rerank(self, reply: Reply) -> None:
        """`POST /v1/rerank`. Raises RequestError."""
        asked = await self._parsed(parse_rerank, await reply.body())
        route = find_route(reply.view.router, asked.model)
        dispatch = Dispatch(route, asked.request, reply.caller.peer)
        async with dispatch as backend:
            result = await backend.rerank(asked.request)
            dispatch.used(Usage(result.input_tokens, 0))
        await reply.whole(rerank_answer(result, asked))

    async def respond(self, reply: Reply) -> None:
        """`POST /v1/responses`. Raises RequestError."""
        asked = await self._parsed(parse_responses, await reply.body())
        route = find_route(reply.view.router, asked.model)
        request = with_presets(asked, route.presets)

        def reword(pieces: Pieces, can: Capabilities) -> Pieces:
            limits = Limits(output_limit(request), can.n_ctx)
            return RewordedPieces(pieces, ResponseWords(limits, stream=request.stream))

        await relay(reply, route, request, reword)

    async def messages(self, reply: Reply) -> None:
        """`POST /v1/messages`. Raises RequestError."""
        await self._relay(reply, parse_messages)

    async def count(self, reply: Reply) -> None:
        """`POST /v1/messages/count_tokens`. Raises RequestError."""
        await self._relay(reply, parse_count)

    async def _relay(self, reply: Reply, parse: Callable[[bytes], RawAsked]) -> None:
        asked = await self._parsed(parse, await reply.body())
        route = find_route(reply.view.router, asked.model)
        await relay(reply, route, with_presets(asked, route.presets))

    async def _parsed(self, parse: Callable[[bytes], T], body: bytes) -> T:
        if len(body) < LARGE_BYTES:
            return parse(body)
        return await self._in_thread(parse, body)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await in_thread(work, self._threads, *arguments)
        except OSError as error:
            raise MachineFault(error.strerror or str(error)) from error


def _identity(kind: str) -> str:
    return f"{kind}-{token_hex(12)}"


def _now() -> int:
    return int(time.time())
