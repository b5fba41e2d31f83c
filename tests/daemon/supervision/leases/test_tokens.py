"""Tokens of leases: random enough, and kept as a digest alone."""

import base64

import pytest

from inferd_daemon.supervision.leases.tokens import digest, fits, new_token


def test_a_token_has_at_least_144_random_bits_and_no_two_are_the_same() -> None:
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    for token in tokens:
        assert len(base64.urlsafe_b64decode(token + "==")) * 8 >= 144


def test_what_is_kept_tells_the_token_from_all_others_and_does_not_hold_it() -> None:
    token = new_token()
    kept = digest(token)
    assert fits(token, kept)
    assert token not in kept


@pytest.mark.parametrize(
    "wrong", ["", "é", "x" * 10_000, new_token()], ids=["none", "not ASCII", "long", "another"]
)
def test_another_token_does_not_fit(wrong: str) -> None:
    assert not fits(wrong, digest(new_token()))
