"""What a route adds to a generation that does not say otherwise, and what it cuts. Pure."""

import msgspec

from ..backends.base import GenerateRequest, Sampling
from ..config import RouteDefaults, RouteLimits

_SAMPLING = Sampling.__struct_fields__


class Presets:
    """The defaults and limits of one route."""

    def __init__(self, defaults: RouteDefaults, limits: RouteLimits) -> None:
        self._sampling = {
            name: value for name in _SAMPLING if (value := getattr(defaults, name)) is not None
        }
        self._thinking = defaults.thinking
        self._max_tokens = limits.max_tokens
        self._changes_nothing = (
            not self._sampling and self._thinking is None and self._max_tokens is None
        )

    def apply(self, request: GenerateRequest) -> GenerateRequest:
        """`request` with the defaults under its own wishes, and within the limits."""
        if self._changes_nothing:
            return request
        sampling = request.sampling
        changes = {
            name: value for name, value in self._sampling.items() if getattr(sampling, name) is None
        }
        sampling = msgspec.structs.replace(sampling, **changes)
        cap = self._max_tokens
        if cap is not None and (sampling.max_tokens is None or sampling.max_tokens > cap):
            sampling = msgspec.structs.replace(sampling, max_tokens=cap)
        thinking = self._thinking if request.thinking is None else request.thinking
        return msgspec.structs.replace(request, sampling=sampling, thinking=thinking)


NO_PRESETS = Presets(RouteDefaults(), RouteLimits())
