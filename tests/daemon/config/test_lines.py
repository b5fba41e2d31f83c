"""Where keys stand; any text at all may be asked."""

from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.config.lines import KeyLines

TEXT = """\
default_route = "a"   # 1
[daemon]
log_level = "info"
  socket="/x"

[backends.a]
kind = "mock"
[ routes . "a.b" ]
backends = ["a",
  "b"]
sub.deep . 'key' = 1
[[list]]
x = 1
[[list]]
x = 2
"""


def test_finds_headers_keys_and_the_nearest_table_around() -> None:
    lines = KeyLines(TEXT)
    table: dict[tuple[str | int, ...], int | None] = {
        ("default_route",): 1,
        ("daemon",): 2,
        ("daemon", "log_level"): 3,
        ("daemon", "socket"): 4,
        ("daemon", "missing"): 2,
        ("backends", "a", "kind"): 7,
        ("backends", "a", "headers", "x"): 6,
        ("routes", "a.b"): 8,
        ("routes", "a.b", "backends", 1): 9,
        ("routes", "a.b", "sub", "deep", "key"): 11,
        ("list", 1, "x"): 15,
        ("nowhere",): None,
        (): None,
    }
    assert {path: lines.find(path) for path in table} == table


def test_only_a_newline_ends_a_line() -> None:
    """U+2028 and its like may stand in TOML strings; editors do not count them."""
    assert KeyLines('a = "\u2028\x85\x0c"\r\nb = 1\r\n').find(("b",)) == 2


TOML_LIKE = st.text(alphabet="ab[].='\"\\ \n#\u2028\x85{},", max_size=200)


@given(st.one_of(TOML_LIKE, st.text()), st.lists(st.one_of(st.text(), st.integers()), max_size=4))
def test_never_raises(text: str, path: list[str | int]) -> None:
    line = KeyLines(text).find(tuple(path))
    assert line is None or 1 <= line <= text.count("\n") + 1


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True), st.integers()))
def test_finds_each_key_of_a_plain_document(keys: dict[str, int]) -> None:
    text = "\n".join(["[t]", *(f"{key} = {value}" for key, value in keys.items())])
    lines = KeyLines(text)
    assert [lines.find(("t", key)) for key in keys] == list(range(2, len(keys) + 2))
