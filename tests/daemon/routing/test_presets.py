"""A route's defaults under what a request says, and its limits over it."""

import pytest

from inferd_daemon.backends.base import GenerateRequest, Sampling
from inferd_daemon.config import RouteDefaults, RouteLimits
from inferd_daemon.routing.presets import NO_PRESETS, Presets
from inferd_proto import Message, Text

MESSAGES = [Message("user", [Text("hi")])]


def test_without_any_the_request_is_passed_on() -> None:
    request = GenerateRequest(MESSAGES)
    assert NO_PRESETS.apply(request) is request


def test_defaults_fill_what_is_missing_and_nothing_else() -> None:
    defaults = RouteDefaults(
        temperature=0.2, top_p=0.9, top_k=5, min_p=0.1, seed=7, stop=["\n"], max_tokens=99
    )
    presets = Presets(defaults, RouteLimits())
    bare = presets.apply(GenerateRequest(MESSAGES))
    assert bare.sampling == Sampling(0.2, 0.9, 5, 0.1, 7, ["\n"], 99)
    asked = Sampling(temperature=0.0, top_k=0, stop=[], seed=0)
    full = presets.apply(GenerateRequest(MESSAGES, asked))
    assert full.sampling == Sampling(0.0, 0.9, 0, 0.1, 0, [], 99)
    assert full.messages is MESSAGES
    assert full.thinking is None


@pytest.mark.parametrize(
    ("default", "asked", "given"),
    [(True, None, True), (True, False, False), (False, None, False), (None, True, True)],
)
def test_thinking(default: bool | None, asked: bool | None, given: bool | None) -> None:
    presets = Presets(RouteDefaults(thinking=default, seed=1), RouteLimits())
    assert presets.apply(GenerateRequest(MESSAGES, thinking=asked)).thinking is given


@pytest.mark.parametrize(
    ("default", "asked", "given"),
    [(None, None, 100), (50, None, 50), (500, None, 100), (50, 70, 70), (None, 101, 100)],
)
def test_max_tokens_is_cut(default: int | None, asked: int | None, given: int) -> None:
    presets = Presets(RouteDefaults(max_tokens=default), RouteLimits(max_tokens=100))
    request = GenerateRequest(MESSAGES, Sampling(max_tokens=asked))
    assert presets.apply(request).sampling.max_tokens == given
