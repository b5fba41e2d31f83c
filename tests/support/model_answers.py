"""Scripts for `scripted_upstream`: answers of the Responses API and of the Messages API.

`PROTOCOLS` has, for each agent that can be pointed to an upstream, what its server speaks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from inferd_proto import JsonObject

from .scripted_upstream import CHUNKS_END, EVENTS_HEAD, Close, OnHead, Script, Step, chunk, whole

WORDS = ("Hel", "lo ", "from ", "✓ upstream.")
INPUT_TOKENS = 11
OUTPUT_TOKENS = 5


class ModelProtocol(ABC):
    """What one API answers, as steps of a script."""

    path: ClassVar[str]

    def prelude(self) -> list[Script]:
        """Scripts of requests that come beside the one that matters."""
        return []

    def answer(
        self, words: Sequence[str] = WORDS, *, between: Sequence[Step] = (), cut: bool = False
    ) -> Script:
        """A whole answer; `cut` at the token limit; `between` comes after each word."""
        steps = self.beginning()
        for word in words:
            steps += [self.word(word), *between]
        return [*steps, *self.ending("".join(words), cut)]

    @abstractmethod
    def beginning(self) -> list[Step]:
        """As far as the first word."""

    @abstractmethod
    def word(self, word: str) -> bytes:
        """One piece of text."""

    @abstractmethod
    def ending(self, text: str, cut: bool) -> list[Step]:
        """What follows the last word of `text`."""

    @abstractmethod
    def tool_call(self, name: str, arguments: JsonObject) -> Script:
        """An answer that asks for a tool, and nothing else."""

    @abstractmethod
    def refusal(self, status: int, message: str) -> Script:
        """An error before any answer."""


class Responses(ModelProtocol):
    """`POST /v1/responses`, as codex asks it."""

    path = "/v1/responses"

    def ending(self, text: str, cut: bool) -> list[Step]:
        """The whole item again, and the usage."""
        item = self._message(text, "completed")
        usage = {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        state = "incomplete" if cut else "completed"
        response: JsonObject = {**self._response(state), "output": [item], "usage": usage}
        if cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        return [
            _sse({"type": "response.output_item.done", "output_index": 0, "item": item}),
            _sse({"type": f"response.{state}", "response": response}),
            CHUNKS_END,
        ]

    def beginning(self) -> list[Step]:
        """As far as the first word."""
        item = self._message("", "in_progress")
        part = {"type": "output_text", "text": "", "annotations": []}
        of_item = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return [
            EVENTS_HEAD,
            _sse({"type": "response.created", "response": self._response("in_progress")}),
            _sse({"type": "response.output_item.added", "output_index": 0, "item": item}),
            _sse({"type": "response.content_part.added", **of_item, "part": part}),
        ]

    def word(self, word: str) -> bytes:
        """One piece of text."""
        of_item = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return _sse({"type": "response.output_text.delta", **of_item, "delta": word})

    def refusal(self, status: int, message: str) -> Script:
        """An error before any answer."""
        code = "model_not_found" if status == 404 else None
        body = {"error": {"message": message, "type": "error", "code": code}}
        return [whole(status, msgspec.json.encode(body)), Close()]

    def tool_call(self, name: str, arguments: JsonObject) -> Script:
        """As an item that is whole at once."""
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": name,
            "arguments": msgspec.json.encode(arguments).decode(),
            "status": "completed",
        }
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        response: JsonObject = {**self._response("completed"), "output": [item], "usage": usage}
        return [
            EVENTS_HEAD,
            _sse({"type": "response.created", "response": self._response("in_progress")}),
            _sse({"type": "response.output_item.added", "output_index": 0, "item": item}),
            _sse({"type": "response.output_item.done", "output_index": 0, "item": item}),
            _sse({"type": "response.completed", "response": response}),
            CHUNKS_END,
        ]

    def _response(self, status: str) -> JsonObject:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": status,
            "model": "test-model",
            "output": [],
        }

    def _message(self, text: str, status: str) -> JsonObject:
        content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
        return {
            "type": "message",
            "id": "msg_1",
            "status": status,
            "role": "assistant",
            "content": content,
        }


class Messages(ModelProtocol):
    """`POST /v1/messages`, as claude asks it, which sends a HEAD as well and waits for no answer to
    that."""

    path = "/v1/messages?beta=true"

    def prelude(self) -> list[Script]:
        """Scripts of requests that come beside the one that matters."""
        return [OnHead((whole(200, b""),))]

    def ending(self, text: str, cut: bool) -> list[Step]:
        """Why it ended, and the usage."""
        reason = "max_tokens" if cut else "end_turn"
        ended: JsonObject = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT_TOKENS},
        }
        return [
            _sse({"type": "content_block_stop", "index": 0}),
            _sse(ended),
            _sse({"type": "message_stop"}),
            CHUNKS_END,
        ]

    def beginning(self) -> list[Step]:
        """As far as the first word."""
        block = {"type": "text", "text": ""}
        return [
            *self._start(),
            _sse({"type": "content_block_start", "index": 0, "content_block": block}),
        ]

    def word(self, word: str) -> bytes:
        """One piece of text."""
        delta = {"type": "text_delta", "text": word}
        return _sse({"type": "content_block_delta", "index": 0, "delta": delta})

    def tool_call(self, name: str, arguments: JsonObject) -> Script:
        """As a block of its own."""
        block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
        partial = msgspec.json.encode(arguments).decode()
        delta = {"type": "input_json_delta", "partial_json": partial}
        ended: JsonObject = {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT_TOKENS},
        }
        return [
            *self._start(),
            _sse({"type": "content_block_start", "index": 0, "content_block": block}),
            _sse({"type": "content_block_delta", "index": 0, "delta": delta}),
            _sse({"type": "content_block_stop", "index": 0}),
            _sse(ended),
            _sse({"type": "message_stop"}),
            CHUNKS_END,
        ]

    def refusal(self, status: int, message: str) -> Script:
        """An error before any answer."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        error = {"type": kinds.get(status, "api_error"), "message": message}
        return [whole(status, msgspec.json.encode({"type": "error", "error": error})), Close()]

    def _start(self) -> list[Step]:
        message: JsonObject = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "test-model",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1},
        }
        return [EVENTS_HEAD, _sse({"type": "message_start", "message": message})]


def _sse(event: JsonObject) -> bytes:
    data = msgspec.json.encode(event)
    return chunk(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), data))


PROTOCOLS: dict[str, ModelProtocol] = {"codex": Responses(), "claude": Messages()}
