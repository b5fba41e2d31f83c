"""Durations as people type them."""

import click
import pytest

from inferd_client.ctl.durations import FOREVER, KEEP, TTL, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("5M", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1.5h", 5400),
        (" 5m ", 300),
        ("forever", FOREVER),
        ("-1", FOREVER),
    ],
)
def test_what_is_one(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5x", "-5", "5 m", "1e3", "5m!", "nan", "inf", "\u0665m", "-1m"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("kind", "text", "fits"),
    [
        (TTL, "0", False),
        (TTL, "1", True),
        (TTL, "24h", True),
        (TTL, "24h1s", False),
        (TTL, "forever", True),
        (KEEP, "0", True),
        (KEEP, "25h", False),
    ],
)
def test_the_life_of_a_lease(kind: click.ParamType, text: str, fits: bool) -> None:  # type: ignore[type-arg]
    if fits:
        assert kind.convert(text, None, None) == parse_duration(text)
    else:
        with pytest.raises(click.BadParameter, match="out of range"):
            kind.convert(text, None, None)
