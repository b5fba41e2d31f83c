"""A stream of Chat Completions, line by line, as the events of an answer; pure."""

import json

from inferd_proto import ErrorCode, StopReason, TextDelta, ThinkingDelta, Usage

from ..answers import Done, Event
from ..errors import ProtocolViolation, RequestFailed, request_failed

_STOP_REASONS: dict[str, StopReason] = {"stop": "end_turn", "length": "max_tokens"}


class ChatEvents:
    """Feed it the lines; `finish` gives the end, once the stream has one."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._stop_reason: StopReason | None = None
        self._usage: Usage | None = None

    def feed(self, line: str) -> list[Event]:
        """What one line says. Raises RequestFailed where it is an error, ProtocolViolation."""
        name, _, data = line.partition(":")
        if name != "data" or data.strip() in ("", "[DONE]"):
            return []
        try:
            chunk = json.loads(data)
        except ValueError:
            raise ProtocolViolation("the endpoint's stream holds what is no JSON") from None
        if not isinstance(chunk, dict):
            raise ProtocolViolation("the endpoint's stream holds what is no object")
        if "error" in chunk:
            raise failed(chunk)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            self._usage = Usage(*(count if isinstance(count, int) else 0 for count in counts))
        return [event for choice in chunk.get("choices", ()) for event in self._read(choice)]

    def finish(self) -> Done:
        """The end. Raises ProtocolViolation where there was none."""
        if self._stop_reason is None:
            raise ProtocolViolation("the endpoint ended its answer before it was whole")
        counted = self._usage is not None
        usage = self._usage or Usage(0, 0)
        return Done(self._stop_reason, usage, self._backend, counted=counted)

    def _read(self, choice: dict[str, object]) -> list[Event]:
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self._stop_reason = _STOP_REASONS.get(reason, "end_turn")
        delta = choice.get("delta")
        fields = delta if isinstance(delta, dict) else {}
        events: list[Event] = []
        if fields.get("reasoning_content"):
            events.append(ThinkingDelta(str(fields["reasoning_content"])))
        if fields.get("content"):
            events.append(TextDelta(str(fields["content"])))
        return events


def failed(body: object) -> RequestFailed:
    """The error of an endpoint, by the daemon's own code where it has one."""
    error = body.get("error") if isinstance(body, dict) else None
    fields = error if isinstance(error, dict) else {}
    try:
        code = ErrorCode(str(fields.get("code")))
    except ValueError:
        code = ErrorCode.BACKEND_UNAVAILABLE
    return request_failed(code, str(fields.get("message") or "the endpoint failed"), None)
