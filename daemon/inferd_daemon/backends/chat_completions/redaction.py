"""Takes secrets out of what an upstream says, in whatever form it repeats them.

Pure. A secret is found where it stands as it is, escaped for HTML, a URL or JSON, in other case or
broken by white space. It must never leave a part of one at an end where the text was cut.
"""

import re
from base64 import b64decode
from collections.abc import Iterable

_SHORTEST_SECRET = 4
_SHORTEST_WORD = 8
"""Shorter ones are words of the language, too: broken or in other case they are not looked for."""
_MASK = "***"
_LEVELS = 3
"""An escaped text may be escaped again, by whoever passes it on."""
_LONGEST_ESCAPE = 12
"""In characters: `\\\\\\\\u0026amp;` is longer, but not all of a secret is escaped so."""
_DROPPED = re.compile(r"\\+(?:[nrt]|(?=[\"'/]))")
"""Line ends as they stand in JSON, and what it escapes others with."""
_ESCAPES = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});?"
    r"|%[0-9a-fA-F]{2}"
    r"|\\+(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})"
    r"|\\{2,}"
)
_HALF_ESCAPE = re.compile(r"(?:&[#a-zA-Z0-9]{0,31}|%[0-9a-fA-F]?|\\+(?:u[0-9a-fA-F]{0,3})?)\Z")
_LOOKS_SECRET = re.compile(r"(?i)\b(?:bearer\s+[^\s\"',;]+|sk-[A-Za-z0-9_*-]{8,})")
_BASIC = re.compile(r"(?i)\s*basic\s+([A-Za-z0-9+/]+)=*\s*\Z")
_LOWER = {ord(c): ord(c) + 32 for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def words_of(value: str) -> list[str]:
    """Of a header's value those that may be secret by themselves: `Bearer` is not, its token is.

    Of `Basic` also the password that stands in its token.
    """
    words = [word for word in re.split(r"[\s=,;\"]+", value) if len(word) >= _SHORTEST_WORD]
    basic = _BASIC.match(value)
    if basic is not None:
        token = basic[1]
        try:
            told = b64decode(token + "=" * (-len(token) % 4))
        except ValueError:  # not what it says: then it is one word
            return words
        words += [told.decode(how, "replace").partition(":")[2] for how in ("utf-8", "latin-1")]
    return words


class Redactor:
    """Takes secrets out of text: those it is told, and what looks like a key."""

    __slots__ = ("_plain", "_reach", "_secrets", "longest")

    def __init__(self, secrets: Iterable[str]) -> None:
        """`longest` is the length of the longest secret, in bytes."""
        kept = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        self._secrets = sorted(kept, key=len, reverse=True)
        # a URL escapes the bytes of what is not ASCII, each for itself
        forms = {_plain(form) for secret in kept for form in (secret, _as_bytes(secret))}
        plain = (form for form in forms if len(form) >= _SHORTEST_SECRET)
        self._plain = sorted(plain, key=len, reverse=True)
        self._reach = _LONGEST_ESCAPE * max(map(len, self._plain), default=0)
        self.longest = max((len(secret.encode()) for secret in kept), default=0)

    def __call__(self, text: str) -> str:
        """`text` without secrets, and without the head of one at a cut end."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        if self._plain:
            plain = _plain(text)
            lower = plain.translate(_LOWER)
            if any(secret.translate(_LOWER) in lower for secret in self._plain):
                text = self._masked(text)
            text = self._without_head(text)
        return _LOOKS_SECRET.sub(_MASK, text)

    def _masked(self, text: str) -> str:
        """`text` without the secrets that stand in it in another form."""
        plain, starts, ends = _mapped(text)
        lower = plain.translate(_LOWER)
        spans: list[tuple[int, int]] = []
        for secret in self._plain:
            wanted = secret.translate(_LOWER)
            at = lower.find(wanted)
            while at >= 0:
                after = at + len(wanted)
                span = (starts[at], ends[after - 1])
                found = text[slice(*span)]
                same = plain[at:after] == secret and len(found.split()) == 1
                if same or len(secret) >= _SHORTEST_WORD:
                    spans.append(span)
                at = lower.find(wanted, at + 1)
        for start, end in _apart(spans):
            text = text[:start] + _MASK + text[end:]
        return text

    def _without_head(self, text: str) -> str:
        """`text` without the first part of a secret that its end was cut off from."""
        begin = max(0, len(text) - self._reach)
        end = _HALF_ESCAPE.sub("", text[begin:])
        plain = _plain(end)
        for secret in self._plain:
            for length in range(min(len(secret) - 1, len(plain)), _SHORTEST_SECRET - 1, -1):
                if plain.endswith(secret[:length]):
                    _, starts, _ = _mapped(end)
                    return text[:begin] + end[: starts[-length]]
        return text


def _plain(text: str) -> str:
    """`text` without its escapes and its white space: what is the same in all forms of a secret."""
    text = "".join(text.split())
    for _ in range(_LEVELS):
        before = text
        if "\\" in text:
            text = _DROPPED.sub("", text)
        if "\\" in text or "&" in text or "%" in text:
            text = _ESCAPES.sub(_meant, text)
        if len(text) == len(before):
            break
    return text


def _mapped(text: str) -> tuple[str, list[int], list[int]]:
    """As `_plain`, and where in `text` each of its characters begins and ends."""
    starts = [at for at, char in enumerate(text) if not char.isspace()]
    ends = [at + 1 for at in starts]
    text = "".join(text.split())
    for _ in range(_LEVELS):
        for escapes in (_DROPPED, _ESCAPES):
            parts, new_starts, new_ends, done = [], [], [], 0
            for escape in escapes.finditer(text):
                first, after = escape.span()
                meant = _meant(escape) if escapes is _ESCAPES else ""
                if meant != escape[0]:
                    parts += [text[done:first], meant]
                    new_starts += starts[done:first] + starts[first : first + 1] * len(meant)
                    new_ends += ends[done:first] + ends[after - 1 : after] * len(meant)
                    done = after
            text = "".join((*parts, text[done:]))
            starts, ends = new_starts + starts[done:], new_ends + ends[done:]
    return text, starts, ends


def _meant(escape: re.Match[str]) -> str:
    """What one of `_ESCAPES` stands for; nothing for white space."""
    mark, rest = escape[0][0], escape[0].lstrip("%\\")
    if mark == "&":
        from html import unescape  # knows two thousand names, and is seldom needed

        meant = unescape(rest)
    elif not rest:
        meant = mark
    else:
        meant = chr(int(rest.lstrip("ux"), 16))
    return "".join(meant.split())


def _as_bytes(text: str) -> str:
    """Each byte of `text` as one character."""
    return text.encode().decode("latin-1")


def _apart(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What `spans` cover, each part once, the last first."""
    parts: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if parts and start < parts[-1][1]:
            start, end = parts[-1][0], max(end, parts.pop()[1])
        parts.append((start, end))
    return parts[::-1]
