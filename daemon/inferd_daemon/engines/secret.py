"""A key that does not show itself: not in a repr, a log line, a traceback or an f-string."""

import hashlib


class Secret:
    """Holds one secret text. Equal and hashable by its content."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that hands it on."""
        return self._text

    def fingerprint(self) -> str:
        """Hex that tells two secrets apart. Only for hashing on: short keys can be guessed."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__
