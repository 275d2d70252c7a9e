"""What idle request streams cost: a whole relay, one of whose sessions holds 2,000 of them, against one without.

    python -m bench.idle_streams [--streams 2000] [--viewers 10] [--loads datagrams,objects]

Nodes in memory as in `bench.turn`, alike but for the streams, take turns in one process: processor time for each packet
sent, medians over the rounds. Media goes to the session that holds the streams, first alone, so that nobody else's
packets hide what its own cost, then with `--viewers` others. The streams are of one kind at a time:

    unfinished     the start of a SUBSCRIBE, whose rest never comes
    namespaces     SUBSCRIBE_NAMESPACE, accepted; nothing is ever published there
    waiting        SUBSCRIBE that waits for a publisher to appear
    subscriptions  SUBSCRIBE, accepted; no objects come. The publisher's session has as many streams too

The relay's limits are raised for this: by default a session may have 128 request streams, and ask for 256 namespaces.
Exit code: 0, 1 where idle streams cost more than the floor, or somebody missed something.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from statistics import median

from bench.dialing import NAMESPACE, Dialed
from bench.load import SHAPES, Shape
from bench.report import Verdict
from bench.turn import WARM_UP_TICKS, World
from tradewind.moqt.model import FullTrackName, Parameters

DRAFT = 20
MOST_RATIO = 1.3
AT_ONCE = 100
NONE = "none"
SPARE_STREAMS = 16
START_OF_SUBSCRIBE = b"\x03\x00\x40"
"""Type and length."""
NOWHERE = (b"bench", b"nowhere")
PATIENCE_MS = 3_600_000


def open_unfinished(holder: Dialed, _: int) -> None:
    """A request whose body never comes."""
    stream = holder.open_bidi()
    assert stream is not None
    holder.send(stream, START_OF_SUBSCRIBE)


def open_namespaces(holder: Dialed, number: int) -> None:
    """A prefix of its own, since prefixes may not overlap."""
    assert holder.session is not None
    holder.session.subscribe_namespace((*NOWHERE, b"%d" % number))


def open_waiting(holder: Dialed, number: int) -> None:
    """A track that nobody publishes."""
    assert holder.session is not None
    wait = Parameters(forward=True, rendezvous_timeout_ms=PATIENCE_MS)
    holder.session.subscribe(FullTrackName(NOWHERE, b"%d" % number), wait)


def open_subscriptions(holder: Dialed, number: int) -> None:
    """A track that the publisher has and puts nothing on."""
    holder.subscribe(FullTrackName(NAMESPACE, b"silent %d" % number))


KINDS: dict[str, Callable[[Dialed, int], None]] = {
    "unfinished": open_unfinished,
    "namespaces": open_namespaces,
    "waiting": open_waiting,
    "subscriptions": open_subscriptions,
}


class Crowded:
    """A node whose first viewer holds `streams` request streams of one kind."""

    def __init__(self, kind: str, streams: int, viewers: int, shape: Shape) -> None:
        world = self.world = World(1 + viewers, shape, DRAFT, _flags(streams))
        self._streams = 0 if kind == NONE else streams
        self._ticks = 0
        holder = self._holder = world.viewers[0]
        for number in range(self._streams):
            KINDS[kind](holder, number)
            if number % AT_ONCE == AT_ONCE - 1:
                world.pump(8)
        world.start()
        self.check()

    def cost_us(self, ticks: int) -> float:
        """Publish so many times; returns microseconds of processor time for each packet that the node sent."""
        world = self.world
        world.spent.clear()
        world.packets = 0
        for _ in range(ticks):
            world.tick()
        self._ticks += ticks
        cpu_s = sum(sum(world.spent[stage]) for stage in ("all", "acks", "timers"))
        return cpu_s * 1e6 / world.packets

    def check(self) -> None:
        """Assert that the streams are open, that everybody is there, and that everything arrived."""
        world = self.world
        world.node.check_invariants()
        assert not world.node.ended and not world.node.faults
        assert not any(dialed.closed for dialed in (world.publisher, *world.viewers))
        (held,) = (
            attachment.connection.statistics().streams
            for attachment in world.node.attachments.values()
            if attachment.connection.peer_address == self._holder.address
        )
        assert held >= self._streams
        assert world.objects == self._ticks * world.shape.objects * len(world.viewers)


def measure(shape: Shape, streams: int, viewers: int, rounds: int, ticks: int) -> dict[str, float]:
    """Microseconds a packet for each kind of streams, and for none."""
    nodes = {kind: Crowded(kind, streams, viewers, shape) for kind in (NONE, *KINDS)}
    costs: dict[str, list[float]] = {kind: [] for kind in nodes}
    gc.collect()
    gc.freeze()
    for node in nodes.values():
        node.cost_us(WARM_UP_TICKS)
    for _ in range(rounds):
        for kind, node in nodes.items():
            gc.collect()
            costs[kind].append(node.cost_us(ticks))
    for node in nodes.values():
        node.check()
    gc.unfreeze()
    return {kind: median(found) for kind, found in costs.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and judge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.idle_streams", description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--viewers", type=int, default=10, help="besides the session that holds the streams")
    parser.add_argument("--loads", default="datagrams,objects")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ticks", type=int, default=20, help="of a round")
    options = parser.parse_args(arguments)
    print(f"{'load':<10} {'viewers':>7}  {f'{options.streams:,} idle':<14} {'us/packet':>9} {'ratio':>6}")
    worst = 0.0
    for load in options.loads.split(","):
        for viewers in sorted({0, options.viewers}):
            costs = measure(SHAPES[load], options.streams, viewers, options.rounds, options.ticks)
            for kind, cost in costs.items():
                ratio = cost / costs[NONE]
                worst = max(worst, ratio)
                print(f"{load:<10} {1 + viewers:>7}  {kind:<14} {cost:9.2f} {ratio:6.2f}", flush=True)
    verdict = Verdict(f"a packet beside {options.streams:,} idle request streams", worst, MOST_RATIO, "x without")
    print(verdict)
    return int(not verdict.passed)


def _flags(streams: int) -> tuple[str, ...]:
    """For the relay: one session may hold them all."""
    return (
        *("--quic.bidi_streams", str(streams + SPARE_STREAMS)),
        *("--limits.requests_per_session", str(streams + SPARE_STREAMS)),
        *("--limits.subscriptions_per_session", "0"),
        *("--limits.namespaces_per_session", "0"),
        *("--relay.rendezvous_max_s", f"{PATIENCE_MS // 1000}s"),
    )


if __name__ == "__main__":
    sys.exit(main())
