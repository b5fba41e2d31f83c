"""How fast an answer came, from the times of its events; pure: the times are given."""

from typing import NamedTuple

from inferd_proto import TextDelta, ThinkingDelta, ToolUse

from ..answers import Done, Event
from .render import duration

_DECODING_SHARE = 0.25
"""Of the whole time, at least: an answer that comes in one burst was made before it came, and the
time of its arrival says nothing of how fast."""


class Stopwatch:
    """Keeps the first and the last moment of an answer; times in seconds of one clock."""

    def __init__(self, asked_at: float) -> None:
        self._asked_at = asked_at
        self._first_at: float | None = None
        self._last_at = asked_at
        self._deltas = 0

    def saw(self, event: Event, now: float) -> None:
        """One more event, at `now`."""
        self._last_at = now
        if self._first_at is None and isinstance(event, TextDelta | ThinkingDelta | ToolUse):
            self._first_at = now
        if isinstance(event, TextDelta | ThinkingDelta):
            self._deltas += 1

    def measure(self, done: Done) -> "Figures":
        """The figures of an answer that has ended."""
        first_at = self._last_at if self._first_at is None else self._first_at
        tokens = done.usage.output_tokens if done.counted else 0
        decoding = self._last_at - first_at
        whole = self._last_at - self._asked_at
        streamed = tokens > 1 and self._deltas > 1 and decoding >= _DECODING_SHARE * whole
        if streamed:
            rate: float | None = (tokens - 1) / decoding
        else:
            rate = tokens / whole if tokens and whole > 0 else None
        return Figures(
            first_s=first_at - self._asked_at,
            whole_s=whole,
            tokens=tokens if done.counted else None,
            tokens_per_s=rate,
        )

    def figures(self, done: Done) -> str:
        """`measure` in words."""
        return self.measure(done).in_words()


class Figures(NamedTuple):
    """`first_s` from the question to the first token or call that came; `tokens_per_s` from there
    on, over the whole time where decoding was no large part of it, None without tokens. `tokens` is
    None where nobody counted."""

    first_s: float
    whole_s: float
    tokens: int | None
    tokens_per_s: float | None

    def in_words(self) -> str:
        """One line."""
        first = f"first token after {duration(self.first_s)}"
        if self.tokens is None:
            return f"{first}, all in {duration(self.whole_s)}, tokens not counted"
        plural = "" if self.tokens == 1 else "s"
        whole = f"{self.tokens} token{plural} in {duration(self.whole_s)}"
        if self.tokens_per_s is None:
            return whole
        digits = 0 if self.tokens_per_s >= 10 else 1
        return f"{first}, {whole}, {self.tokens_per_s:,.{digits}f} tokens/s"

    def as_fields(self) -> dict[str, float | int | None]:
        """For JSON; milliseconds with three digits."""
        rate = None if self.tokens_per_s is None else round(self.tokens_per_s, 1)
        return {
            "first_token_ms": round(self.first_s * 1000, 3),
            "total_ms": round(self.whole_s * 1000, 3),
            "tokens": self.tokens,
            "tokens_per_s": rate,
        }
