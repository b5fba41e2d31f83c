"""`lease.*` in both directions: a call's arguments to plain JSON, plain JSON to records; pure.

Ranges and names are checked by the daemon, once, for every client.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypedDict, TypeVar

import msgspec
from msgspec import Struct

from inferd_proto import (
    AgentStatus,
    Answer,
    Bind,
    ConsumerManifest,
    EnsurePlan,
    JsonObject,
    Lease,
    LeaseContext,
    LeaseEnsure,
    LeaseEnsured,
    LeaseList,
    Result,
    Transport,
)

from . import requests
from .errors import ProtocolViolation
from .requests import Build

Target: TypeAlias = str | Mapping[str, Any]
"""A route's name; or a boot spec (it has `model`), an attach spec (`root_url`), an agent spec
(`agent`), as in leases.md sections 3 to 5."""

DEFAULT_TTL_S = 60.0

T = TypeVar("T")


class EnsureOptions(TypedDict, total=False):
    """What `lease`, `ensure` and `plan` take besides the target."""

    ttl: float | None
    """Seconds from 1 to 86,400 that the lease lives without a renewal, 60 by default; None lives
    as long as the connection, and is only for `bind="connection"`."""
    transport: Transport
    """`uds` (default): the runtime's own Unix socket. `tcp`: a loopback URL."""
    owner: str
    """Who holds it, for people who read `inferdctl lease ls`; by default the client's label."""
    bind: Bind
    """`connection`: released when the client's connection ends. `none`: lives by its ttl alone."""
    wait_s: float
    """How long to wait for memory or a runtime's place where there is none."""
    renewable: bool
    consumer: ConsumerManifest
    """What this program accepts and requires; the daemon refuses a runtime that does not fit."""
    context: LeaseContext
    """Kept beside the lease for whoever looks at it."""
    agent: str
    """Instead of a target: a CLI agent, `codex`, `claude`, `gemini` or `amp`."""
    model: str
    """For `agent`: what it is told to ask for."""
    upstream: str
    """For `agent`: the route that it runs on, instead of its own login."""


_OF_AGENTS = ("agent", "model", "upstream")


class _LeaseListed(Struct, frozen=True):
    leases: list[Lease]


class _Ref(Struct, frozen=True):
    lease_ref: str


class _Granted(Struct, frozen=True):
    """Of `lease.ensure`'s answer what giving it back needs."""

    lease: _Ref


class _AgentListed(Struct, frozen=True):
    agents: list[AgentStatus]


def ensure(target: Target | None, options: EnsureOptions, *, owner: str, bind: Bind) -> JsonObject:
    """The arguments of `lease.ensure`; `owner` and `bind` where the options do not say.

    Raises ValueError for a target that is none, and for a lease that nothing would end.
    """
    ttl = options.get("ttl", DEFAULT_TTL_S)
    asked = LeaseEnsure(
        target=_target(target, options),
        consumer=options.get("consumer", ConsumerManifest()),
        transport=options.get("transport", "uds"),
        owner_ref=options.get("owner", owner),
        ttl_ms=None if ttl is None else round(ttl * 1000),
        renewable=options.get("renewable", True),
        bind=options.get("bind", bind),
        context=options.get("context", LeaseContext()),
        wait_ms=round(options.get("wait_s", 0.0) * 1000),
    )
    plain: JsonObject = msgspec.to_builtins(asked)
    for name in ("consumer", "context"):
        if name not in options:
            del plain[name]  # the daemon's own default, whatever it has become
    return plain


def _target(target: Target | None, options: EnsureOptions) -> str | JsonObject:
    given: Mapping[str, object] = options
    agent: JsonObject = {name: given[name] for name in _OF_AGENTS if given.get(name)}
    if target is None:
        if "agent" not in agent:
            raise ValueError("there is no target: give a route, a spec, or `agent`")
        return agent
    if agent:
        raise ValueError(f"a target is given already: `{next(iter(agent))}` is for a lease without")
    return target if isinstance(target, str) else dict(target)


def release(lease_ref: str) -> Build:
    """The request that gives a lease back; as often as it is asked."""
    return requests.control("lease.release", {"lease_ref": lease_ref})


def release_of(answer: Answer) -> Build | None:
    """The same for what a `lease.ensure` granted; None where `answer` is no grant."""
    if not isinstance(answer, Result):
        return None
    try:
        granted = msgspec.convert(answer.value, _Granted)
    except msgspec.ValidationError:
        return None
    return release(granted.lease.lease_ref)


def filters(owner: str | None, instance_key: str | None, uid: int | None) -> JsonObject:
    """The arguments of `lease.list`."""
    plain: JsonObject = msgspec.to_builtins(LeaseList(owner, instance_key, uid))
    return plain


def to_ensured(value: object) -> LeaseEnsured:
    """Raises ProtocolViolation where `value` is not the answer of `lease.ensure`."""
    return to_record(value, LeaseEnsured)


def to_plan(value: object) -> EnsurePlan:
    """Raises ProtocolViolation where `value` is not a plan."""
    return to_record(value, EnsurePlan)


def to_lease(value: object) -> Lease:
    """Raises ProtocolViolation where `value` is not a lease."""
    return to_record(value, Lease)


def to_leases(value: object) -> list[Lease]:
    """Raises ProtocolViolation where `value` is not a list of leases."""
    return to_record(value, _LeaseListed).leases


def to_agents(value: object) -> list[AgentStatus]:
    """Raises ProtocolViolation where `value` is not a list of providers."""
    return to_record(value, _AgentListed).agents


def to_record(value: object, kind: type[T]) -> T:
    """`value` as the record that was due. Raises ProtocolViolation, without the value itself:
    it may hold a key."""
    try:
        return msgspec.convert(value, kind)
    except ValueError as error:
        raise ProtocolViolation(f"the daemon's {kind.__name__} makes no sense: {error}") from None
