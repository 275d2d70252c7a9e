"""What a relay pays for what operators see: reports with streams, pages of sessions, and questions for one stream.

    python -m bench.operators [--sessions 200] [--namespaces 300] [--relays 500] [--runs 9]

A relay in memory with this many namespaces of two tracks, and viewers that each subscribe to eight of them. CPU time of
this process for one of each, the median of `--runs`; all of them happen inside a turn. The last two are a controller's,
of a mesh whose every relay tells as many streams as it may.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from types import SimpleNamespace
from typing import cast

from control import views
from control.api import MAX_ROWS
from control.plane import Plane
from control.streams import Streams
from relay import listing
from relay.flows import FlowMeter
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.sim.relay import node_settings
from tests.sim.world import World
from tradewind.contract.codec import TO_CONTROLLER, Codec
from tradewind.contract.messages import MAX_STREAMS, Report, StreamReport
from tradewind.moqt.model import FullTrackName
from tradewind.quic.config import Limits

NAMES = (b"video", b"audio")
PER_PUBLISHER = 40
EACH = 8


def build(sessions: int, namespaces: int) -> World:
    """The relay."""
    limits = Limits(pending_handshakes_per_address=100_000, pending_handshakes=100_000)
    world = World(node_settings(quic_limits=limits))
    for first in range(0, namespaces, PER_PUBLISHER):
        publisher = world.join()
        for number in range(first, min(first + PER_PUBLISHER, namespaces)):
            namespace = (b"live", b"shop-%05d" % number)
            for name in NAMES:
                publisher.serve(FullTrackName(namespace, name))
            publisher.announce(namespace)
        world.run()
    for number in range(sessions):
        viewer = world.join()
        for step in range(EACH):
            for name in NAMES:
                viewer.subscribe(FullTrackName((b"live", b"shop-%05d" % ((number * EACH + step) % namespaces)), name))
    world.run()
    return world


class Everybody:
    """What `views.streams` asks of a plane, of a mesh whose every relay tells as much as it may."""

    def __init__(self, relays: int) -> None:
        rows = [StreamReport((b"live", b"shop-%05d" % n), "relay-0001", 2, 20, 1e6 - n) for n in range(MAX_STREAMS)]
        self.streams = Streams()
        self.members_here = [SimpleNamespace(id=f"relay-{n:04}", report=None) for n in range(relays)]
        for view in self.members_here:
            report = Report(1, "serving", 0.1, 1, 1.0, 0.1, 0.1, 1, streams=tuple(rows), streams_more=10)
            self.streams.apply(view.id, report)
        self.registry = self

    def members(self, _now: float) -> list[SimpleNamespace]:
        return self.members_here


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.operators")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--namespaces", type=int, default=300)
    parser.add_argument("--relays", type=int, default=500)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    world = build(options.sessions, options.namespaces)
    node, codec = world.node, Codec(TO_CONTROLLER)
    held = node.forwarder.statistics()
    print(f"{len(node.attachments)} sessions, {held.tracks} tracks, {held.subscriptions} subscriptions")
    steering = Steering(node, cast("Placing", None), Capacity(1e9, 10_000), lambda: Readings(0.0, 0.0))
    clock = iter(range(1, 1_000_000))
    middle = sorted(node.attachments)[len(node.attachments) // 2]
    prefix = (b"live", b"shop-00001")

    def report(every_s: float) -> None:
        codec.encode(steering.report(1, next(clock) * every_s, 0.0))

    meter = FlowMeter(node)
    cases: dict[str, Callable[[], object]] = {
        "a report with its streams": lambda: report(10.0),
        "a report that leaves them out": lambda: report(1e-6),
        "of that, looking at all streams": lambda: meter.take(next(clock) * 10.0),
        "one stream, asked for": lambda: meter.of(prefix),
        "a whole page of sessions": lambda: listing.page(node, 0, 1000, "", (), 0.0),
        "a page of 20 from the middle": lambda: listing.page(node, middle, 20, "", (), 0.0),
        "a page of one namespace": lambda: listing.page(node, 0, 1000, "", prefix, 0.0),
    }
    mesh = cast("Plane", Everybody(options.relays))
    one = views.wanted((b"live", b"shop-00001"))
    cases |= {
        f"rows of {options.relays} relays": lambda: views.streams(mesh, 0.0, MAX_ROWS),
        "one namespace of them": lambda: views.streams(mesh, 0.0, MAX_ROWS, one),
    }
    for name, act in cases.items():
        taken = []
        for _ in range(options.runs):
            begun = time.process_time()
            act()
            taken.append(time.process_time() - begun)
        print(f"{name:<34} {median(taken) * 1e3:>8.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
