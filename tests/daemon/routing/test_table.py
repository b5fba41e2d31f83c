"""From the configuration's routes to objects, and what the configuration refuses."""

import pytest

from inferd_daemon.backends.base import GenerateRequest
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import ConfigError, MockConfig, parse_config
from inferd_daemon.errors import BackendFault
from inferd_daemon.routing.admission import UNBOUNDED, Entry, Full
from inferd_daemon.routing.router import Router
from inferd_daemon.routing.shares import PeerKey
from inferd_daemon.routing.table import build_router
from inferd_proto import Message, Text

BACKENDS = """
[backends.a]
kind = "mock"
slots = 2
[backends.b]
kind = "mock"
slots = 3
[backends.c]
kind = "mock"
slots = 5
breaker = { failures = 1, open_s = 7 }
"""


def router_of(text: str) -> Router:
    config = parse_config(BACKENDS + text)
    backends = {
        name: MockBackend(name, table)
        for name, table in config.backends.items()
        if isinstance(table, MockConfig)
    }
    return build_router(config, backends, lambda: 0.0)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(BACKENDS + text)
    return [f"{mistake.key}: {mistake.message}" for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("backends", "tiers", "permits"),
    [
        ('["a"]', [["a"]], 2),
        ('["a", "b"]', [["a"], ["b"]], 2),
        ('["a", ["b", "c"]]', [["a"], ["b", "c"]], 2),
        ('[["b", "c"], "a"]', [["b", "c"], ["a"]], 8),
    ],
)
def test_tiers_and_their_permits(backends: str, tiers: list[list[str]], permits: int) -> None:
    route = router_of(f"[routes.r]\nbackends = {backends}").find("r")
    assert [[one.name for one in tier] for tier in route.tiers] == tiers
    assert (route.permits, route.gate.admission.permits) == (permits, UNBOUNDED)


def test_routes_share_what_they_know_of_a_backend() -> None:
    router = router_of('[routes.r]\nbackends = ["c"]\n[routes.s]\nbackends = ["c"]')
    one, other = (router.find(name).tiers[0][0] for name in "rs")
    assert one is other
    one.end(one.begin(), BackendFault("no"))
    assert router.find("s").readiness() == (
        False,
        "c: its breaker is open for another 7.0 s; its last failure: no",
    )


def test_limits_and_shares_reach_the_queue() -> None:
    router = router_of("""
[routes.r]
backends = ["a"]
active_permits = 1
queue_depth = 50
max_wait_ms = 1500
limits = { peer_queued = 2 }
[clients.batch]
weight = 2
queued = 1
[uids.1001]
active = 1
""")
    gate = router.find("r").gate
    assert gate.max_wait_s == 1.5
    admission = gate.admission
    assert (admission.permits, admission.queue_depth) == (1, 50)
    assert admission.request(0, PeerKey(0, ""), 0.0) is Entry.ADMITTED
    for label, places in [("batch", 1), ("other", 2)]:
        for number in range(places):
            assert admission.request((label, number), PeerKey(0, label), 0.0) is Entry.WAITING
        verdict = admission.request("more", PeerKey(0, label), 0.0)
        assert isinstance(verdict, Full)
        assert (verdict.whose, verdict.waiting) == ("client", places)
    weights = {counts.peer.client: counts.weight for counts in admission.peers()}
    assert weights == {"": 1, "batch": 2, "other": 1}


def test_defaults_and_limits_reach_the_request() -> None:
    route = router_of("""
[routes.r]
backends = ["a"]
[routes.r.defaults]
temperature = 0.5
max_tokens = 500
[routes.r.limits]
max_tokens = 100
""").find("r")
    sampling = route.presets.apply(GenerateRequest([Message("user", [Text("hi")])])).sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.5, 100)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            '[routes.r]\nbackends = ["a", ["b", "d"]]',
            ["routes.r.backends[1]: no backend 'd'; there is a, b, c"],
        ),
        (
            '[routes.r]\nbackends = ["a", ["b", "a"]]',
            ["routes.r.backends[1]: 'a' is named already"],
        ),
        ("[routes.r]\nbackends = []", ["routes.r.backends: Expected `array` of length >= 1"]),
        (
            "[routes.r]\nbackends = [[]]",
            ["routes.r.backends: Expected `array` of length >= 1 (at [0])"],
        ),
        (
            '[routes.r]\nbackends = ["a"]\nlimits = { max_token = 1 }',
            ["routes.r.limits.max_token: unknown key; did you mean `max_tokens`?"],
        ),
        ("[clients.batch]\nweight = 0", ["clients.batch.weight: Expected `int` >= 1"]),
        (
            "[uids.root]\nweight = 1",
            ["uids.root: Expected `str` matching regex '^(0|[1-9][0-9]{0,9})\\\\Z'"],
        ),
    ],
)
def test_mistakes_are_named(text: str, found: list[str]) -> None:
    assert mistakes(text) == found
