"""Gemini CLI (`gemini -p "" -o stream-json`): one prompt on stdin, pieces of text on stdout.

Its exit codes lie in both directions: the `result` event alone says how it went. It tells no
answer that was cut from a whole one. Written to version 0.61.0.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec import Struct

from inferd_proto import Usage

from ...backends.base import Finished, TextDeltas
from .conversation import render_prompt, without_mentions
from .dialogue import AgentDialogue, AgentEvent, Failed
from .environment import private_environment
from .profile import AgentProfile, Feature, Login, LoginEvidence, Place, Plan
from .request import AgentRequest

SYSTEM_FILE = "system.md"
DEFAULT_SYSTEM = "You are a helpful assistant."
API_KEY_VARIABLE = "GEMINI_API_KEY"
HOME_VARIABLE = "GEMINI_CLI_HOME"
ACCOUNT_FILES = ("oauth_creds.json", "google_accounts.json")
SETTINGS = {
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {
        "enableAutoUpdate": False,
        "enableAutoUpdateNotification": False,
        "maxAttempts": 1,
        "retryFetchErrors": False,
    },
    "model": {"maxSessionTurns": 1},
    "tools": {"core": []},
    "hooksConfig": {"enabled": False},
    "skills": {"enabled": False},
    "admin": {
        "extensions": {"enabled": False},
        "mcp": {"enabled": False},
        "skills": {"enabled": False},
    },
    "experimental": {"enableAgents": False},
}
LOGGED_OUT = 41
"""Its exit code where it has no way to authenticate; it says so on stderr alone."""


class GeminiProfile(AgentProfile):
    """Provider `gemini`."""

    name = "gemini"
    program = "gemini"
    variable = "INFERD_GEMINI"
    package = "@google/gemini-cli"
    features = frozenset(
        (
            Feature.COMPLETION,
            Feature.STREAMING,
            Feature.USAGE,
            Feature.SYSTEM_PROMPT,
            Feature.TOOLS_OFF,
        )
    )
    login_variables = (API_KEY_VARIABLE, "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT")
    home_variables = (HOME_VARIABLE,)
    # Without the first, a parent process would start it again, and ignore every signal.
    switches: ClassVar[Mapping[str, str]] = {
        "GEMINI_CLI_NO_RELAUNCH": "true",
        "GEMINI_TELEMETRY_ENABLED": "false",
    }
    login_hint = "run `gemini` once as the daemon's user and log in, or set GEMINI_API_KEY"

    def plan(self, request: AgentRequest, place: Place) -> Plan:
        """An account's files are linked into its home: a login is renewed through them."""
        given = request.environment
        environment = private_environment(self, request, place) | {
            HOME_VARIABLE: str(place.home),
            "GEMINI_SYSTEM_MD": str(place.home / SYSTEM_FILE),
        }
        keyed = bool(given.get(API_KEY_VARIABLE))
        auth = {"selectedType": "gemini-api-key" if keyed else "oauth-personal"}
        settings = msgspec.json.encode({"security": {"auth": auth}, **SETTINGS}).decode()
        accounts = [] if keyed else self.login_files(given)
        model = [] if request.told_model is None else ["-m", request.told_model]
        return Plan(
            ["-p", "", "-o", "stream-json", *model, "--skip-trust"],
            environment,
            files={
                ".gemini/settings.json": settings,
                SYSTEM_FILE: request.system or DEFAULT_SYSTEM,
            },
            links={f".gemini/{path.name}": path for path in accounts},
        )

    def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
        """`/command` has no meaning on stdin; `@path` would put a file into the request, and the
        account's is not far from where it runs.
        """
        return GeminiDialogue(without_mentions(render_prompt(request.turns)).encode())

    def login_command(self, environment: Mapping[str, str]) -> list[str] | None:
        """There is none."""
        return None

    def judge_login(self, evidence: LoginEvidence) -> Login:
        """By a key or an account's file."""
        if evidence.environment.get(API_KEY_VARIABLE) or evidence.file_found:
            return Login(True)
        return Login(False, f"logged out: {self.login_hint}")

    def login_files(self, environment: Mapping[str, str]) -> list[Path]:
        """The account's own come first."""
        home = environment.get(HOME_VARIABLE) or environment.get("HOME", "")
        return [Path(home, ".gemini", name) for name in ACCOUNT_FILES]


class _Head(Struct, frozen=True):
    type: str = ""


class _Text(Struct, frozen=True):
    role: str = ""
    content: str = ""
    delta: bool = False


class _Problem(Struct, frozen=True):
    message: str = ""


class _Stats(Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0


class _Result(Struct, frozen=True):
    status: str = ""
    error: _Problem | None = None
    stats: _Stats | None = None


_head = msgspec.json.Decoder(_Head).decode
_text = msgspec.json.Decoder(_Text).decode
_problem = msgspec.json.Decoder(_Problem).decode
_result = msgspec.json.Decoder(_Result).decode
_STATUS = re.compile(r'"code"\s*:\s*([45]\d\d)\b')
_LIMITED = re.compile(r"request a quota increase|RESOURCE_EXHAUSTED")
"""It puts advice in the place of a 429's body."""
_NO_MODEL = re.compile(r"is not found for API version|Requested entity was not found")
"""The service's words for a model that it has not; of a 404 the status is lost."""


class GeminiDialogue(AgentDialogue):
    """One prompt, one answer. Its echo of the prompt is no answer."""

    def __init__(self, opening: bytes) -> None:
        super().__init__(opening)
        self._complaint = ""

    def _read(self, line: bytes) -> list[AgentEvent]:
        match _head(line).type:
            case "message":
                text = _text(line)
                if text.role == "assistant" and text.content:
                    return [TextDeltas([text.content])]
            case "error":
                self._complaint = _problem(line).message
            case "result":
                return [self._concludes(_result(line))]
        return []

    def _concludes(self, result: _Result) -> AgentEvent:
        if result.status == "success":
            stats = result.stats or _Stats()
            usage = Usage(stats.input_tokens, stats.output_tokens)
            return Finished("end_turn", usage, counted=result.stats is not None)
        said = (result.error.message if result.error else "") or self._complaint
        return Failed(said or "it does not say why", _status(said))

    def _explain_end(self, returncode: int, stderr: str) -> Failed:
        failed = super()._explain_end(returncode, stderr)
        return failed._replace(status=401) if returncode == LOGGED_OUT else failed


def _status(said: str) -> int | None:
    if found := _STATUS.search(said):
        return int(found[1])
    if _NO_MODEL.search(said):
        return 404
    return 429 if _LIMITED.search(said) else None
