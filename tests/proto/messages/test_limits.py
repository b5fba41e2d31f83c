"""Free-form JSON: what it may hold, and how the place of a mistake is written."""

import pytest

from inferd_proto.messages.limits import MAX_JSON_DEPTH, check_json


def nested(levels: int) -> dict[str, object]:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return {"x": value}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": [0, float("nan")]}}, "`input.a.b[1]`: must be finite"),
        ({"a": float("-inf")}, "`input.a`: must be finite"),
        ({"a": [2**64]}, "`input.a[0]`: the integer needs more than 64 bits"),
        ({"a": -(2**63) - 1}, "`input.a`: the integer needs more than 64 bits"),
        ({"a": b"x"}, "`input.a`: holds a value that JSON cannot carry"),
        (
            {"a": [True, None, {"b": {"c": {1: 2}}}]},
            "`input.a[2].b.c`: has a key that is not a string",
        ),
        ({"a": {1: 2}}, "`input.a`: has a key that is not a string"),
        ({"x" * 100: b""}, f"`input.{'x' * 40}`: holds a value that JSON cannot carry"),
        ({"`": b""}, "`input.'`: holds a value that JSON cannot carry"),
        (nested(MAX_JSON_DEPTH), "`input`: nests deeper than 128 levels"),
    ],
)
def test_what_is_not_json_is_named_with_its_path(value: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match="input") as caught:
        check_json(value, "input")
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [None, True, "x", 1.5, -(2**63), 2**64 - 1, {}, []]},
        nested(MAX_JSON_DEPTH - 2),
        {"": {"": ""}},
    ],
)
def test_json_passes(value: dict[str, object]) -> None:
    check_json(value, "input")


def test_a_mistake_at_the_top_of_a_message_has_no_name_before_it() -> None:
    with pytest.raises(ValueError, match=r"^`a\[0\]`: must be finite$"):
        check_json({"a": [float("nan")]}, "")
