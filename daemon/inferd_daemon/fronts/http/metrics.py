"""`GET /metrics`: what the daemon counts, as text for Prometheus. No global registry."""

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ...control.metrics import measure
from ...control.view import DaemonView
from ...metrics import Family, Histogram

if TYPE_CHECKING:
    from .context import HttpContext


async def metrics(request: Request) -> Response:
    """Of this instant."""
    context: HttpContext = request.app.state.context
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Measured(context.view))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Measured(Collector):
    """The daemon's families as Prometheus' own."""

    def __init__(self, view: DaemonView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Called for each scrape."""
        for family in measure(self._view):
            yield _metric(family)


def _metric(family: Family) -> Metric:
    labels = list(family.samples[0].labels) if family.samples else []
    if family.kind == "histogram":
        return _histogram(family, labels)
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = kind(family.name, family.help, labels=labels)
    for sample in family.samples:
        assert not isinstance(sample.value, Histogram)
        metric.add_metric([sample.labels[label] for label in labels], sample.value)
    return metric


def _histogram(family: Family, labels: list[str]) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(family.name, family.help, labels=labels)
    for sample in family.samples:
        value = sample.value
        assert isinstance(value, Histogram)
        buckets = [("+Inf" if bound == inf else repr(bound), n) for bound, n in value.cumulated]
        metric.add_metric([sample.labels[label] for label in labels], buckets, value.total)
    return metric
