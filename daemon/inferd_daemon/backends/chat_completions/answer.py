"""A streamed answer, from its bytes to batches of our events.

Pure: one `ChatAnswer` for each stream, fed with what came. However the stream was split, the events
are the same. It must not end well unless the upstream said how the answer ended.
"""

import re
from typing import NamedTuple

from inferd_proto import ErrorCode, StopReason, ToolChoice, Usage

from ...errors import ModelFault, RequestError, UpstreamFault
from ..base import Batch, Finished, TextDeltas, ThinkingDeltas, ToolCall
from ..sse import SseOverflowError, SseParser
from .chunks import CallPiece, Choice, Chunk, Delta, decode_chunks
from .failures import one_line, stream_failure
from .redaction import Redactor
from .text_template import TextTemplate
from .tool_calls import ToolCallGatherer

_DONE = b"[DONE]"
_CALLS = re.compile(rb'"tool_calls"\s*:\s*(?:\{|\[(?!\s*\]))|"function_call"\s*:\s*\{')

STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
    "end_turn": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "error",
}
"""`finish_reason` to ours; the rest (abort, error, …) means that the answer broke."""


MAX_LESSONS = 5
"""A role, a first text and what stands apart at a stream's end; the rest is decoded at once."""
WORTHWHILE = 12
"""Fewer payloads are decoded as quickly as they are compared."""
MAX_REASON_CHARS = 40
"""Of a `finish_reason` that is none we know."""


class Expectations(NamedTuple):
    """What the request asked for and the answer is held against."""

    tool_choice: ToolChoice | None = None
    thinking: bool | None = None
    tool_names: frozenset[str] = frozenset()


class ChatAnswer:
    """Feed it until it is `finished` or has a `failure`; what came before a failure still counts.

    `dropped` counts malformed lines and payloads, `payloads` what was neither.
    """

    __slots__ = (
        "_asked",
        "_began",
        "_calls",
        "_finish_reason",
        "_in_messages",
        "_lost_call",
        "_redact",
        "_sse",
        "_stopped_by_word",
        "_template",
        "_undecoded",
        "_usage",
        "failure",
        "finished",
        "payloads",
    )

    def __init__(self, asked: Expectations, redact: Redactor) -> None:
        self._asked = asked
        self._redact = redact
        self._sse = SseParser()
        self._template = TextTemplate()
        self._calls = ToolCallGatherer(asked.tool_names)
        self._finish_reason: str | None = None
        self._stopped_by_word = False
        self._usage: Usage | None = None
        self._undecoded = 0
        self._lost_call = False
        self._began = False
        self._in_messages = False
        self.payloads = 0
        self.finished = False
        self.failure: RequestError | None = None

    @property
    def dropped(self) -> int:
        """Lines that are no SSE field, and payloads that are no chunk."""
        return self._sse.dropped + self._undecoded

    @property
    def ending(self) -> bool:
        """It has been said why the answer ended: no more of it than its usage is due."""
        return self._finish_reason is not None

    def feed(self, data: bytes) -> Batch:
        """The events that `data` completes; sets `finished` or `failure`."""
        try:
            payloads = self._sse.feed(data)
        except SseOverflowError as error:
            self.failure = UpstreamFault(f"upstream sent {error}")
            return []
        return self._take(payloads)

    def feed_eof(self) -> Batch:
        """The body ended. Without a finish reason that is a failure, `[DONE]` or not."""
        batch = self.feed(b"\n\n") if not self.finished else []
        if not self.finished and self.failure is None:
            self._finish(batch)
        return batch

    def _take(self, payloads: list[bytes]) -> Batch:
        batch: Batch = []
        if not payloads or self.finished or self.failure is not None:
            return batch
        done = _DONE in payloads
        if done:
            del payloads[payloads.index(_DONE) :]
        try:
            self._take_payloads(payloads, batch)
        except RequestError as error:
            self.failure = error
            return batch
        if batch:
            self._began = True
        if done:
            self._finish(batch)
        return batch

    def _take_payloads(self, payloads: list[bytes], batch: Batch) -> None:
        """Raises RequestError; `batch` holds what came before."""
        for _ in range(MAX_LESSONS):
            if len(payloads) < WORTHWHILE or self._template.given_up:
                break
            if texts := self._template.read(payloads):
                self.payloads += len(texts)
                _add_texts([text for text in texts if text], batch)
                payloads = payloads[len(texts) :]
                continue
            chunks = self._decode(payloads[:1])
            if chunks:
                self._template.learn(payloads[0], chunks[0])
            self._take_chunks(chunks, batch)
            payloads = payloads[1:]
        if payloads:
            self._take_chunks(self._decode(payloads), batch)

    def _decode(self, payloads: list[bytes]) -> list[Chunk]:
        chunks, bad = decode_chunks(payloads)
        if bad:
            self._undecoded += len(bad)
            self._lost_call |= any(map(_CALLS.search, bad))
        self.payloads += len(chunks)
        return chunks

    def _take_chunks(self, chunks: list[Chunk], batch: Batch) -> None:
        """Raises RequestError; `batch` holds what came before."""
        texts: list[str] = []
        try:
            for chunk in chunks:
                if chunk.usage is not None or chunk.error is not None or chunk.verbose is not None:
                    self._note(chunk)
                choices = chunk.choices
                if not choices:
                    self._note(chunk)
                    continue
                choice = choices[0]
                if choice.index:
                    first = next((one for one in choices if not one.index), None)
                    if first is None:
                        continue
                    choice = first
                delta = choice.delta
                if delta is None:
                    delta = self._whole(choice, not (texts or batch))
                if delta is not None:
                    thought = delta.reasoning_content or delta.reasoning
                    if thought:
                        texts = self._think(thought, texts, batch)
                    text = delta.content or delta.refusal
                    if text:
                        texts.append(text)
                    if delta.tool_calls or delta.function_call:
                        self._gather(delta)
                if choice.finish_reason:
                    self._note_finish(choice)
        finally:
            _add_texts(texts, batch)

    def _think(self, thought: str, texts: list[str], batch: Batch) -> list[str]:
        """Put `thought` behind what came before it; the list for the texts that follow."""
        if self._asked.thinking is False:
            return texts
        _add_texts(texts, batch)
        if batch and isinstance(batch[-1], ThinkingDeltas):
            batch[-1].deltas.append(thought)
        else:
            batch.append(ThinkingDeltas([thought]))
        return []

    def _whole(self, choice: Choice, first: bool) -> Delta | None:
        """What a chunk without a delta brings; nothing where it repeats what came in deltas."""
        if choice.message is not None and first and not (self._began or self._calls):
            self._in_messages = True
        return choice.message if self._in_messages else None

    def _gather(self, delta: Delta) -> None:
        pieces = delta.tool_calls or ()
        for piece in (pieces,) if isinstance(pieces, CallPiece) else pieces:
            self._calls.add(piece)
        if delta.function_call is not None:
            self._calls.add_legacy(delta.function_call)

    def _note(self, chunk: Chunk) -> None:
        """What is no part of the answer: usage, the stop word, an error."""
        if chunk.error is not None:
            raise stream_failure(chunk.error, self._redact)
        if chunk.message is not None and not chunk.choices:
            raise stream_failure(chunk.message, self._redact)
        if chunk.usage is not None:
            usage = chunk.usage
            self._usage = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)
        if chunk.verbose is not None and chunk.verbose.stop_type == "word":
            self._stopped_by_word = True

    def _note_finish(self, choice: Choice) -> None:
        self._finish_reason = choice.finish_reason
        # A number is the token that ended the answer; only a text was asked for.
        if isinstance(choice.stop_reason, str) or isinstance(choice.matched_stop, str):
            self._stopped_by_word = True

    def _finish(self, batch: Batch) -> None:
        try:
            self._conclude(batch)
        except RequestError as error:
            self.failure = error
        else:
            self.finished = True

    def _conclude(self, batch: Batch) -> None:
        """Add the tool calls and `Finished`. Raises RequestError where the answer is not whole."""
        if self._finish_reason is None:
            raise UpstreamFault("upstream ended the stream in the middle of the answer")
        stop_reason = STOP_REASONS.get(self._finish_reason)
        if stop_reason is None:
            reason = one_line(self._finish_reason, self._redact)[:MAX_REASON_CHARS]
            raise ModelFault(f"upstream broke the answer off: {reason!r}")
        ran_out = stop_reason == "max_tokens"
        calls = self._calls.take(complete=not ran_out)
        if not ran_out and self._misses_call(calls):
            raise ModelFault(
                "upstream sent a tool call that cannot be read", ErrorCode.TOOL_CALL_MALFORMED
            )
        required = self._asked.tool_choice == "required"
        if (required and not calls and not ran_out) or (
            self._asked.tool_choice == "none" and calls
        ):
            raise ModelFault(
                f"upstream did not honour tool_choice {self._asked.tool_choice!r}; "
                "it is of another kind than configured, or its model cannot"
            )
        batch.extend(calls)
        if stop_reason in ("end_turn", "tool_use"):
            stop_reason = "stop_sequence" if self._stopped_by_word else "end_turn"
            if calls:
                stop_reason = "tool_use"
        batch.append(Finished(stop_reason, self._usage or Usage(0, 0), required and not calls))

    def _misses_call(self, calls: list[ToolCall]) -> bool:
        """Whether something dropped was one, or a part of one."""
        announced = STOP_REASONS.get(self._finish_reason or "") == "tool_use"
        return self._lost_call or (announced and not calls and self._undecoded > 0)


def _add_texts(texts: list[str], batch: Batch) -> None:
    if not texts:
        return
    if batch and isinstance(batch[-1], TextDeltas):
        batch[-1].deltas.extend(texts)
    else:
        batch.append(TextDeltas(texts))
