"""Secrets are taken out in every form in which an upstream repeats them, and nothing else is."""

import html
import json
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.chat_completions import Redactor, words_of

KEY = "Zq7+xY/9w=Kp&3<tR5"
REDACT = Redactor([KEY])

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "HTML": html.escape,
    "HTML by Go": lambda text: html.escape(text).replace("+", "&#43;"),
    "HTML, all by number": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "URL": lambda text: quote(text, safe=""),
    "URL, a path": quote,
    "URL, in small letters": lambda text: quote_plus(text).lower(),
    "JSON with escaped slashes": lambda text: text.replace("/", "\\/"),
    "JSON by Go": lambda text: text.replace("&", "\\u0026").replace("<", "\\u003c"),
    "JSON, all escaped": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text.replace("/", "\\/")))[3:-3],
    "JSON in JSON, by number": lambda text: text.replace("&", "\\\\u0026"),
    "bytes in Python": lambda text: text.replace("/", "\\x2f"),
    "other case": str.upper,
    "a line end within": lambda text: text[:7] + "\r\n" + text[7:],
    "a line end within, in JSON": lambda text: text[:7] + "\\n" + text[7:],
    "spaces within": " ".join,
}


# A backslash runs together with the escape of what follows it, and stands in no real key.
PRINTABLE = st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="\\").filter(
    str.isprintable
)
AROUND = ["as it is", "HTML", "URL", "JSON with escaped slashes", "JSON by Go", "a line end within"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", AROUND)
def test_each_form_by_itself_and_in_another(form: str, around: str) -> None:
    told = FORMS[around](FORMS[form](KEY))
    assert REDACT(f"bad key <{told}>, twice: {told}.") == "bad key <***>, twice: ***."


@given(
    st.text(PRINTABLE, min_size=8, max_size=40),
    st.sampled_from([form for form in FORMS if form != "other case"]),
)
def test_any_secret(secret: str, form: str) -> None:
    assert "***" in Redactor([secret])(f"got <{FORMS[form](secret)}> there")


@pytest.mark.parametrize(
    "text",
    [
        "none of it: 100% & more, <b>bold</b> &amp; \\n C:\\\\new %41",
        "no need for NONE, n&#111;t here",
        '{"a": "\\u00fc \\"quoted\\" \\/"}',
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert Redactor([KEY, "nonesuch"])(text) == text


def test_short_secrets_are_words_too() -> None:
    redact = Redactor(["none"])
    assert redact("no need, NONE, n&#111;ne, none") == "no need, NONE, ***, ***"


@pytest.mark.parametrize("form", ["as it is", "HTML", "URL", "JSON by Go", "a line end within"])
def test_no_cut_leaves_the_head_of_a_secret(form: str) -> None:
    told = FORMS[form](KEY)
    for length in range(1, len(told)):
        left = REDACT("bad key: " + told[:length]).removeprefix("bad key:")
        assert KEY[:4] not in left
        assert told[:8] not in left


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Bearer abcdefgh", ["abcdefgh"]),
        ("abcdefgh", ["abcdefgh"]),
        ('session="abcdefgh"; user=joe', ["abcdefgh"]),
        ("blue team", []),
        ("Basic !", []),
        ("Basic abcde", []),
    ],
)
def test_what_of_a_header_may_be_secret(value: str, words: list[str]) -> None:
    assert words_of(value) == words


@pytest.mark.parametrize("password", ["p4ss:w0rd", "pässwörd", "pw/+?"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_password_of_a_basic_header(password: str, encoding: str) -> None:
    header = "basic " + b64encode(f"alice:{password}".encode(encoding)).decode()
    redact = Redactor(words_of(header))
    for form in ("as it is", "HTML", "URL"):
        assert redact(f"no {FORMS[form](password)} for alice") == "no *** for alice"
