"""JSON-RPC with Codex's app-server, for one turn on one thread.

initialize -> thread/start -> (thread/inject_items: what was said before) -> turn/start -> events.
Its lines have no "jsonrpc". What it asks of us is refused; what we do not know is ignored.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from inferd_proto import JsonObject, StopReason, Usage

from ...backends.base import Finished, TextDeltas, ThinkingDeltas
from .conversation import render_prompt
from .dialogue import AgentDialogue, AgentEvent, Failed
from .request import Turn

METHOD_NOT_FOUND = -32601
AT_LIMIT = "max_output_tokens"
"""Stands in the error of a turn whose answer was cut at the token limit."""
_STATUSES = {
    "badRequest": 400,
    "contextWindowExceeded": 400,
    "internalServerError": 500,
    "modelNotFound": 404,
    "serverOverloaded": 503,
    "unauthorized": 401,
    "usageLimitExceeded": 429,
}
_HELLO: JsonObject = {"clientInfo": {"name": "inferd", "title": None, "version": "1"}}

_encode = msgspec.json.Encoder().encode


class _Message(Struct, frozen=True):
    id: int | str | None = None
    method: str | None = None
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Thread(Struct, frozen=True):
    id: str


class _ThreadStarted(Struct, frozen=True):
    thread: _Thread


class _TurnStarted(Struct, frozen=True):
    turn: _Thread


class _RpcError(Struct, frozen=True):
    message: str = ""


class _Addressed(Struct, frozen=True):
    threadId: str = ""


class _Delta(Struct, frozen=True):
    delta: str


class _Counts(Struct, frozen=True):
    inputTokens: int = 0
    outputTokens: int = 0


class _TokenUsage(Struct, frozen=True):
    total: _Counts


class _UsageUpdate(Struct, frozen=True):
    tokenUsage: _TokenUsage


class _TurnError(Struct, frozen=True):
    message: str = ""
    codexErrorInfo: Raw | UnsetType = UNSET


class _Turn(Struct, frozen=True):
    status: str
    error: _TurnError | None = None


class _TurnCompleted(Struct, frozen=True):
    turn: _Turn


_message = msgspec.json.Decoder(_Message).decode
_addressed = msgspec.json.Decoder(_Addressed).decode
_delta = msgspec.json.Decoder(_Delta).decode


class CodexDialogue(AgentDialogue):
    """One turn. `thread` are the parameters of `thread/start`."""

    keeps_stdin_open = True

    def __init__(self, thread: JsonObject, turns: Sequence[Turn]) -> None:
        super().__init__(b"")
        self._thread = thread
        self._history, self._prompt = _split(turns)
        self._thread_id = ""
        self._turn_id = ""
        self._usage: Usage | None = None
        self._requests = 0
        self._awaited: dict[int | str | None, str] = {}
        """Methods of our requests that have no answer yet, by id."""
        self._request("initialize", _HELLO)

    def interrupt(self) -> bool:
        """Its turn ends as `interrupted`, and its request to the model with it."""
        if self._turn_id:
            of: JsonObject = {"threadId": self._thread_id, "turnId": self._turn_id}
            self._request("turn/interrupt", of)
        return bool(self._turn_id)

    def _read(self, line: bytes) -> list[AgentEvent]:
        message = _message(line)
        if message.method is not None:
            params = Raw(b"{}") if isinstance(message.params, UnsetType) else message.params
            if message.id is None:
                return self._notified(message.method, params)
            refusal = {"code": METHOD_NOT_FOUND, "message": "not supported"}
            self._send({"id": message.id, "error": refusal})
        elif not isinstance(message.error, UnsetType):
            why = msgspec.json.decode(message.error, type=_RpcError).message
            return [Failed(f"the app-server refused: {why}")]
        elif not isinstance(message.result, UnsetType):
            self._answered(self._awaited.pop(message.id, ""), message.result)
        return []

    def _answered(self, method: str, result: Raw) -> None:
        """The next step. Raises msgspec.DecodeError for an answer without what it is for."""
        match method:
            case "initialize":
                self._send({"method": "initialized"})
                self._request("thread/start", self._thread)
            case "thread/start":
                self._thread_id = msgspec.json.decode(result, type=_ThreadStarted).thread.id
                if self._history:
                    items: JsonObject = {"threadId": self._thread_id, "items": self._history}
                    self._request("thread/inject_items", items)
                else:
                    self._start_turn()
            case "thread/inject_items":
                self._start_turn()
            case "turn/start":
                self._turn_id = msgspec.json.decode(result, type=_TurnStarted).turn.id

    def _start_turn(self) -> None:
        text = {"type": "text", "text": self._prompt}
        turn: JsonObject = {"threadId": self._thread_id, "input": [text]}
        self._request("turn/start", turn)

    def _notified(self, method: str, params: Raw) -> list[AgentEvent]:
        if method not in _NOTIFICATIONS or _addressed(params).threadId != self._thread_id:
            return []
        match method:
            case "item/agentMessage/delta":
                return [TextDeltas([_delta(params).delta])]
            case "item/reasoning/summaryTextDelta" | "item/reasoning/textDelta":
                return [ThinkingDeltas([_delta(params).delta])]
            case "thread/tokenUsage/updated":
                # `last` is of the last request to the model, and empty where that failed.
                total = msgspec.json.decode(params, type=_UsageUpdate).tokenUsage.total
                self._usage = Usage(total.inputTokens, total.outputTokens)
                return []
            case _:
                return [self._concludes(msgspec.json.decode(params, type=_TurnCompleted).turn)]

    def _concludes(self, turn: _Turn) -> AgentEvent:
        if turn.status == "completed":
            return self._finished("end_turn")
        if turn.error is None:
            return Failed(f"its turn ended as {turn.status!r}")
        if AT_LIMIT in turn.error.message:
            return self._finished("max_tokens")
        info = turn.error.codexErrorInfo
        status = None if isinstance(info, UnsetType) else _status(info)
        return Failed(turn.error.message, status)

    def _finished(self, reason: StopReason) -> Finished:
        return Finished(reason, self._usage or Usage(0, 0), counted=self._usage is not None)

    def _request(self, method: str, params: JsonObject) -> None:
        self._requests += 1
        self._awaited[self._requests] = method
        self._send({"id": self._requests, "method": method, "params": params})

    def _send(self, message: JsonObject) -> None:
        self._input += _encode(message) + b"\n"


_NOTIFICATIONS = frozenset(
    (
        "item/agentMessage/delta",
        "item/reasoning/summaryTextDelta",
        "item/reasoning/textDelta",
        "thread/tokenUsage/updated",
        "turn/completed",
    )
)


def _split(turns: Sequence[Turn]) -> tuple[list[JsonObject], str]:
    """What was said before, as items of the Responses API, and the prompt.

    A tool's results belong to calls that are not there as such: then all of it is one prompt.
    """
    *before, last = turns
    if last.role != "user" or any(turn.role == "tool" for turn in before):
        return [], render_prompt(turns)
    return [_item(turn) for turn in before], last.text


def _item(turn: Turn) -> JsonObject:
    kind = "output_text" if turn.role == "assistant" else "input_text"
    content = [{"type": kind, "text": turn.text}]
    return {"type": "message", "role": turn.role, "content": content}


def _status(info: Raw) -> int | None:
    """A name alone, or a name with an object that may hold the upstream's HTTP status."""
    value: object = msgspec.json.decode(info)
    if isinstance(value, str):
        return _STATUSES.get(value)
    if isinstance(value, dict):
        for inner in value.values():
            status = inner.get("httpStatusCode") if isinstance(inner, dict) else None
            if isinstance(status, int):
                return status
    return None
