"""`[backends.<name>.breaker]`: when a failing backend is left alone, and for how long."""

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class BreakerConfig(Struct, frozen=True, kw_only=True):
    """`failures` within `window_s` leave the backend alone for `open_s`; then one request tries it.

    `failures = 0`: it is always asked.
    """

    failures: Annotated[int, Meta(ge=0, le=1000)] = 3
    window_s: Seconds = 60.0
    open_s: Seconds = 30.0
