"""Metrics: names by Prometheus' rules, bounded labels, and a rendering that Prometheus' own parser reads back."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from relay.metrics import Metrics, declarations
from tradewind.metering import MAX_CHILDREN, Declaration, Histogram, Labelled, render

UNITS = ("seconds", "bytes", "ratio", "info", "timestamp_seconds")
WITHOUT_UNIT = {
    *("sessions", "handshakes", "subscriptions", "upstream_subscriptions", "namespaces", "tracks", "cache_groups"),
    *("ready_sessions", "state", "last_reload_successful", "rooms", "room_waiting_messages", "room_records"),
    *("room_follower_backlog_records", "room_damaged_records", "overrides"),
    *("control_connected", "control_table_term", "control_table_generation"),
}
"""Gauges that count things: the name is the thing."""


def filled() -> Metrics:
    """Every metric with a value, so that nothing is left out of what is rendered."""
    metrics = Metrics()
    own = (metrics.sessions, metrics.control, metrics.requests, metrics.media, metrics.rooms)
    for part in (*own, metrics.network, metrics.turns, metrics.process):
        for field in dataclasses.fields(part):
            child = getattr(part, field.name)
            if isinstance(child, Histogram):
                child.observe(0.002)
            elif isinstance(child, Labelled):
                child.of(*field.metadata["declaration"].labels).add()
            else:
                child.add()
    return metrics


@pytest.mark.parametrize("declared", declarations(), ids=lambda declared: declared.name)
def test_names_follow_the_rules(declared: Declaration) -> None:
    assert re.fullmatch(r"tradewind_[a-z]+(_[a-z0-9]+)*", declared.name)
    assert (declared.kind == "counter") == declared.name.endswith("_total")
    if declared.kind == "histogram":
        assert declared.name.endswith("_seconds")
        assert list(declared.buckets) == sorted(set(declared.buckets))
    if declared.kind == "gauge":
        short = declared.name.removeprefix("tradewind_")
        assert short in WITHOUT_UNIT or short.endswith(UNITS)
    assert declared.help.endswith(".")
    for label in declared.labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in {"address", "token", "track", "namespace", "session", "id", "viewer"}


def test_names_are_unique() -> None:
    names = [declared.name for declared in declarations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("accept", "read"), [("", parse), ("application/openmetrics-text", parse_openmetrics)])
def test_what_is_rendered_reads_back(accept: str, read: object) -> None:
    text, content_type = render(filled().snapshot(), accept)
    assert ("openmetrics" in content_type) == bool(accept)
    assert callable(read)
    families = {family.name: family for family in read(text.decode())}
    for declared in declarations():
        family = families[declared.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (declared.kind, declared.help)
        assert family.samples


def test_values() -> None:
    metrics = Metrics()
    metrics.media.objects_sent.add()
    metrics.media.objects_sent.add(2)
    metrics.sessions.open.of("quic", "20").set(7)
    for value in (0.0001, 0.0002, 5.0):
        metrics.turns.duration.observe(value)
    lines = render(metrics.snapshot())[0].decode().splitlines()
    for line in (
        "tradewind_objects_sent_total 3.0",
        'tradewind_sessions{draft="20",transport="quic"} 7.0',
        'tradewind_turn_duration_seconds_bucket{le="0.0001"} 1.0',
        'tradewind_turn_duration_seconds_bucket{le="0.00025"} 2.0',
        'tradewind_turn_duration_seconds_bucket{le="1.0"} 2.0',
        'tradewind_turn_duration_seconds_bucket{le="+Inf"} 3.0',
        "tradewind_turn_duration_seconds_count 3.0",
    ):
        assert line in lines or line.replace('draft="20",transport="quic"', 'transport="quic",draft="20"') in lines


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(10 * MAX_CHILDREN):
        metrics.sessions.closed.of(str(number), "peer").add()
    found = metrics.sessions.closed.items()
    assert len(found) == MAX_CHILDREN + 1
    assert sum(value for _, value in found) == 10 * MAX_CHILDREN
    assert dict(found)["other", "other"] == 9 * MAX_CHILDREN


def test_wrong_labels_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        Metrics().sessions.open.of("quic")


def test_refreshers_run_before_a_snapshot_and_a_snapshot_stays() -> None:
    metrics = Metrics()
    metrics.refreshers.append(lambda: metrics.media.tracks.add())
    first, second = metrics.snapshot(), metrics.snapshot()
    name = "tradewind_tracks"
    assert [s.values for s in first if s.declaration.name == name] == [(((), 1),)]
    assert [s.values for s in second if s.declaration.name == name] == [(((), 2),)]


def test_gauges_can_be_counted_anew() -> None:
    metrics = Metrics()
    metrics.sessions.open.of("quic", "20").set(1)
    metrics.sessions.open.clear()
    assert metrics.sessions.open.items() == []


def test_a_relay_has_few_series() -> None:
    lines = [line for line in render(filled().snapshot())[0].decode().splitlines() if not line.startswith("#")]
    assert len(lines) < 200


@pytest.mark.interop
def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: apt-get install prometheus")
    text, _ = render(filled().snapshot())
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
