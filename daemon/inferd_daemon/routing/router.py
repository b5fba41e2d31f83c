"""From the name that a request gives to the backend that answers it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from inferd_proto import ErrorCode

from ..backends.base import Backend
from ..errors import RequestError
from .gate import Gate
from .requirements import AnyRequest, missing


class Route(NamedTuple):
    """A name with its backends in order of priority and its door."""

    name: str
    backends: Sequence[Backend]
    aliases: Sequence[str]
    gate: Gate

    def readiness(self) -> tuple[bool, str]:
        """Whether any backend takes requests, else why not."""
        reasons: list[str] = []
        for backend in self.backends:
            readiness = backend.readiness()
            if readiness.ready:
                return True, ""
            reasons.append(f"{backend.name}: {readiness.reason}")
        return False, "; ".join(reasons)

    def choose(self, request: AnyRequest) -> Backend:
        """The first backend that can answer and is ready, else the first on its way to be.

        Raises RequestError with the reason for each backend: where none can answer, the code of
        the first one's refusal; where some could but none is ready, `backend_unavailable`.
        """
        skipped: list[str] = []
        refusal: RequestError | None = None
        unready = False
        pending: Backend | None = None
        for backend in self.backends:
            lacking = missing(request, backend.capabilities)
            if lacking is not None:
                refusal = refusal or lacking
                skipped.append(f"{backend.name} {lacking.message}")
                continue
            readiness = backend.readiness()
            if readiness.ready:
                return backend
            unready = True
            if readiness.pending:
                pending = pending or backend
            skipped.append(f"{backend.name} is not ready: {readiness.reason}")
        if pending is not None:
            return pending
        code = ErrorCode.BACKEND_UNAVAILABLE
        if refusal is not None and not unready:
            code = refusal.code
        raise RequestError(code, f"route {self.name}: {'; '.join(skipped)}")


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

    def find(self, model: str | None) -> Route:
        """The route that `model` names. Raises RequestError (`invalid_request`)."""
        known = ", ".join(route.name for route in self.routes) or "none"
        if not model:
            if self.default is not None:
                return self.default
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"`model` is missing and there is no default route; the routes are: {known}",
            )
        route = self._by_name.get(model)
        if route is None:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"no route {model[:80]!r}; the routes are: {known}",
            )
        return route
