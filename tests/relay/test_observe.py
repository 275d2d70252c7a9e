"""Every metric says what happened, and the state page shows it: one relay, told by its clients."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from relay import observe
from relay.access import Access
from relay.attachment import HANDLERS
from relay.limits import LimitSettings
from relay.metrics import Metrics, declarations
from relay.observe import Observer
from tests.sim.client import TRACK
from tests.sim.network import Weather
from tests.sim.relay import node_settings
from tests.sim.tokens import KEY
from tests.sim.world import World
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import FullTrackName, Parameters

FED_ELSEWHERE = {
    "tradewind_build_info",
    "tradewind_certificate_expiry_timestamp_seconds",
    "tradewind_last_reload_successful",
    "tradewind_turn_duration_seconds",
    "tradewind_turns_cut_short_total",
    "tradewind_loop_lag_seconds",
    "tradewind_place_answers_total",
}
"""What the process and its event loop know, not the node."""


@dataclass
class Socket:
    """What `UdpSocket.statistics` gives."""

    datagrams_received: int = 11
    datagrams_sent: int = 22
    dropped_backlog: int = 3
    dropped_errors: int = 4
    receive_drops: int = 5


class Watched:
    """A world, its observer, and one look after the other."""

    def __init__(self, **how: Any) -> None:
        self.world = World(**how)
        self.metrics = Metrics()
        self.observer = Observer(self.world.node, self.metrics, lambda: [Socket(), Socket()])

    def look(self) -> dict[str, Any]:
        """Every number now: by name, or by name and labels; of a histogram how many values it has."""
        for ended in self.world.relay.ended:
            self.observer.session_ended(ended)
        self.world.relay.ended.clear()
        found: dict[str, Any] = {}
        for sample in self.metrics.snapshot():
            name = sample.declaration.name.removeprefix("tradewind_")
            if sample.declaration.kind == "histogram":
                found[name] = sum(sample.buckets)
            for labels, value in sample.values:
                found[f"{name}{{{','.join(labels)}}}" if labels else name] = value
        return found


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_an_ordinary_evening(watched: Watched) -> None:
    world = watched.world
    _, served = world.publish(20)
    viewer = world.join(16, webtransport=True)
    request = viewer.subscribe()
    nobody = viewer.subscribe(FullTrackName((b"no",), b"body"))
    world.run()
    served.group(0, [b"x" * 1000, b"y" * 500])
    served.datagram(1, 0, b"z" * 100)
    world.run()
    assert len(viewer.objects(request)) == 3
    assert viewer.refusal(nobody) is not None
    seen = watched.look()
    expected = {
        "sessions{quic,20}": 1,
        "sessions{webtransport,16}": 1,
        "sessions_opened_total{quic,20}": 1,
        "sessions_opened_total{webtransport,16}": 1,
        "requests_total{publish_namespace}": 1,
        "requests_total{subscribe}": 2,
        "requests_rejected_total{subscribe,does_not_exist}": 1,
        "subscriptions": 1,
        "upstream_subscriptions": 1,
        "namespaces": 1,
        "tracks": 1,
        "subscribe_latency_seconds": 2,
        "join_latency_seconds": 1,
        "objects_received_total": 3,
        "object_bytes_received_total": 1600,
        "objects_sent_total": 3,
        "cache_groups": 2,
        "udp_datagrams_received_total": 22,
        "udp_datagrams_sent_total": 44,
        "udp_send_errors_total{backlog}": 6,
        "udp_send_errors_total{refused}": 8,
        "udp_receive_drops_total": 10,
        "state{serving}": 1,
        "state{draining}": 0,
        "internal_errors_total": 0,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["object_bytes_sent_total"] >= 1600
    assert seen["udp_received_bytes_total"] > 3000
    assert seen["udp_sent_bytes_total"] > 3000


def test_numbers_of_sessions_that_are_gone_stay(watched: Watched) -> None:
    world = watched.world
    _, served = world.publish()
    viewer = world.join()
    viewer.subscribe()
    world.run()
    served.group(0, [b"x" * 1000])
    world.run()
    before = watched.look()
    viewer.close()
    world.run()
    after = watched.look()
    for name in (
        "objects_sent_total",
        "object_bytes_sent_total",
        "udp_sent_bytes_total",
        "sessions_opened_total{quic,20}",
    ):
        assert after[name] >= before[name] > 0
    assert after["sessions{quic,20}"] == 1
    assert after["sessions_closed_total{no_error,peer}"] == 1


def test_counters_only_grow(watched: Watched) -> None:
    """Through the ends of tracks, sessions and subscriptions, with drops on the way."""
    world = watched.world
    publisher, served = world.publish()
    viewer = world.join()
    viewer.subscribe(object_timeout_ms=1)
    world.run()
    world.network.set_weather(world.relay.addresses[0], viewer.addresses[0], Weather(rate_bytes_per_s=5000))
    grows = {declared.name.removeprefix("tradewind_") for declared in declarations() if declared.kind == "counter"}
    last = watched.look()
    for step in range(12):
        if step < 6:
            served.group(step, [bytes(20_000)] * 2)
        elif step == 6:
            served.done(DoneCode.TRACK_ENDED, 6)
        elif step == 8:
            viewer.close()
        elif step == 9:
            publisher.close()
        world.run(1.0 if step < 9 else 40.0)
        seen = watched.look()
        for name, value in last.items():
            if name.partition("{")[0] in grows:
                assert seen[name] >= value, name
        last = seen
    assert sum(value for name, value in last.items() if name.startswith("objects_dropped_total")) > 0


def test_refusals_and_limits() -> None:
    watched = Watched(settings=node_settings(limits=LimitSettings(namespaces_per_session=1)))
    world = watched.world
    client = world.join()
    client.announce((b"one",))
    client.announce((b"two",))
    world.run()
    world.node.replace_access(Access((KEY,)))
    world.dial(path="/live")
    world.run(1.0)
    seen = watched.look()
    assert seen["requests_rejected_total{publish_namespace,excessive_load}"] == 1
    assert seen["limits_reached_total{namespaces_per_session}"] == 1
    assert seen["sessions_refused_total{token_missing}"] == 1
    assert seen["sessions_closed_total{unauthorized,relay}"] == 1


def test_oddities_quirks_and_contradictions(watched: Watched) -> None:
    world = watched.world
    publisher = world.join()
    publisher.ask("publish", TRACK, 7, Parameters(forward=True))
    world.run()
    publisher.send_group(7, 0, [b"one"])
    publisher.send_group(7, 0, [b"two"])
    publisher.send_group(99, 0, [b"under no alias"])
    world.run(3.0)
    seen = watched.look()
    assert seen["malformed_tracks_total"] == 1
    assert seen["session_oddities_total{waiting_streams_expired}"] == 1


def test_losses_and_handshakes() -> None:
    watched = Watched(weather=Weather(loss=0.1), seed=5)
    world = watched.world
    _, served = world.publish()
    viewer = world.join()
    viewer.subscribe()
    world.run(1.0)
    served.group(0, [bytes(200_000)])
    world.run(3.0)
    stranger = world.dial(protocols=("moqt-99",))
    world.run(3.0)
    assert stranger.closed is not None
    seen = watched.look()
    assert seen["quic_packets_lost_total"] > 5
    assert seen["handshakes_refused_total{failed}"] == 1
    assert seen["handshakes"] == 0


def test_a_drain(watched: Watched) -> None:
    world = watched.world
    world.join()
    assert watched.observer.not_ready() is None
    world.node.drain(world.network.now, 1.0)
    world.network.touch(world.relay)
    world.run(0.5)
    assert watched.observer.not_ready() == "draining"
    assert watched.look()["state{draining}"] == 1
    world.run(3.0)
    seen = watched.look()
    assert watched.observer.not_ready() == "drained"
    assert seen["goaway_ignored_total"] == 1
    assert seen["sessions_closed_total{goaway_timeout,relay}"] == 1


def test_an_error_of_ours_is_counted(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    world = watched.world
    client = world.join()
    world.relay.forgives = (ZeroDivisionError,)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for handler in HANDLERS:
        monkeypatch.setitem(HANDLERS, handler, fail)
    client.subscribe()
    world.run()
    assert watched.look()["internal_errors_total"] == 1


def test_every_metric_is_fed_by_something() -> None:
    """What is declared and fed by nobody shows a zero that means nothing."""
    source = inspect.getsource(observe)
    metrics = Metrics()
    for part in ("sessions", "requests", "media", "network", "turns", "process"):
        for field, declared in type(getattr(metrics, part)).__dataclass_fields__.items():
            name = declared.metadata["declaration"].name
            assert name in FED_ELSEWHERE or re.search(rf"\.{field}\.(of|set|add|observe|clear)\(", source), name


def test_the_state_page(watched: Watched) -> None:
    world = watched.world
    _, served = world.publish(path="/shop", implementation="obs/30")
    viewer = world.join(16, webtransport=True, path="/shop")
    viewer.subscribe()
    world.run()
    served.group(3, [b"x" * 100])
    world.run(2.0)
    state = json.loads(json.dumps(watched.observer.state()))
    assert state["stage"] == "serving"
    first, second = state["sessions"]
    assert (first["protocol"], first["root"], first["implementation"]) == ("moqt-20", "/shop", "obs/30")
    assert (first["feeds"], first["subscriptions"]) == (1, 0)
    assert (second["transport"], second["subscriptions"], second["objects_out"]) == ("webtransport", 1, 1)
    assert second["open_s"] > 1.0
    assert 15.0 < second["rtt_ms"] < 60.0
    assert [(track["track"], track["subscriptions"], track["largest"]) for track in state["tracks"]] == [
        ("shop-demo--video", 1, [3, 0])
    ]
    assert state["namespaces"] == [{"namespace": "shop-demo", "sessions": [first["id"]]}]
    assert state["limits"]["sessions"] == 2
    assert RequestCode.DOES_NOT_EXIST.name.lower() not in json.dumps(state)
