"""One neighbour session that carries 2,000 tracks: what a relay spends on an object, on each track, and on moving all.

    python -m bench.neighbour [--tracks 2000] [--few 20] [--windows 4] [--loss 1.0] [--memory]

Three relays with real connections on a virtual clock; the edge relay reads everything from the origin over one session,
and from a third relay once that link has gone bad. Figures are processor time of the edge relay's own calls, so that
they count on a machine that has other work to do. Objects are 200 bytes in groups of ten, 2,000 a second in all however
many tracks there are, in turn over 40 viewers: what an object costs is to be the same with few tracks and with many.
Both are measured in turn, window by window; a window has as many objects, and begins as many groups, in both.
`longest` is the longest single call: for so long nothing else is forwarded. Memory is what the edge relay's calls took
and kept, counted in a run of its own.

Exit code 1 where an object is lost or comes twice, or costs over 1.5 times as much among many tracks.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, TypeVar

from relay.overrides import OverrideMeter
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.sim.many import AT_ONCE, EDGE, FAIR, OBJECTS, OTHER, TICK_S, Many
from tests.sim.network import Parcel
from tests.sim.relay import Relay
from tradewind.contract.admission import relay_signer
from tradewind.quic.config import Address

WARM_UP_S = 2.0
IDLE_S = 10.0
REPORTS = 20
RATIO_MOST = 1.5
MOVED_WITHIN_S = 20.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a relay's calls took since its start. Seconds of processor time, bytes."""

    cpu_s: float = 0.0
    longest_s: float = 0.0
    memory_bytes: int = 0


class Timed(Relay):
    """A relay that counts what its calls take; with `traced` memory too, which makes them slow."""

    traced = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.spent = Spent()

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        self._timed(lambda: Relay.receive(self, address, batch, now, wall_now))

    def handle_deadline(self, now: float, wall_now: float) -> None:
        self._timed(lambda: Relay.handle_deadline(self, now, wall_now))

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        return self._timed(lambda: Relay.take_output(self, now))

    def _timed(self, work: Callable[[], T]) -> T:
        held = tracemalloc.get_traced_memory()[0] if self.traced else 0
        began = time.thread_time()
        result = work()
        took = time.thread_time() - began
        kept = tracemalloc.get_traced_memory()[0] - held if self.traced else 0
        before = self.spent
        self.spent = Spent(before.cpu_s + took, max(before.longest_s, took), before.memory_bytes + kept)
        return result


class Measured(Many):
    """`Many` whose edge relay counts."""

    relay_class = Timed

    def subscribe(self) -> None:
        self.at_rest = self.edge.spent
        super().subscribe()
        self.subscribed = self.edge.spent

    @property
    def edge(self) -> Timed:
        found = self.relays[EDGE]
        assert isinstance(found, Timed)
        return found

    def spends(self, work: Callable[[], object]) -> Spent:
        """What the edge relay takes while something goes on."""
        before = self.edge.spent
        self.edge.spent = replace(before, longest_s=0.0)
        work()
        found = self.edge.spent
        return Spent(found.cpu_s - before.cpu_s, found.longest_s, found.memory_bytes - before.memory_bytes)


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Of a number of tracks."""

    tracks: int
    subscribe_us: float
    """A track."""
    object_us: float
    idle_ms: float
    """A second in which nothing comes."""
    report_ms: float
    look_ms: float
    """For overrides, which is part of a report."""
    moving_ms: float
    """All tracks, beyond what the objects in that time take."""
    longest_ms: float
    moved_s: float
    """Of the virtual clock, from the fault until all come from elsewhere alone."""
    lost: int

    def text(self) -> str:
        """A line of the table."""
        return (
            f"{self.tracks:>7}{self.subscribe_us:>15.0f}{self.object_us:>12.1f}{self.idle_ms:>12.2f}"
            f"{self.report_ms:>11.2f}{self.look_ms:>9.2f}{self.moving_ms:>11.0f}{self.longest_ms:>12.1f}"
            f"{self.moved_s:>9.2f}{self.lost:>6}"
        )


HEAD = (
    f"{'tracks':>7}{'subscribe us':>15}{'object us':>12}{'idle ms/s':>12}"
    f"{'report ms':>11}{'look ms':>9}{'moving ms':>11}{'longest ms':>12}{'moved s':>9}{'lost':>6}"
)


def objects_us(worlds: Sequence[Measured], windows: int) -> list[float]:
    """What an object costs in each world: medians of windows in which every world begins as many groups."""
    objects = OBJECTS * max(len(world.lines) for world in worlds)
    seconds = objects / AT_ONCE * TICK_S
    taken: list[list[float]] = [[] for _ in worlds]
    for world in worlds:
        world.stream(WARM_UP_S)
    for _ in range(windows):
        for world, costs in zip(worlds, taken, strict=True):
            spent = world.spends(partial(world.stream, seconds))
            costs.append(1e6 * spent.cpu_s / objects)
    return [median(costs) for costs in taken]


def finish(world: Measured, object_us: float, loss: float) -> Row:
    """The rest: an idle while, reports, and the move of all tracks."""
    tracks = len(world.lines)
    world.run(2.0)
    idle = world.spends(lambda: world.run(IDLE_S))
    report_s, look_s = _reports(world)
    world.stream(WARM_UP_S)
    began, before = world.network.now, sum(line.sent for line in world.lines)
    world.fail(replace(FAIR, loss=loss))

    def move() -> None:
        while world.fed_by() != {OTHER: tracks}:
            assert world.network.now < began + MOVED_WITHIN_S, f"still {world.fed_by()}"
            world.tick()

    moving = world.spends(move)
    moved_s = world.network.now - began
    objects = sum(line.sent for line in world.lines) - before
    world.stream(WARM_UP_S)
    world.run(3.0)
    world.collect()
    return Row(
        tracks,
        1e6 * (world.subscribed.cpu_s - world.at_rest.cpu_s) / tracks,
        object_us,
        1e3 * idle.cpu_s / IDLE_S,
        1e3 * report_s,
        1e3 * look_s,
        1e3 * moving.cpu_s - objects * object_us / 1e3,
        1e3 * moving.longest_s,
        moved_s,
        world.missing,
    )


def memory_bytes(tracks: int) -> float:
    """What a relay holds for each of so many tracks, a group of ten objects of each in its cache."""
    gc.enable()
    tracemalloc.start()
    Timed.traced = True
    try:
        world = Measured(tracks)
        while any(line.sent < 10 for line in world.lines):
            world.tick()
        world.run(1.0)
        return (world.edge.spent.memory_bytes - world.at_rest.memory_bytes) / tracks
    finally:
        Timed.traced = False
        tracemalloc.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--windows", type=int, default=4, help="of ten objects of every track; the median counts")
    parser.add_argument("--loss", type=float, default=1.0, help="of the link that tracks move from, 0 to 1")
    parser.add_argument("--memory", action="store_true", help="memory too, in a run of its own")
    options = parser.parse_args()
    print(HEAD)
    worlds = [Measured(tracks) for tracks in (options.few, options.tracks)]
    gc.collect()
    gc.disable()  # Three relays and their clients share a heap: whose garbage is found when says nothing of one.
    rows = []
    for world, object_us in zip(worlds, objects_us(worlds, options.windows), strict=True):
        gc.collect()
        rows.append(finish(world, object_us, options.loss))
        print(rows[-1].text(), flush=True)
    few, many = rows
    ratio = many.object_us / few.object_us
    print(f"an object costs {ratio:.2f} times as much among {many.tracks} tracks as among {few.tracks}")
    print(f"moving a track takes {1e3 * many.moving_ms / many.tracks:.0f} us")
    if options.memory:
        print(f"a track holds {memory_bytes(options.tracks) / 1024:.1f} kB, a group of ten objects of 200 bytes in it")
    missed = [f"{row.lost} objects lost with {row.tracks} tracks" for row in rows if row.lost]
    missed += [f"an object may cost {RATIO_MOST} times as much"] if ratio > RATIO_MOST else []
    for miss in missed:
        print(f"MISSED: {miss}")
    return 1 if missed else 0


def _reports(world: Measured) -> tuple[float, float]:
    """What a report to the controller takes, and looking for overrides within it."""
    node, now = world.node(EDGE), world.network.now
    steering = Steering(
        node, Placing(EDGE, relay_signer(EDGE, bytes(32)), ()), Capacity(1e9, 1000), lambda: Readings(0.0, 0.0)
    )
    meter = OverrideMeter(node)
    took: list[tuple[float, float]] = []
    for number in range(REPORTS):
        began = time.thread_time()
        steering.report(number, now + number, 0.0)
        between = time.thread_time()
        meter.take(now + number, 0.0)
        took.append((between - began, time.thread_time() - between))
    return median(one for one, _ in took), median(other for _, other in took)


if __name__ == "__main__":
    sys.exit(main())
