"""Why an upgrade is refused, in the words of the check that refused it."""

import pytest

from inferd_daemon.supervision.succession.upgrade import MAX_REASON_CHARS, explain_refusal


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", ""),
        (" \n", ""),
        ("inferd: a.toml: cannot be read", "a.toml: cannot be read"),
        (
            "inferd: a.toml: 2 mistakes\n  line 1: y: unknown key\n  line 4: z: unknown key\n",
            "a.toml: 2 mistakes: line 1: y: unknown key; line 4: z: unknown key",
        ),
        (
            "Traceback (most recent call last):\n  File ...\n    import x\nImportError: no x\n",
            "ImportError: no x",
        ),
    ],
)
def test_all_that_is_wrong_is_told_in_one_line(said: str, reason: str) -> None:
    assert explain_refusal(said) == reason


def test_it_has_an_end() -> None:
    told = explain_refusal("inferd: a.toml: many\n" + "  line 1: y: unknown key\n" * 1000)
    assert len(told) == MAX_REASON_CHARS + 1
    assert told.endswith("…")
