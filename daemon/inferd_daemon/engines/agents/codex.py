"""Codex by its `app-server`: how one thread is set up so that it only completes.

`exec --json` gives no text before the end. Written to version 0.169.0; features that another
version does not know are ignored there.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import json

from inferd_proto import JsonObject

from .codex_dialogue import CodexDialogue
from .dialogue import AgentDialogue
from .environment import private_environment
from .profile import AgentProfile, Feature, Login, LoginEvidence, Place, Plan, ProbeHome
from .request import AgentRequest

DEFAULT_SYSTEM = "You are a helpful assistant."
"""Without one it would send its own, of twenty thousand characters."""
HOME_VARIABLE = "CODEX_HOME"
API_KEY_VARIABLE = "CODEX_API_KEY"
BASE_URL_VARIABLE = "OPENAI_BASE_URL"
VENDOR_URL = "https://api.openai.com/v1"
UPSTREAM_KEY_VARIABLE = "INFERD_AGENT_KEY"
PROVIDER = "inferd"
DATABASES_VARIABLE = "CODEX_SQLITE_HOME"
"""It makes five and syncs them dozens of times before it takes the first request."""
FEATURES_OFF = (
    "apps",
    "browser_use",
    "code_mode_host",
    "computer_use",
    "goals",
    "hooks",
    "image_generation",
    "multi_agent",
    "plugins",
    "remote_plugin",
    "shell_snapshot",
    "shell_tool",
    "skill_search",
    "sleep_tool",
    "tool_suggest",
    # It would try a dead upstream without end.
    "unbounded_connection_retries",
    "unified_exec",
    "view_image",
)
CONFIG: dict[str, str | int | bool] = {
    # Analytics would keep the process for five seconds after its end.
    "analytics.enabled": False,
    "check_for_update_on_startup": False,
    "web_search": "disabled",
    "project_doc_max_bytes": 0,
    "include_permissions_instructions": False,
    "include_environment_context": False,
    "include_apps_instructions": False,
    "include_collaboration_mode_instructions": False,
    "skills.include_instructions": False,
    "skills.bundled.enabled": False,
    **{f"features.{name}": False for name in FEATURES_OFF},
}
"""As a file, not with the thread: what is off from the start is not set up first. With plugins on
it would ask a server of its vendor's for news of them, whatever upstream it is given."""


class CodexProfile(AgentProfile):
    """Provider `codex`."""

    name = "codex"
    program = "codex"
    variable = "INFERD_CODEX"
    package = "@openai/codex"
    native = (
        "../codex-linux-{arch}/vendor/*/bin/codex",
        "node_modules/@openai/codex-linux-{arch}/vendor/*/bin/codex",
    )
    features = frozenset(Feature)
    upstream_protocol = "responses"
    login_variables = (API_KEY_VARIABLE, BASE_URL_VARIABLE)
    home_variables = (HOME_VARIABLE,)
    runs_programs = False
    login_hint = "run `codex login` as the daemon's user, or set CODEX_API_KEY"

    def plan(self, request: AgentRequest, place: Place) -> Plan:
        """A home of its own keeps the operator's AGENTS.md out; a login is renewed through it."""
        given = request.environment
        local = request.upstream is not None
        environment = private_environment(self, request, place)
        environment[HOME_VARIABLE] = str(place.home / "codex")
        environment[DATABASES_VARIABLE] = str(place.scratch)
        if request.upstream is not None:
            environment[UPSTREAM_KEY_VARIABLE] = request.upstream.key.reveal()
        links = {} if local else {f"codex/{path.name}": path for path in self.login_files(given)}
        files = {"codex/config.toml": _toml(CONFIG)}
        return Plan(["app-server"], environment, files=files, links=links)

    def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
        """Text goes to the model as it is, with no meaning of its own."""
        return CodexDialogue(thread_parameters(request, place), request.turns)

    def login_command(self, environment: Mapping[str, str]) -> list[str] | None:
        """It does not see the key in its own environment."""
        return None if environment.get(API_KEY_VARIABLE) else ["login", "status"]

    def probe_home(self, environment: Mapping[str, str], home: Path) -> ProbeHome:
        """With the login alone, as a run has it."""
        return ProbeHome(
            {HOME_VARIABLE: str(home / "codex"), DATABASES_VARIABLE: str(home / "databases")},
            directories=("codex", "databases"),
            links={f"codex/{path.name}": path for path in self.login_files(environment)},
        )

    def judge_login(self, evidence: LoginEvidence) -> Login:
        """By the exit code."""
        if evidence.environment.get(API_KEY_VARIABLE) or evidence.returncode == 0:
            return Login(True)
        return Login(False, f"logged out: {self.login_hint}")

    def login_files(self, environment: Mapping[str, str]) -> list[Path]:
        """`auth.json` of the operator."""
        home = environment.get(HOME_VARIABLE)
        if not home:
            home = f"{environment.get('HOME', '')}/.codex"
        return [Path(home, "auth.json")]


def thread_parameters(request: AgentRequest, place: Place) -> JsonObject:
    """Of `thread/start`: nothing is kept, nothing may be run, nothing is asked."""
    parameters: JsonObject = {
        "cwd": str(place.work),
        "approvalPolicy": "never",
        "sandbox": "read-only",
        "ephemeral": True,
        "baseInstructions": request.system or DEFAULT_SYSTEM,
    }
    if request.told_model is not None:
        parameters["model"] = request.told_model
    given = request.environment
    if request.upstream is not None:
        url = request.upstream.base_url.rstrip("/") + "/v1"
        return parameters | _provided(url, UPSTREAM_KEY_VARIABLE)
    if given.get(API_KEY_VARIABLE):
        # The app-server takes no key from its environment for the provider that is built in.
        return parameters | _provided(given.get(BASE_URL_VARIABLE) or VENDOR_URL, API_KEY_VARIABLE)
    return parameters


def _provided(base_url: str, key_variable: str) -> JsonObject:
    provider: JsonObject = {
        "name": PROVIDER,
        "base_url": base_url,
        "env_key": key_variable,
        "wire_api": "responses",
        "request_max_retries": 0,
        "stream_max_retries": 0,
    }
    return {"modelProvider": PROVIDER, "config": {f"model_providers.{PROVIDER}": provider}}


def _toml(values: Mapping[str, str | int | bool]) -> str:
    """Dotted keys, each on a line; such values are written as in JSON."""
    return "".join(f"{name} = {json.encode(value).decode()}\n" for name, value in values.items())
