"""From the name that a request gives to the backend that answers it."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

import trio

from inferd_proto import ErrorCode, JsonObject

from ..backends.base import Backend, GenerateRequest
from ..errors import RequestError
from ..metrics import RouteCounts
from .affinity import Affinity, prefix_hashes
from .gate import Gate
from .lanes import Lanes, Tier
from .presets import NO_PRESETS, Presets
from .requirements import AnyRequest, missing
from .upstream import Upstream

LOOK_S = 1.0
"""While somebody waits: how soon a backend is noticed that tells nobody that it is back."""


class Choice(NamedTuple):
    """The upstream for one request; `prefix` stands for its conversation, where that matters."""

    upstream: Upstream
    prefix: int | None = None


class Route:
    """A name with its upstreams in order of priority and its door.

    `tiers` are groups of equals; a tier is asked while those before it are not there to be asked.
    Each request has its lane: the upstreams that can do what it needs. It goes where its lane has
    room, which others may share, also of other routes; so no backend has more than its slots.
    """

    def __init__(
        self,
        name: str,
        tiers: Sequence[Tier],
        gate: Gate,
        *,
        aliases: Sequence[str] = (),
        presets: Presets = NO_PRESETS,
    ) -> None:
        self.name = name
        self.tiers = tiers
        self.gate = gate
        self.aliases = aliases
        self.presets = presets
        self.counts = RouteCounts()
        self.lanes = Lanes(tiers)
        self._upstreams = [upstream for tier in tiers for upstream in tier]
        self._affinity = Affinity()
        for upstream in self._upstreams:
            upstream.serve(gate.let_one_in)

    def __repr__(self) -> str:
        return f"<Route {self.name}: {self._upstreams!r}, {self.gate.admission!r}>"

    @property
    def backends(self) -> list[Backend]:
        """All of them, in order of priority."""
        return [upstream.backend for upstream in self._upstreams]

    @property
    def permits(self) -> int:
        """How many may run at once as things stand, by requests such as there were until now: what
        would only wait in a backend waits here, where turns are fair."""
        slots = sum(upstream.backend.slots for upstream in self.lanes.in_charge())
        return min(slots, self.gate.admission.permits)

    def readiness(self) -> tuple[bool, str]:
        """Whether any backend takes requests, else why not."""
        reasons: list[str] = []
        for upstream in self._upstreams:
            readiness = upstream.readiness()
            if readiness.ready:
                return True, ""
            reasons.append(f"{upstream.name}: {readiness.reason}")
        return False, "; ".join(reasons)

    def choose(self, request: AnyRequest) -> Choice:
        """An upstream of the first tier that can answer and is ready, else the first on its way.

        Raises RequestError with the reason for each backend: where none can answer, the code of
        the first one's refusal; where some could but none is ready, `backend_unavailable`.
        """
        skipped: list[str] = []
        refusal: RequestError | None = None
        unready = False
        pending: Upstream | None = None
        for tier in self.tiers:
            able: list[Upstream] = []
            for upstream in tier:
                lacking = missing(request, upstream.backend.capabilities)
                if lacking is not None:
                    refusal = refusal or lacking
                    skipped.append(f"{upstream.name} {lacking.message}")
                    continue
                readiness = upstream.readiness()
                if readiness.ready:
                    able.append(upstream)
                    continue
                unready = True
                if readiness.pending:
                    pending = pending or upstream
                skipped.append(f"{upstream.name} is not ready: {readiness.reason}")
            if able:
                return self._balance(able, request) if len(tier) > 1 else Choice(able[0])
        if pending is not None:
            return Choice(pending)
        code = ErrorCode.BACKEND_UNAVAILABLE
        if refusal is not None and not unready:
            code = refusal.code
        details: JsonObject | None = None
        if code is ErrorCode.BACKEND_UNAVAILABLE and (waits := self._retries()):
            details = {"estimate_ms": ceil(min(waits) * 1000)}
        raise RequestError(code, f"route {self.name}: {'; '.join(skipped)}", details=details)

    def remember(self, choice: Choice) -> None:
        """The upstream has served the conversation, and has it in its cache now."""
        if choice.prefix is not None:
            self._affinity.remember(choice.prefix, choice.upstream.name)

    async def run(self) -> None:
        """Tell those who wait where they stand, and let them in when an upstream is back that had
        nothing to tell it by; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.gate.run)
            while True:
                await self.gate.somebody_waiting()
                await trio.sleep(min([LOOK_S, *self._retries()]))
                self.gate.let_in()

    def _retries(self) -> list[float]:
        """In how many seconds breakers let a request try again."""
        waits = (upstream.retry_in() for upstream in self._upstreams)
        return [wait for wait in waits if wait > 0]

    def _balance(self, able: Sequence[Upstream], request: AnyRequest) -> Choice:
        """The one that has seen the conversation, if it has room; else the least busy one.

        Among equals the one that has been idle for longest: its cache is the least useful.
        """
        prefixes = prefix_hashes(request) if isinstance(request, GenerateRequest) else []
        prefix = prefixes[-1] if prefixes else None
        known = self._affinity.find(prefixes)
        for upstream in able:
            if upstream.name == known and upstream.has_room:
                return Choice(upstream, prefix)
        least_busy = min(able, key=lambda u: (not u.has_room, u.in_flight, u.last_begun))
        return Choice(least_busy, prefix)


class Router:
    """All routes by name and alias."""

    def __init__(self, routes: Sequence[Route], default: str | None) -> None:
        self.routes = routes
        self._by_name: dict[str, Route] = {}
        for route in routes:
            for name in (route.name, *route.aliases):
                self._by_name[name] = route
        self._default = default

    @property
    def by_name(self) -> Mapping[str, Route]:
        """Routes under their names and aliases."""
        return self._by_name

    @property
    def default(self) -> Route | None:
        """Where a request goes that names no route: the configured one, or the only one."""
        if self._default is not None:
            return self._by_name[self._default]
        return self.routes[0] if len(self.routes) == 1 else None

    async def run(self) -> None:
        """What the routes do by themselves, until cancelled."""
        async with trio.open_nursery() as nursery:
            for route in self.routes:
                nursery.start_soon(route.run)

    def find(self, model: str | None) -> Route:
        """The route that `model` names. Raises RequestError (`invalid_request`)."""
        route = self._by_name.get(model) if model else self.default
        if route is not None:
            return route
        known = ", ".join(route.name for route in self.routes) or "none"
        if not model:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"`model` is missing and there is no default route; the routes are: {known}",
            )
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"no route {model[:80]!r}; the routes are: {known}"
        )
