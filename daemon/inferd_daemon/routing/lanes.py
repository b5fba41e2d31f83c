"""Where on a route a request can go: those of its upstreams that can do what it needs. Pure.

A lane is asked for room as things stand. Never chooses among upstreams.
"""

from collections.abc import Sequence

from .requirements import AnyRequest, missing
from .upstream import Upstream

Tier = Sequence[Upstream]


class UpstreamLane:
    """Upstreams in tiers; without any for what nobody can do."""

    __slots__ = ("tiers",)

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tiers

    def __repr__(self) -> str:
        return f"<UpstreamLane {[[upstream.name for upstream in tier] for tier in self.tiers]}>"

    @property
    def has_room(self) -> bool:
        """One more would not have to wait in a backend; true where it would only be refused.

        Other routes may keep the same backends busy.
        """
        in_charge = self.in_charge()
        return not in_charge or any(upstream.has_room for upstream in in_charge)

    @property
    def slots(self) -> int:
        """Of the upstreams in charge."""
        return sum(upstream.backend.slots for upstream in self.in_charge()) or 1

    def in_charge(self) -> Tier:
        """Who is asked as things stand: the ready ones of the first tier that has any, else the
        first that is on its way, else nobody but the first tier."""
        coming: Upstream | None = None
        for tier in self.tiers:
            ready = []
            for upstream in tier:
                readiness = upstream.readiness()
                if readiness.ready:
                    ready.append(upstream)
                elif readiness.pending and coming is None:
                    coming = upstream
            if ready:
                return ready
        if coming is not None:
            return (coming,)
        return self.tiers[0] if self.tiers else ()


class Lanes:
    """The lanes of one route, one for each set of upstreams that some request has asked for."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tiers
        self._upstreams = [upstream for tier in tiers for upstream in tier]
        self._whole = UpstreamLane(tiers)
        self._known = {frozenset(self._upstreams): self._whole}

    def of(self, request: AnyRequest) -> UpstreamLane:
        """Who could answer `request`, ready or not."""
        if len(self._upstreams) == 1:
            return self._whole
        able = frozenset(
            upstream
            for upstream in self._upstreams
            if missing(request, upstream.backend.capabilities) is None
        )
        lane = self._known.get(able)
        if lane is None:
            tiers = [[upstream for upstream in tier if upstream in able] for tier in self._tiers]
            lane = self._known[able] = UpstreamLane([tier for tier in tiers if tier])
        return lane

    def in_charge(self) -> set[Upstream]:
        """Who is asked as things stand, by requests such as there were until now."""
        return {upstream for lane in self._known.values() for upstream in lane.in_charge()}
