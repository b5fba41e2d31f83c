"""The daemon's metrics: typed, and as text that Prometheus' own parser reads."""

from collections.abc import Awaitable, Callable
from math import inf

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferd_client import Client, MetricHistogram, ProtocolViolation
from inferd_client.blocking import Client as BlockingClient
from inferd_client.metrics import exposition, to_metrics
from tests.clients.scripted_daemon import METRICS, ScriptedDaemon

Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_both_clients_have_them_typed(run: Run, daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        async with Client(daemon.path) as client:
            requests, durations, leases = await client.metrics()
        assert (requests.kind, requests.samples[0].value) == ("counter", 3)
        assert durations.samples[0].value == MetricHistogram(
            4, 1.25, {"0.1": 1, "1.0": 3, "inf": 4}
        )
        assert leases.samples[0].labels == {}

    run(main)
    with BlockingClient(daemon.path) as client:
        assert client.metrics() == to_metrics(METRICS)


def test_the_text_says_to_a_scraper_what_the_daemon_said() -> None:
    parsed = {
        family.name: family
        for family in text_string_to_metric_families(exposition(to_metrics(METRICS)))
    }
    assert {name: family.type for name, family in parsed.items()} == {
        "inferd_requests": "counter",
        "inferd_request_duration_seconds": "histogram",
        "inferd_leases": "gauge",
    }
    (sample,) = parsed["inferd_requests"].samples
    assert sample[:3] == (
        "inferd_requests_total",
        {"route": 'a "b"\\\n', "kind": "generate", "outcome": "ok"},
        3.0,
    )
    assert parsed["inferd_requests"].documentation == "Requests\\that\nended."
    durations = {
        (sample.name.removeprefix("inferd_request_duration_seconds"), sample.labels.get("le")): (
            sample.value
        )
        for sample in parsed["inferd_request_duration_seconds"].samples
    }
    assert durations == {
        ("_bucket", "0.1"): 1,
        ("_bucket", "1.0"): 3,
        ("_bucket", "+Inf"): 4,
        ("_count", None): 4,
        ("_sum", None): 1.25,
    }
    assert [sample.value for sample in parsed["inferd_leases"].samples] == [2]


def test_a_kind_of_a_newer_daemon_is_passed_on() -> None:
    news = {"kind": "mood", "name": "x", "help": "", "samples": [{"labels": {}, "value": 1e400}]}
    assert news["samples"] == [{"labels": {}, "value": inf}]
    text = exposition(to_metrics({"metrics": [news]}))
    (family,) = text_string_to_metric_families(text)
    assert (family.type, family.samples[0].value) == ("unknown", inf)


@pytest.mark.parametrize("value", [None, {}, {"metrics": [{"name": "x"}]}, {"metrics": {}}])
def test_what_makes_no_sense(value: object) -> None:
    with pytest.raises(ProtocolViolation, match="makes no sense"):
        to_metrics(value)
