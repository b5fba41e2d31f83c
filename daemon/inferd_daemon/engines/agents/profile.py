"""What an agent's profile tells of one provider's CLI; what is published of it is derived here.

A profile describes and understands; it neither looks for files nor starts anything.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from msgspec import Struct

from inferd_proto import CapabilityMap

from ...backends.base import Capabilities
from .dialogue import AgentDialogue
from .request import OWN_MODEL, AgentRequest

UpstreamProtocol = Literal["responses", "messages"]


class Feature(StrEnum):
    """What a CLI was seen to do without a terminal."""

    COMPLETION = "completion"
    """Answers one prompt and says how that ended."""
    STREAMING = "streaming"
    """Writes text before the end of its answer."""
    THINKING = "thinking"
    USAGE = "usage"
    STOP_REASONS = "stop_reasons"
    """Tells an answer that was cut at the token limit from a whole one."""
    SYSTEM_PROMPT = "system_prompt"
    """Takes the system text apart from the conversation."""
    TOOLS_OFF = "tools_off"
    """Runs with none of its own tools, whatever the model asks for."""


class Place(NamedTuple):
    """The private directories of one run. `work` is empty; the CLI starts in it.

    `scratch` is for databases that are synced all the time and die with the run: in memory on most
    machines. No program may have to be run from there.
    """

    work: Path
    home: Path
    tmp: Path
    scratch: Path


class Plan(Struct, frozen=True):
    """How one run starts. No prompt and no secret stands in `arguments`.

    `files` (text) and `links` (targets, made where they exist) are placed by path below `home`.
    """

    arguments: list[str]
    environment: dict[str, str]
    files: Mapping[str, str] = {}
    links: Mapping[str, Path] = {}


class ProbeHome(NamedTuple):
    """What keeps a CLI that is asked about itself from writing to the operator's home.

    `variables` are set; `links` and `copies` of the operator's files, where they are there, are
    placed by path below the private home, whose subdirectories `directories` are made.
    """

    variables: Mapping[str, str] = {}
    directories: tuple[str, ...] = ()
    links: Mapping[str, Path] = {}
    copies: Mapping[str, Path] = {}


class Login(NamedTuple):
    """Whether a CLI has an account to work with; `reason` says why not and what to do.

    None: it can only be told by a request.
    """

    logged_in: bool | None
    reason: str = ""


class LoginEvidence(NamedTuple):
    """What `judge_login` goes by; `returncode` None and `output` "" where nothing was asked."""

    environment: Mapping[str, str]
    returncode: int | None = None
    output: str = ""
    file_found: bool = False
    """Whether one of `login_files` is there."""


class AgentProbe(NamedTuple):
    """What was found of a CLI: its program, its version, its login.

    `reason` is one sentence for the operator where it is not ready, else "".
    """

    binary: Path | None
    version: str | None
    logged_in: bool | None
    reason: str

    @property
    def ready(self) -> bool:
        """Whether a run without an upstream may be tried."""
        there = self.binary is not None and self.version is not None
        return there and self.logged_in is not False


class AgentProfile(ABC):
    """One provider. Stateless; one object serves every run."""

    name: ClassVar[str]
    """Names the provider in leases, configuration and errors."""
    program: ClassVar[str]
    """Looked for on PATH."""
    variable: ClassVar[str]
    """Names the program where PATH does not."""
    package: ClassVar[str]
    """What to install where it is missing."""
    native: ClassVar[tuple[str, ...]] = ()
    """Globs below the package's directory, of the program that a script there would start."""
    features: ClassVar[frozenset[Feature]]
    upstream_protocol: ClassVar[UpstreamProtocol | None] = None
    """What a local upstream must speak; None where it takes none."""
    passes_token_limit: ClassVar[bool] = False
    """Whether the upstream is told `max_tokens`."""
    pieces_are_short: ClassVar[bool] = True
    """Whether a piece of its text is a token or a few. A run whose upstream is not told
    `max_tokens` is ended once as many pieces came; where they are whole messages, that would mean
    nothing, and `max_tokens` bounds nothing."""
    own_models: ClassVar[frozenset[str]] = frozenset()
    """All that it can be told to ask for; empty: only its vendor knows."""
    login_variables: ClassVar[tuple[str, ...]] = ()
    """What of the daemon's environment a run on the CLI's own login is given."""
    home_variables: ClassVar[tuple[str, ...]] = ()
    """Where the operator's own state is; only for finding a login."""
    switches: ClassVar[Mapping[str, str]] = {}
    """Set in every run and probe."""
    runs_programs: ClassVar[bool] = True
    """Whether a run of its native program finds those of the machine; what it does not find, it
    neither waits for nor lets loose."""
    login_hint: ClassVar[str]
    """What the operator does to log in."""

    @abstractmethod
    def plan(self, request: AgentRequest, place: Place) -> Plan:
        """How the run starts. `request` may have an upstream only where the profile takes one."""

    @abstractmethod
    def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
        """What is said to it and how its answer is read; one for each run."""

    def may_be_told(self, model: str) -> bool:
        """Whether a run may ask for it."""
        return not self.own_models or model == OWN_MODEL or model in self.own_models

    def read_version(self, output: str) -> str | None:
        """The version in what `--version` printed; None where it is no version."""
        words = output.split()
        return next((word for word in words if word[:1].isdigit() and "." in word), None)

    @abstractmethod
    def login_command(self, environment: Mapping[str, str]) -> list[str] | None:
        """Arguments that make it tell its login, offline; None where nothing needs to be asked."""

    @abstractmethod
    def judge_login(self, evidence: LoginEvidence) -> Login:
        """The verdict."""

    @abstractmethod
    def login_files(self, environment: Mapping[str, str]) -> list[Path]:
        """Files of which one is there where an account has logged in; empty: not told by files."""

    def probe_home(self, environment: Mapping[str, str], home: Path) -> ProbeHome:
        """For asking it its version and login. `environment` is the operator's."""
        return ProbeHome()

    @property
    def publication(self) -> dict[str, bool]:
        """Published metadata, by name."""
        agent = {Feature.STOP_REASONS, Feature.SYSTEM_PROMPT, Feature.TOOLS_OFF}
        return {
            "cli_completion_v1": Feature.COMPLETION in self.features,
            "cli_streaming_v1": Feature.STREAMING in self.features,
            "cli_agent_v2": agent <= self.features and self.upstream_protocol is not None,
        }

    @property
    def capabilities(self) -> Capabilities:
        """What a backend of such runs can do."""
        return Capabilities(
            generate=Feature.COMPLETION in self.features, thinking=Feature.THINKING in self.features
        )

    @property
    def capability_map(self) -> CapabilityMap:
        """The same as manifests and endpoints say it."""
        return {
            "streaming": Feature.STREAMING in self.features,
            "thinking": Feature.THINKING in self.features,
            "tool_calling": False,
            "embeddings": False,
        }
