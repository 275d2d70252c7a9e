"""What programs measure of themselves: numbers, how each is declared once, and their text for Prometheus.

`relay.metrics` and `control.metrics` declare theirs as fields of dataclasses with these and name one nowhere else. Hot
paths add to plain numbers. `snapshot` is quick and taken between two turns; `render` turns it into text and may run in
a thread. Labels are closed lists: no viewer, track, address or token is ever one, and a value beyond `MAX_CHILDREN`
is counted as "other". Names follow Prometheus' rules: `tradewind_`, base units, `_total` for what only grows.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "tradewind_"
MAX_CHILDREN = 64
OTHER = "other"

TURN_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
WAIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Count:
    """One number: a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


class Histogram:
    """How often values fell between bounds; the last count is of those above all bounds."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Labelled:
    """One metric with labels: a number for each combination of values, made when it is first asked for."""

    __slots__ = ("_children", "_width")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._width = len(labels)
        self._children: dict[tuple[str, ...], Count] = {}

    def of(self, *values: str) -> Count:
        """The number for these label values, in the declared order. Keep it where it is used often."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == self._width
            if len(self._children) >= MAX_CHILDREN:
                values = (OTHER,) * self._width
            child = self._children.setdefault(values, Count())
        return child

    def clear(self) -> None:
        """Forget all values: for gauges that are counted anew."""
        self._children.clear()

    def items(self) -> list[tuple[tuple[str, ...], float]]:
        return [(values, child.value) for values, child in self._children.items()]


class Declaration(NamedTuple):
    """One metric as it is declared. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Sample(NamedTuple):
    """One metric at one moment: a value (or bucket counts and their sum) for each combination of labels."""

    declaration: Declaration
    values: tuple[tuple[tuple[str, ...], float], ...]
    buckets: tuple[int, ...] = ()
    total: float = 0.0


def counter(name: str, text: str) -> Any:
    """Declare a number that only grows."""
    return _field(Declaration(PREFIX + name, "counter", text), Count)


def gauge(name: str, text: str) -> Any:
    """Declare a number that rises and falls."""
    return _field(Declaration(PREFIX + name, "gauge", text), Count)


def counters(name: str, text: str, *labels: str) -> Any:
    """Declare counters told apart by labels."""
    return _field(Declaration(PREFIX + name, "counter", text, labels), lambda: Labelled(labels))


def gauges(name: str, text: str, *labels: str) -> Any:
    """Declare gauges told apart by labels."""
    return _field(Declaration(PREFIX + name, "gauge", text, labels), lambda: Labelled(labels))


def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Any:
    """Declare a distribution."""
    return _field(Declaration(PREFIX + name, "histogram", text, (), buckets), lambda: Histogram(buckets))


def _field(declaration: Declaration, make: Callable[[], object]) -> Any:
    return dataclasses.field(default_factory=make, metadata={"declaration": declaration})


def snapshot(parts: Sequence[Any]) -> tuple[Sample, ...]:
    """All numbers that stand as declared fields in these dataclasses, as they are now."""
    return tuple(
        _sample(field.metadata["declaration"], getattr(part, field.name))
        for part in parts
        for field in dataclasses.fields(part)
    )


def render(snapshot: Sequence[Sample], accept: str = "", more: Sequence[Collector] = ()) -> tuple[bytes, str]:
    """Write a snapshot (and other collectors, the process' for one) as a scraper wants it: the text and its type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    for collector in more:
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Sequence[Sample]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from map(_family, self._snapshot)

    def describe(self) -> Iterator[Metric]:
        return iter(())


def _sample(declaration: Declaration, number: object) -> Sample:
    match number:
        case Count():
            return Sample(declaration, (((), number.value),))
        case Labelled():
            return Sample(declaration, tuple(number.items()))
        case Histogram():
            return Sample(declaration, (), tuple(number.counts), number.total)
    raise AssertionError(f"{declaration.name} is a {type(number)}")


def _family(sample: Sample) -> Metric:
    declaration = sample.declaration
    if declaration.kind == "histogram":
        so_far, buckets = 0, []
        for bound, count in zip((*map(_bound, declaration.buckets), "+Inf"), sample.buckets, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        return HistogramMetricFamily(declaration.name, declaration.help, buckets, sample.total)
    family: CounterMetricFamily | GaugeMetricFamily
    if declaration.kind == "counter":
        family = CounterMetricFamily(declaration.name, declaration.help, labels=declaration.labels)
    else:
        family = GaugeMetricFamily(declaration.name, declaration.help, labels=declaration.labels)
    for labels, value in sample.values:
        family.add_metric(labels, value)
    return family


def _bound(value: float) -> str:
    return repr(float(value))
