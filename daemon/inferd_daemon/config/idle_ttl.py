"""`idle_ttl`: how long a runtime without a lease stays warm. Pure."""

from typing import Annotated

from msgspec import Meta

IdleTtl = (
    Annotated[float, Meta(ge=0, le=31_536_000)]
    | Annotated[str, Meta(pattern=r"^(forever|[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d))\Z")]
)
"""Seconds, or a number with its unit (`"90s"`, `"10m"`), or `"forever"`; 0 stops at once."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def idle_seconds(ttl: float | str) -> float | None:
    """An `IdleTtl` in seconds; None for ever."""
    if not isinstance(ttl, str):
        return float(ttl)
    if ttl == "forever":
        return None
    number = ttl.rstrip("mshd")
    return float(number) * _UNITS[ttl[len(number) :]]
