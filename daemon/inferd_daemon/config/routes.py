"""`[routes.<name>]`, `[clients.<label>]`, `[uids.<uid>]`: who is answered by what, and when."""

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z")]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Uid = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,9})\Z")]
Weight = Annotated[int, Meta(ge=1, le=1000)]
"""Whole turns: so places in the queue are exact."""
Limit = Annotated[int, Meta(ge=1, le=1_000_000)]
Member = Annotated[str, Meta(min_length=1, max_length=128)]
"""The name of a backend. Without a pattern: in a union with a list msgspec 0.22 frees a patterned
string's pattern as if it owned it, and the interpreter dies."""
Group = Annotated[list[Member], Meta(min_length=1)]


class RouteDefaults(Struct, frozen=True, kw_only=True):
    """`[routes.<name>.defaults]`: what a generation gets that does not say otherwise.

    The v1 wire has defaults of its own for `temperature`, `top_p`, `top_k` and `max_tokens`.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: list[Annotated[str, Meta(min_length=1)]] | None = None
    max_tokens: Limit | None = None
    thinking: bool | None = None


class RouteLimits(Struct, frozen=True, kw_only=True):
    """`[routes.<name>.limits]`: what no request exceeds.

    `max_tokens` cuts what is asked for: the answer then ends with `max_tokens`. `peer_active` and
    `peer_queued` hold for each client (a uid with a label); a client at its `peer_active` waits
    while others pass, one at its `peer_queued` gets `queue_full`.
    """

    max_tokens: Limit | None = None
    peer_active: Limit | None = None
    peer_queued: Limit | None = None


class RouteConfig(Struct, frozen=True, kw_only=True):
    """`[routes.<name>]`: a name that requests may ask for as `model`.

    `backends` are in order of priority: `["a", "b"]` asks b only while a is not there to be asked.
    A list inside is a group of equals that share the load: `["a", ["b", "c"]]`, or `[["b", "c"]]`.
    A request passes over those that cannot do what it needs, and waits for nobody's slots but
    theirs that can. Routes that name the same backend share its slots. `active_permits` bounds how
    many requests run at once, whatever slots there are. `queue_depth` more wait, the next one gets
    `queue_full`; only users, and a few clients, that have nothing in a full queue still find a
    place. None waits longer than `max_wait_ms`.
    """

    backends: Annotated[list[Member | Group], Meta(min_length=1)]
    aliases: list[Name] = []
    active_permits: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    queue_depth: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    max_wait_ms: Annotated[int, Meta(ge=1)] | None = None
    defaults: RouteDefaults = RouteDefaults()
    limits: RouteLimits = RouteLimits()

    @property
    def tiers(self) -> list[list[str]]:
        """`backends` as groups in order of priority."""
        return [[entry] if isinstance(entry, str) else entry for entry in self.backends]


class ShareConfig(Struct, frozen=True, kw_only=True):
    """A share of every route: of `[uids.<uid>]` beside other users, of `[clients.<label>]` beside
    other clients of the same user.

    Of two that wait, one with `weight` 3 has three turns for one of the other's. `active` and
    `queued` bound what it has at once on one route.
    """

    weight: Weight = 1
    active: Limit | None = None
    queued: Limit | None = None
