"""Amp (`amp -x --stream-json`): one prompt on stdin, whole messages on stdout.

The model is called by Amp's own service: there is no local upstream, and the model is one of its
modes. Written to the strings of version 0.0.1790142911; no answer of the service was ever captured.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec import Struct

from inferd_proto import Usage

from ...backends.base import Finished, TextDeltas
from ...errors import CallerFault
from .conversation import render_prompt, without_mentions
from .dialogue import AgentDialogue, AgentEvent, Failed
from .environment import private_environment
from .profile import AgentProfile, Feature, Login, LoginEvidence, Place, Plan
from .request import AgentRequest

API_KEY_VARIABLE = "AMP_API_KEY"
SETTINGS_FILE = "settings.json"
SETTINGS = {
    "amp.updates.mode": "disabled",
    "amp.tools.enable": [],
    "amp.mcpServers": {},
}
ARGUMENTS = ("-x", "--stream-json", "--no-ide", "--no-notifications")


class AmpProfile(AgentProfile):
    """Provider `amp`."""

    name = "amp"
    program = "amp"
    variable = "INFERD_AMP"
    package = "@ampcode/cli"
    native = ("../cli-linux-{arch}/amp", "node_modules/@ampcode/cli-linux-{arch}/amp")
    features = frozenset((Feature.COMPLETION, Feature.STREAMING))
    login_variables = (API_KEY_VARIABLE, "AMP_URL")
    switches: ClassVar[Mapping[str, str]] = {"AMP_LOG_FILE": "/dev/null"}
    login_hint = "set AMP_API_KEY in the daemon's environment"
    own_models = frozenset(("low", "medium", "high", "ultra"))
    pieces_are_short = False

    def plan(self, request: AgentRequest, place: Place) -> Plan:
        """Raises CallerFault for a model that is no mode."""
        mode = request.told_model
        if mode is not None and mode not in self.own_models:
            modes = ", ".join(sorted(self.own_models))
            raise CallerFault(f"amp has modes instead of models; name one of {modes}")
        settings = place.home / SETTINGS_FILE
        environment = private_environment(self, request, place)
        environment["AMP_SETTINGS_FILE"] = str(settings)
        return Plan(
            [*ARGUMENTS, *([] if mode is None else ["-m", mode]), "--settings-file", str(settings)],
            environment,
            files={SETTINGS_FILE: msgspec.json.encode(SETTINGS).decode()},
        )

    def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
        """It takes no system text apart.

        In its terminal `@path` puts a file into the request; whether it does here was never seen.
        """
        return AmpDialogue(without_mentions(render_prompt(request.turns, request.system)).encode())

    def login_command(self, environment: Mapping[str, str]) -> list[str] | None:
        """What it has asks the service."""
        return None

    def judge_login(self, evidence: LoginEvidence) -> Login:
        """By its key alone: without one it waits for a pasted code without end."""
        if evidence.environment.get(API_KEY_VARIABLE):
            return Login(True)
        return Login(False, f"logged out: {self.login_hint}")

    def login_files(self, environment: Mapping[str, str]) -> list[Path]:
        """A login without a key cannot be told to be one."""
        return []


class _Head(Struct, frozen=True):
    type: str = ""


class _Block(Struct, frozen=True):
    type: str = ""
    text: str = ""


class _Message(Struct, frozen=True):
    content: list[_Block] = []


class _Assistant(Struct, frozen=True):
    message: _Message


class _Result(Struct, frozen=True):
    is_error: bool = True
    result: str = ""
    error: str = ""


_head = msgspec.json.Decoder(_Head).decode
_assistant = msgspec.json.Decoder(_Assistant).decode
_result = msgspec.json.Decoder(_Result).decode
_REFUSED = re.compile(r"Invalid or missing API key|amp login")


class AmpDialogue(AgentDialogue):
    """One prompt, one answer, in pieces as long as messages."""

    def __init__(self, opening: bytes) -> None:
        super().__init__(opening)
        self._spoke = False

    def _read(self, line: bytes) -> list[AgentEvent]:
        match _head(line).type:
            case "assistant":
                blocks = _assistant(line).message.content
                texts = [block.text for block in blocks if block.type == "text" and block.text]
                self._spoke = self._spoke or bool(texts)
                return [TextDeltas(texts)] if texts else []
            case "result":
                return self._concludes(_result(line))
        return []

    def _concludes(self, result: _Result) -> list[AgentEvent]:
        if result.is_error:
            return [Failed(result.error or result.result or "it does not say why")]
        finished = Finished("end_turn", Usage(0, 0), counted=False)
        if not self._spoke and result.result:
            return [TextDeltas([result.result]), finished]
        return [finished]

    def _explain_end(self, returncode: int, stderr: str) -> Failed:
        """Every refusal of the service is plain text on stderr."""
        said = " ".join(stderr.split())
        if said and returncode > 0:
            return Failed(said, 401 if _REFUSED.search(stderr) else None)
        return super()._explain_end(returncode, stderr)
