"""How a command line went, and what runs one."""

from collections.abc import Callable
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command line went."""

    code: int
    out: str
    err: str


Ctl = Callable[..., Ended]
