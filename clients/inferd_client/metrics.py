"""The daemon's metrics (`Client.metrics`): typed, and as the text that Prometheus reads; pure."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from .leases import to_record


class MetricHistogram(Struct, frozen=True):
    """How many values there were, their `sum`, and of each upper bound how many came up to it."""

    count: int
    sum: float
    buckets: dict[str, int]


class MetricSample(Struct, frozen=True):
    """One value of a family, told apart from the others by its labels."""

    labels: dict[str, str]
    value: float | MetricHistogram


class MetricFamily(Struct, frozen=True):
    """Values of one meaning: a "counter", a "gauge" or a "histogram", the unit in its name."""

    kind: str
    name: str
    help: str
    samples: list[MetricSample]


class _Measured(Struct, frozen=True):
    metrics: list[MetricFamily]


def to_metrics(value: object) -> list[MetricFamily]:
    """Raises ProtocolViolation where `value` is not what `metrics` answers."""
    return to_record(value, _Measured).metrics


def exposition(families: Iterable[MetricFamily]) -> str:
    """Prometheus' text format 0.0.4, as the daemon's own `/metrics` has it."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: MetricFamily) -> Iterator[str]:
    # A counter's name has its ending in the text alone.
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    kind = family.kind if family.kind in ("counter", "gauge", "histogram") else "untyped"
    told = family.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for sample in family.samples:
        value = sample.value
        if not isinstance(value, MetricHistogram):
            yield f"{name}{_labels(sample.labels)} {_number(value)}"
            continue
        for bound, count in value.buckets.items():
            labels = _labels(sample.labels | {"le": "+Inf" if bound == "inf" else bound})
            yield f"{name}_bucket{labels} {_number(count)}"
        yield f"{name}_count{_labels(sample.labels)} {_number(value.count)}"
        yield f"{name}_sum{_labels(sample.labels)} {_number(value.sum)}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value))
