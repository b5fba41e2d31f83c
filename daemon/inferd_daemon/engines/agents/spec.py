"""The spec of a CLI agent as an endpoint, normalised once (leases.md section 5).

Pure: looks for no program. What it may hold is what a lease pins: the provider, the model, and the
route that it runs on.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from inferd_proto import JsonObject

from ...config import AgentConfig
from ...config.checking import check, dotted
from ...errors import CallerFault
from .profile import AgentProfile
from .registry import PROFILES
from .request import OWN_MODEL

Short = Annotated[str, Meta(min_length=1, max_length=256)]
Mistakes = list[tuple[str, str]]
_TOOL_FIELDS = ("tools", "tool_choice")
_NO_TOOLS = "asks for what no CLI agent's endpoint has: it completes and streams, without tools"


class _Fields(Struct, kw_only=True):
    """The fields as they may be given; types and ranges only."""

    agent: Short
    model: Short | None = None
    upstream: Short | None = None
    metadata: JsonObject = {}


class AgentSpec(Struct, frozen=True, kw_only=True):
    """A right agent spec. Make it with `normalise_agent`.

    `model` is what the CLI is told; None: the one that `upstream` serves.
    """

    agent: str
    model: str | None = None
    upstream: str | None = None
    metadata: JsonObject = {}

    @property
    def profile(self) -> AgentProfile:
        """Of its provider."""
        return PROFILES[self.agent]

    def instance_key(self) -> str:
        """What makes two specs mean the same endpoint."""
        parts = msgspec.json.encode([self.agent, self.model, self.upstream])
        return f"agent-{hashlib.sha256(parts).hexdigest()[:32]}"

    def to_json(self) -> JsonObject:
        """What `normalise_agent` makes this spec from again."""
        plain: JsonObject = msgspec.to_builtins(self)
        return {name: value for name, value in plain.items() if value is not None}


class AgentSpecError(CallerFault):
    """A spec that is wrong. `mistakes` are all of them, each naming its field."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        told = "; ".join(f"`{name}` {text}" for name, text in mistakes)
        super().__init__(f"the agent spec is wrong: {told}")
        self.details = {"mistakes": [{"field": name, "message": text} for name, text in mistakes]}


def normalise_agent(
    raw: Mapping[str, object], configured: Mapping[str, AgentConfig] | None = None
) -> AgentSpec:
    """The spec that `raw` means; `provider` is another name for `agent`.

    `configured` says which models each provider may be asked for. Raises AgentSpecError with every
    mistake.
    """
    data = {name: value for name, value in raw.items() if value is not None}
    if "agent" not in data and "provider" in data:
        data["agent"] = data.pop("provider")
    mistakes = tool_mistakes(data)
    for name in _TOOL_FIELDS:
        data.pop(name, None)
    fields, wrong = check(data, _Fields)
    mistakes += [(dotted(path), text) for path, text in wrong]
    if fields is None:
        raise AgentSpecError(mistakes)
    fields = _with_defaults(fields, configured or {})
    mistakes += _field_mistakes(fields, configured or {})
    if mistakes:
        raise AgentSpecError(mistakes)
    return AgentSpec(
        agent=fields.agent,
        model=fields.model,
        upstream=fields.upstream,
        metadata=fields.metadata,
    )


def tool_mistakes(asked: Mapping[str, object]) -> Mistakes:
    """What of `asked` wants tools; without any, or with "none", nothing is wanted."""
    tools, choice = (asked.get(name) for name in _TOOL_FIELDS)
    found: Mistakes = []
    if tools:
        found.append(("tools", _NO_TOOLS))
    if choice not in (None, "none"):
        found.append(("tool_choice", _NO_TOOLS))
    return found


def _with_defaults(fields: _Fields, configured: Mapping[str, AgentConfig]) -> _Fields:
    """Who asks for no model in particular gets what the operator says, else what the CLI takes."""
    if fields.model is not None or fields.upstream is not None:
        return fields
    table = configured.get(fields.agent)
    if table is not None and table.models:
        return replace(fields, model=table.models[0])
    if table is not None and table.upstream is not None:
        return replace(fields, upstream=table.upstream)
    return replace(fields, model=OWN_MODEL)


def _field_mistakes(fields: _Fields, configured: Mapping[str, AgentConfig]) -> Mistakes:
    found: Mistakes = []
    profile = PROFILES.get(fields.agent)
    if profile is None:
        found.append(("agent", f"{fields.agent[:80]!r} is none of {', '.join(PROFILES)}"))
    elif fields.upstream is not None and profile.upstream_protocol is None:
        found.append(("upstream", f"{profile.name} cannot be pointed at a local model"))
    if fields.model is None:
        return found
    if fields.model.startswith("-") or not fields.model.isprintable() or " " in fields.model:
        # It is one word on a command line.
        found.append(("model", "is no name of a model"))
    allowed = None if fields.agent not in configured else configured[fields.agent].models
    if allowed is not None and fields.upstream is None and fields.model not in allowed:
        found.append(("model", f"{fields.model!r} is none of {', '.join(allowed) or 'none'}"))
    elif profile is not None and not profile.may_be_told(fields.model):
        told = ", ".join(sorted(profile.own_models))
        found.append(("model", f"{fields.model!r} is nothing that {profile.name} has: {told}"))
    return found
