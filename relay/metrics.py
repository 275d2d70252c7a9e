"""Every metric of a relay, declared once: its name, unit, help and labels; nobody names one anywhere else.

Hot paths add to plain numbers (`metrics.media.objects_sent.add()`); what rooms count by themselves is copied in by a
function in `refreshers`, which runs when somebody asks. `snapshot` is taken between two turns and is quick; `render`
turns it into text and may run in a thread. Labels are closed lists: no viewer, track, address or token is ever one, and
a label value beyond `MAX_CHILDREN` is counted as "other".

Names follow Prometheus' rules: `tradewind_`, base units, `_total` for what only grows. `/metrics`, `grafana/` and its
test read them from `declarations()`.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(slots=True)
class SessionMetrics:
    """Who comes, stays and goes."""

    open: Labelled = gauges("sessions", "Sessions open now.", "transport", "draft")
    opened: Labelled = counters("sessions_opened_total", "Sessions that were let in.", "transport", "draft")
    closed: Labelled = counters("sessions_closed_total", "Sessions that ended, by code and by whom.", "code", "by")
    refused: Labelled = counters("sessions_refused_total", "Sessions not let in, and why.", "reason")
    handshakes: Count = gauge("handshakes", "Handshakes under way now.")
    handshakes_refused: Labelled = counters(
        "handshakes_refused_total", "Handshakes not begun or not finished, and why.", "reason"
    )
    retries: Count = counter("retries_sent_total", "Clients asked to prove their address first.")
    oddities: Labelled = counters(
        "session_oddities_total", "What peers sent that was dropped, refused or waited for in vain.", "kind"
    )
    quirks: Labelled = counters("quirk_uses_total", "Known faults of clients that were forgiven.", "quirk")
    going_away_ignored: Count = counter("goaway_ignored_total", "Sessions that were still there when a drain ended.")


@dataclass(slots=True)
class RequestMetrics:
    """What sessions ask for."""

    received: Labelled = counters("requests_total", "Requests received.", "request")
    rejected: Labelled = counters("requests_rejected_total", "Requests answered with an error.", "request", "code")
    limited: Labelled = counters("limits_reached_total", "Times somebody met a limit.", "limit")
    subscriptions: Count = gauge("subscriptions", "Subscriptions of others to tracks here.")
    upstream_subscriptions: Count = gauge("upstream_subscriptions", "Subscriptions of ours to publishers.")
    namespaces: Count = gauge("namespaces", "Namespaces published here now.")
    subscribe_latency: Histogram = histogram(
        "subscribe_latency_seconds", "From a SUBSCRIBE to its answer.", WAIT_BUCKETS_S
    )
    join_latency: Histogram = histogram(
        "join_latency_seconds", "From a SUBSCRIBE to its first object handed to the transport.", WAIT_BUCKETS_S
    )


@dataclass(slots=True)
class MediaMetrics:
    """Objects on their way through."""

    tracks: Count = gauge("tracks", "Tracks known now.")
    objects_received: Count = counter("objects_received_total", "Objects begun by publishers, copies included.")
    objects_sent: Count = counter("objects_sent_total", "Objects handed whole to subscribers' transports.")
    bytes_received: Count = counter("object_bytes_received_total", "Payload bytes from publishers.")
    bytes_sent: Count = counter("object_bytes_sent_total", "Payload bytes handed to subscribers' transports.")
    dropped: Labelled = counters(
        "objects_dropped_total", "Objects that had arrived when they were given up for one subscriber.", "reason"
    )
    malformed: Count = counter("malformed_tracks_total", "Tracks ended because their publishers contradict themselves.")
    cache_bytes: Count = gauge("cache_bytes", "Bytes of objects kept.")
    cache_groups: Count = gauge("cache_groups", "Groups kept.")
    cache_evictions: Count = counter("cache_evictions_total", "Groups dropped before their time to make room.")


@dataclass(slots=True)
class NetworkMetrics:
    """The socket and QUIC."""

    datagrams_received: Count = counter("udp_datagrams_received_total", "UDP datagrams received.")
    datagrams_sent: Count = counter("udp_datagrams_sent_total", "UDP datagrams sent.")
    bytes_received: Count = counter("udp_received_bytes_total", "UDP payload received by sessions.")
    bytes_sent: Count = counter("udp_sent_bytes_total", "UDP payload sent by sessions.")
    send_errors: Labelled = counters("udp_send_errors_total", "Sends that the kernel refused.", "error")
    receive_drops: Count = counter("udp_receive_drops_total", "Datagrams the kernel dropped: its buffer was full.")
    unroutable: Count = counter("udp_unroutable_total", "Datagrams that belong to no connection and begin none.")
    packets_lost: Count = counter("quic_packets_lost_total", "Packets of ours declared lost, of closed sessions too.")
    held_bytes: Count = gauge("quic_held_bytes", "Bytes received out of order and kept.")


@dataclass(slots=True)
class TurnMetrics:
    """Whether the relay keeps up."""

    duration: Histogram = histogram("turn_duration_seconds", "Time one turn took.", TURN_BUCKETS_S)
    cut_short: Count = counter("turns_cut_short_total", "Turns that ended because their budget was spent.")
    ready_sessions: Count = gauge("ready_sessions", "Sessions that wait for their quantum.")
    loop_lag: Histogram = histogram(
        "loop_lag_seconds", "How much later than asked for the event loop woke a timer.", TURN_BUCKETS_S
    )


@dataclass(slots=True)
class ProcessMetrics:
    """What runs here, and for how long its papers are good."""

    build: Labelled = gauges(
        "build_info", "Always 1; says what runs here.", "version", "python", "aioquic", "node", "region"
    )
    state: Labelled = gauges("state", "1 for the state the relay is in.", "state")
    certificate_expiry: Count = gauge(
        "certificate_expiry_timestamp_seconds", "When the certificate in use ends, in Unix time."
    )
    internal_errors: Count = counter(
        "internal_errors_total", "Errors of the relay's own; each ended the session that met it."
    )
    reload_ok: Labelled = gauges(
        "last_reload_successful", "1 where the last change of these files could be used, else 0.", "files"
    )


class Metrics:
    """One relay's numbers."""

    __slots__ = ("media", "network", "process", "refreshers", "requests", "sessions", "turns")

    def __init__(self) -> None:
        self.sessions = SessionMetrics()
        self.requests = RequestMetrics()
        self.media = MediaMetrics()
        self.network = NetworkMetrics()
        self.turns = TurnMetrics()
        self.process = ProcessMetrics()
        self.refreshers: list[Callable[[], None]] = []

    def snapshot(self) -> tuple[Sample, ...]:
        """All numbers now, after the refreshers have run; what it returns no longer changes."""
        for refresh in self.refreshers:
            refresh()
        parts = (self.sessions, self.requests, self.media, self.network, self.turns, self.process)
        return tuple(
            _sample(field.metadata["declaration"], getattr(part, field.name))
            for part in parts
            for field in dataclasses.fields(part)
        )


def declarations() -> tuple[Declaration, ...]:
    """Every metric there is."""
    return tuple(sample.declaration for sample in Metrics().snapshot())


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
