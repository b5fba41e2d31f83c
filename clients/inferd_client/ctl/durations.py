"""How long, as people type it: `90`, `5m`, `1h30m`, `0`, `forever`; pure."""

import re

import click

FOREVER = float("inf")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WORDS = ("forever", "infinite", "-1")
"""What users of other tools type for it."""


def parse_duration(text: str) -> float:
    """Seconds, `FOREVER` for no end. Raises ValueError."""
    text = text.strip().lower()
    if text in _WORDS:
        return FOREVER
    if _NUMBER.fullmatch(text):
        return float(text)
    if _WHOLE.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    raise ValueError(f"{text!r} is no duration: 90s, 5m, 1h30m, a number of seconds, or forever")


class Duration(click.ParamType):  # type: ignore[type-arg]
    """An option's value in seconds, from `at_least` to `at_most`, or `FOREVER` where `forever`."""

    name = "duration"

    def __init__(
        self,
        *,
        at_least: float = 0.0,
        at_most: float = FOREVER,
        forever: bool = False,
        why: str = "",
    ) -> None:
        self._at_least = at_least
        self._at_most = at_most
        self._forever = forever
        self._why = why

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises BadParameter in words."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        fits = self._forever if seconds == FOREVER else seconds <= self._at_most
        if seconds < self._at_least or not fits:
            self.fail(f"{value} is out of range: {self._why}", param, ctx)
        return seconds


MAX_TTL_S = 24 * 3600.0

TTL = Duration(
    at_least=1.0,
    at_most=MAX_TTL_S,
    forever=True,
    why="a lease lives from 1 s to 24 h, or `forever` while the command runs",
)
"""The life of a lease."""

KEEP = Duration(
    at_most=MAX_TTL_S,
    forever=True,
    why="at most 24 h, or `forever` while the command runs; a route's idle_ttl may be forever, too",
)
"""How long a model stays loaded; 0 is not to hold it."""
