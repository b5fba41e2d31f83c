"""Claude Code (`claude -p`): one prompt on stdin, raw events of the Messages API on stdout.

Its last event, `result`, alone says how it went; its exit code does not. Written to version
2.1.197. Where the answer hits the token limit it would ask the model to go on: the run ends there.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from inferd_proto import StopReason, Usage

from ...backends.base import Finished, TextDeltas, ThinkingDeltas
from .conversation import render_prompt
from .dialogue import AgentDialogue, AgentEvent, Failed
from .environment import private_environment
from .profile import AgentProfile, Feature, Login, LoginEvidence, Place, Plan, ProbeHome
from .request import AgentRequest

SYSTEM_FILE = "system.md"
DEFAULT_SYSTEM = "You are a helpful assistant."
"""Without one it would send its own, which is long and speaks of tools that it has not."""
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
ACCOUNT_TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"
CONFIG_VARIABLE = "CLAUDE_CONFIG_DIR"
CREDENTIALS_FILE = ".credentials.json"
STATE_FILE = ".claude.json"
"""Holds a key that was made for it by a login, besides much else."""
LOGGED_OUT = "Not logged in"
"""So it begins to say that there is nobody whose login it could use; no upstream was asked."""
ARGUMENTS = (
    "-p",
    *("--output-format", "stream-json"),
    "--verbose",
    "--include-partial-messages",
    *("--tools", ""),
    "--no-session-persistence",
    "--strict-mcp-config",
    *("--setting-sources", ""),
    "--disable-slash-commands",
)
SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
    # A broken stream would be asked again without streaming, and its text come twice.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # `@path` in a prompt would be read from disk and sent to the upstream, tools or no tools.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
}


class ClaudeProfile(AgentProfile):
    """Provider `claude`."""

    name = "claude"
    program = "claude"
    variable = "INFERD_CLAUDE"
    package = "@anthropic-ai/claude-code"
    native = (
        "../claude-code-linux-{arch}/claude",
        "node_modules/*/claude-code-linux-{arch}/claude",
    )
    features = frozenset(Feature)
    upstream_protocol = "messages"
    passes_token_limit = True
    login_variables = (*KEYS, ACCOUNT_TOKEN, "ANTHROPIC_BASE_URL")
    home_variables = (CONFIG_VARIABLE,)
    switches = SWITCHES
    login_hint = "run `claude` once as the daemon's user and log in, or set ANTHROPIC_API_KEY"

    def plan(self, request: AgentRequest, place: Place) -> Plan:
        """The system text goes by a file; the prompt by stdin."""
        given = request.environment
        keyed = request.upstream is not None or any(given.get(name) for name in KEYS)
        environment = private_environment(self, request, place)
        if request.upstream is not None:
            environment["ANTHROPIC_BASE_URL"] = request.upstream.base_url
            environment["ANTHROPIC_AUTH_TOKEN"] = request.upstream.key.reveal()
        if keyed:
            # It looks for no account then, nor for settings: neither may be wanted without a key.
            environment["CLAUDE_CODE_SIMPLE"] = "1"
        if keyed or given.get(ACCOUNT_TOKEN):
            environment[CONFIG_VARIABLE] = str(place.home / "config")
        else:
            # It renews its login in place, so it has to work on the one that is there.
            environment["HOME"] = given.get("HOME") or str(place.home)
            if given.get(CONFIG_VARIABLE):
                environment[CONFIG_VARIABLE] = given[CONFIG_VARIABLE]
        if request.max_tokens is not None:
            environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(request.max_tokens)
        if not request.thinking:
            environment["CLAUDE_CODE_DISABLE_THINKING"] = "1"
        model = [] if request.told_model is None else ["--model", request.told_model]
        system_file = ["--system-prompt-file", str(place.home / SYSTEM_FILE)]
        return Plan(
            [*ARGUMENTS, *model, *system_file],
            environment,
            files={SYSTEM_FILE: request.system or DEFAULT_SYSTEM},
        )

    def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
        """A prompt that begins with `/` would be a command: a space before it makes it text."""
        prompt = render_prompt(request.turns)
        return ClaudeDialogue((" " + prompt if prompt.startswith("/") else prompt).encode())

    def login_command(self, environment: Mapping[str, str]) -> list[str] | None:
        """`auth status` is offline. `doctor` hangs."""
        return ["auth", "status"]

    def probe_home(self, environment: Mapping[str, str], home: Path) -> ProbeHome:
        """It would write its state anew, and keep a copy of the old one, each time."""
        own = environment.get("HOME", "")
        moved = environment.get(CONFIG_VARIABLE)
        state = Path(moved or own, STATE_FILE)
        credentials = Path(moved or f"{own}/.claude", CREDENTIALS_FILE)
        return ProbeHome(
            {CONFIG_VARIABLE: str(home / "config")},
            directories=("config",),
            links={f"config/{CREDENTIALS_FILE}": credentials},
            copies={f"config/{STATE_FILE}": state},
        )

    def judge_login(self, evidence: LoginEvidence) -> Login:
        """It answers with JSON that says `loggedIn`."""
        try:
            status = msgspec.json.decode(evidence.output.encode(), type=_AuthStatus)
        except (msgspec.DecodeError, RecursionError):
            return Login(None, "`claude auth status` did not say whether it is logged in")
        return Login(True) if status.loggedIn else Login(False, f"logged out: {self.login_hint}")

    def login_files(self, environment: Mapping[str, str]) -> list[Path]:
        """None are needed: it tells by itself."""
        return []


class _AuthStatus(Struct, frozen=True):
    loggedIn: bool


class _Head(Struct, frozen=True):
    type: str = ""


class _Counts(Struct, frozen=True):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def told(self) -> bool:
        """Whether there is a count at all."""
        return self.output_tokens is not None

    def total_input(self) -> int:
        """What is read from a cache is part of the input as well."""
        cached = (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)
        return (self.input_tokens or 0) + cached


class _Started(Struct, frozen=True):
    usage: _Counts = _Counts()


class _Delta(Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class _StreamEvent(Struct, frozen=True):
    type: str = ""
    delta: _Delta = _Delta()
    message: _Started = _Started()
    usage: _Counts = _Counts()


class _StreamLine(Struct, frozen=True):
    event: Raw


class _Result(Struct, frozen=True):
    subtype: str = ""
    is_error: bool = True
    api_error_status: int | None = None
    result: str = ""
    stop_reason: str | None = None
    usage: _Counts = _Counts()


_head = msgspec.json.Decoder(_Head).decode
_stream_line = msgspec.json.Decoder(_StreamLine).decode
_stream_event = msgspec.json.Decoder(_StreamEvent).decode
_result = msgspec.json.Decoder(_Result).decode
_STREAM_EVENTS = frozenset(("message_start", "content_block_delta", "message_delta"))
_AT_LIMIT = frozenset(("max_tokens", "model_context_window_exceeded"))


class ClaudeDialogue(AgentDialogue):
    """One prompt, one answer. `assistant` events repeat what the deltas said, or are errors."""

    def __init__(self, opening: bytes) -> None:
        super().__init__(opening)
        self._asked = False
        self._input_tokens = 0

    def _read(self, line: bytes) -> list[AgentEvent]:
        match _head(line).type:
            case "stream_event":
                raw = _stream_line(line).event
                if _head(raw).type in _STREAM_EVENTS:
                    return self._streamed(_stream_event(raw))
            case "result":
                return [self._concludes(_result(line))]
        return []

    def _streamed(self, event: _StreamEvent) -> list[AgentEvent]:
        delta = event.delta
        if event.type == "message_start":
            self._asked = True
            self._input_tokens = event.message.usage.total_input()
        elif delta.type == "text_delta" and delta.text:
            return [TextDeltas([delta.text])]
        elif delta.type == "thinking_delta" and delta.thinking:
            return [ThinkingDeltas([delta.thinking])]
        elif event.type == "message_delta" and delta.stop_reason in _AT_LIMIT:
            self.cut = True
            given = event.usage.total_input() or self._input_tokens
            usage = Usage(given, event.usage.output_tokens or 0)
            return [Finished("max_tokens", usage, counted=event.usage.told)]
        return []

    def _concludes(self, result: _Result) -> AgentEvent:
        if result.is_error:
            status = result.api_error_status
            if status is None and result.result.startswith(LOGGED_OUT):
                status = 401
            return Failed(result.result or result.subtype, status)
        if not self._asked:
            return Failed("it answered by itself, without asking the model")
        reason: StopReason = "end_turn"
        if result.stop_reason == "stop_sequence":
            reason = "stop_sequence"
        usage = Usage(result.usage.total_input(), result.usage.output_tokens or 0)
        return Finished(reason, usage, counted=result.usage.told)
