"""Links on a virtual clock: how soon a fault is seen, and how often none is.

    python -m bench.links [--faults 2000] [--hours 2] [--test-hours 1000] [--seed 1]

Two of our links with a path between them: delay and jitter, loss in each direction, media beside the probes (20 packets
of 1,200 B a second) or none. `detection`: one direction loses 10 % of its packets, or all, from some moment on; printed
is how long after it that direction is SUSPECT and BAD at its receiving end, and whether the other direction or end ever
changed. The weather before it is 0.2 % loss. `alarms`: links without a fault, for hours; the tests alone are run for
far longer, since every lost packet is all that moves them. `cost` is what a link costs its process.
Exit code 1 where a floor is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf, log
from typing import Any

from relay.links.estimators import LossWatch
from relay.links.gaps import PacketGaps
from relay.links.link import Link
from relay.links.settings import DEFAULTS, LinkSettings
from relay.links.states import Direction, LinkChange, State

WEATHER = 0.002
MEDIA_PER_S = 20.0
WARM_UP_S = 2.5
GIVE_UP_S = 6.0
LOSS_P50_MS, LOSS_P99_MS, SILENCE_P99_MS = 300.0, 600.0, 350.0
"""T1 without the round trip on the other way, which begins with SUSPECT: of BAD."""
FALSE_BAD_PER_HOUR = 0.05


@dataclass(slots=True)
class Way:
    """One direction of a path."""

    delay_s: float = 0.04
    jitter_s: float = 0.0
    loss_ratio: float = WEATHER
    clock_s: float = 0.0


@dataclass(slots=True)
class End:
    """One relay: its link, and the other connection from the far end."""

    link: Link
    gaps: PacketGaps = field(default_factory=PacketGaps)
    due: float = 0.0
    stalled_until: float = 0.0
    media: int = 0
    clock_s: float = 0.0
    """What its clock shows more than the world's."""
    wakes: int = 0
    sent: int = 0


class World:
    """Two ends and the path between them."""

    def __init__(self, seed: int, ways: tuple[Way, Way], settings: LinkSettings = DEFAULTS) -> None:
        """`ways[0]` leads from end 0 to end 1."""
        self.now = 1000.0
        self.dice = random.Random(seed)
        self.ways = ways
        names = ("tokyo-1", "paris-1")
        self.ends = [
            End(Link(name, bytes(16), bytes(32), settings, self.now + self.dice.random() / 10)) for name in names
        ]
        self.queue: list[tuple[float, int, int, bytes | int]] = []
        self.count = 0
        self.changes: list[tuple[int, LinkChange]] = []
        self.media_s: float | None = None
        self.stall_every_s: float | None = None
        self.next_stall = inf
        self.stall_s = 0.2
        self.dropped_in_stall = 0.0
        for end in self.ends:
            end.due = end.link.next_deadline()

    def carry_media(self, per_s: float = MEDIA_PER_S) -> None:
        """From end 0 to end 1."""
        self.ends[0].link.active = True
        self.ends[0].due = self.ends[0].link.next_deadline()
        self.media_s = self.now
        self.media_gap_s = 1 / per_s

    def stall(self, every_s: float, seconds: float, dropped: float = 0.0) -> None:
        """End 1 stands still so often and so long, and its socket drops a part of what comes meanwhile."""
        self.stall_every_s, self.stall_s, self.dropped_in_stall = every_s, seconds, dropped
        self.next_stall = self.now + every_s

    def run(self, until: float, wanted: State | None = None) -> float | None:
        """Go on until then, or until end 1 sees the inbound direction in a state; returns when that was."""
        zero, one = self.ends
        while True:
            arrival = self.queue[0][0] if self.queue else inf
            media = self.media_s if self.media_s is not None else inf
            due0, due1 = max(zero.due, zero.stalled_until), max(one.due, one.stalled_until)
            at = min(arrival, media, due0, due1, self.next_stall)
            if at > until:
                self.now = until
                return None
            self.now = max(self.now, at)
            if at == self.next_stall:
                self._begin_stall()
            elif at == arrival:
                self._arrive()
            elif at == media:
                self._send(0, zero.media, at)
                zero.media += 1
                self.media_s = media + self.media_gap_s
            else:
                self._wake(0 if due0 <= due1 else 1)
            if wanted is not None and one.link.inbound is wanted:
                return at

    def _begin_stall(self) -> None:
        assert self.stall_every_s is not None
        self.ends[1].stalled_until = self.now + self.stall_s
        self.next_stall = self.now + self.stall_every_s * (0.5 + self.dice.random())

    def _arrive(self) -> None:
        _, _, number, data = heappop(self.queue)
        at = self.now
        end = self.ends[number]
        if at < end.stalled_until:
            if self.dice.random() >= self.dropped_in_stall:
                heappush(self.queue, (end.stalled_until, self._serial(), number, data))
            return
        clock = at + end.clock_s
        self._own_up(end, clock)
        if isinstance(data, int):
            end.gaps.add(data, clock)
            end.gaps.settle(clock)
            counts = end.gaps.take()
            end.link.receive_packets(counts.arrived, counts.lost, clock, 0, counts.apart)
        else:
            end.link.receive_datagram(data, clock)
        end.due = end.link.next_deadline() - end.clock_s
        self._note(number)

    def _wake(self, number: int) -> None:
        end = self.ends[number]
        clock = self.now + end.clock_s
        end.wakes += 1
        self._own_up(end, clock)
        end.link.handle_deadline(clock)
        for data in end.link.datagrams_to_send(clock):
            end.sent += 1
            self._send(number, data, self.now)
        end.due = end.link.next_deadline() - end.clock_s
        self._note(number)

    def _own_up(self, end: End, clock: float) -> None:
        """The first thing after a stall."""
        if end.stalled_until and self.now >= end.stalled_until:
            end.link.note_lag(self.stall_s, clock)
            end.stalled_until = 0.0

    def _send(self, source: int, data: bytes | int, at: float) -> None:
        way = self.ways[source]
        if self.dice.random() >= way.loss_ratio:
            delay_s = way.delay_s + (self.dice.random() * way.jitter_s if way.jitter_s else 0.0)
            heappush(self.queue, (at + delay_s, self._serial(), 1 - source, data))

    def _serial(self) -> int:
        self.count += 1
        return self.count

    def _note(self, number: int) -> None:
        self.changes += [(number, change) for change in self.ends[number].link.take_changes()]


@dataclass(slots=True)
class Seen:
    """What faults of one kind looked like, milliseconds."""

    suspect_ms: list[float] = field(default_factory=list)
    bad_ms: list[float] = field(default_factory=list)
    missed: int = 0
    wrong: int = 0
    """Faults after which another direction changed."""


def detect(
    rtt_s: float, loss_ratio: float, media: bool, faults: int, seed: int, settings: LinkSettings = DEFAULTS
) -> Seen:
    """So many faults, each on links of their own."""
    seen = Seen()
    for number in range(faults):
        ways = (Way(rtt_s / 2), Way(rtt_s / 2))
        world = World(seed * 1_000_003 + number, ways, settings)
        if media:
            world.carry_media()
        world.run(world.now + WARM_UP_S + world.dice.random() * 0.2)
        ways[0].loss_ratio = loss_ratio
        world.changes.clear()
        began = world.now
        bad = world.run(began + GIVE_UP_S, State.BAD)
        suspects = [
            change.at
            for end, change in world.changes
            if end == 1 and change.direction is Direction.INBOUND and change.new in {State.SUSPECT, State.BAD}
        ]
        if bad is None:
            seen.missed += 1
            seen.bad_ms.append(inf)
        else:
            seen.bad_ms.append((bad - began) * 1000)
        seen.suspect_ms.append((min(suspects) - began) * 1000 if suspects else inf)
        wrong = {(1, Direction.OUTBOUND), (0, Direction.INBOUND)}
        seen.wrong += any((end, change.direction) in wrong and change.new is State.BAD for end, change in world.changes)
    return seen


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(ceil(part * len(ordered)), len(ordered)) - 1]


@dataclass(slots=True)
class Alarms:
    """False alarms of one kind of link, over so many hours of one direction."""

    hours: float
    suspect: int = 0
    bad: int = 0
    suspect_s: float = 0.0


def count_alarms(world: World, hours: float) -> Alarms:
    """Changes of the direction from end 0 to end 1, at its receiving end, once the link is UP."""
    world.run(world.now + WARM_UP_S)
    world.changes.clear()
    began = world.now
    world.run(began + hours * 3600)
    alarms, since = Alarms(hours), began
    for end, change in world.changes:
        if end == 1 and change.direction is Direction.INBOUND:
            alarms.suspect += change.new is State.SUSPECT
            alarms.bad += change.new is State.BAD
            if change.old is State.SUSPECT:
                alarms.suspect_s += change.at - since
            since = change.at
    return alarms


def alarms_of_tests(loss_ratio: float, per_s: float, hours: float, seed: int) -> Alarms:
    """The tests of loss alone, fed with what a link without a fault would see: only lost packets are drawn."""
    dice, watch, alarms = random.Random(seed), LossWatch(DEFAULTS), Alarms(hours)
    now, end, suspect = 0.0, hours * 3600, False
    while now < end:
        arrived = int(log(1.0 - dice.random()) / log(1.0 - loss_ratio))
        now += (arrived + 1) / per_s
        if arrived:
            watch.add(arrived, 0, 0, now)
        suspect = suspect and watch.is_suspect()
        watch.add(0, 1, 1, now)
        if watch.is_bad(now):
            alarms.bad += 1
            watch.reset_scores()
        elif watch.is_suspect() and not suspect:
            alarms.suspect += 1
            suspect = True
    return alarms


def print_detection(faults: int, seed: int) -> list[str]:
    print(f"detection, {faults} faults each, weather {WEATHER:.1%}: ms after the fault, p50 / p99")
    print("rtt ms  fault        link     SUSPECT        BAD            missed  wrong direction")
    missed = []
    for rtt_ms in (30, 80, 150):
        for loss in (0.1, 1.0):
            for media in (True, False):
                seen = detect(rtt_ms / 1000, loss, media, faults, seed)
                figures = [
                    percentile(values, part) for values in (seen.suspect_ms, seen.bad_ms) for part in (0.5, 0.99)
                ]
                name, kind = f"{loss:.0%} lost" if loss < 1 else "silence", "media" if media else "idle"
                print(
                    f"{rtt_ms:6}  {name:<11}  {kind:<7}  {figures[0]:5.0f} /{figures[1]:6.0f}  "
                    f"{figures[2]:5.0f} /{figures[3]:6.0f}  {seen.missed:6}  {seen.wrong:6}",
                    flush=True,
                )
                if media and loss < 1 and (figures[2] > LOSS_P50_MS or figures[3] > LOSS_P99_MS):
                    missed.append(f"{name} at {rtt_ms} ms: BAD after {figures[2]:.0f} / {figures[3]:.0f} ms")
                if media and loss == 1 and figures[3] > SILENCE_P99_MS:
                    missed.append(f"{name} at {rtt_ms} ms: BAD after {figures[3]:.0f} ms at p99")
    return missed


CALM: list[tuple[str, bool, Way, float, float]] = [
    ("0.2 %", True, Way(), 0.0, 0.0),
    ("0.2 %, 20 ms jitter", True, Way(jitter_s=0.02), 0.0, 0.0),
    ("0.2 %, stalls of 200 ms", True, Way(), 5.0, 0.0),
    ("0.2 %, stalls that drop a third", True, Way(), 5.0, 0.33),
    ("0.5 %", True, Way(loss_ratio=0.005), 0.0, 0.0),
    ("0.5 %, 20 ms jitter", True, Way(jitter_s=0.02, loss_ratio=0.005), 0.0, 0.0),
    ("0.2 %", False, Way(), 0.0, 0.0),
    ("0.2 %, 20 ms jitter", False, Way(jitter_s=0.02), 0.0, 0.0),
    ("0.2 %, stalls of 200 ms", False, Way(), 5.0, 0.0),
    ("0.5 %", False, Way(loss_ratio=0.005), 0.0, 0.0),
]
"""Weather, media, the way of the direction measured, stalls of its receiving end every so often, and what they drop."""


def calm_world(seed: int, media: bool, way: Way, stall_every_s: float, dropped: float) -> World:
    world = World(seed, (Way(way.delay_s, way.jitter_s, way.loss_ratio), Way(way.delay_s, way.jitter_s)))
    if media:
        world.carry_media()
    if stall_every_s:
        world.stall(stall_every_s, 0.2, dropped)
    return world


def print_alarms(hours: float, test_hours: float, seed: int) -> list[str]:
    print(f"\nalarms of whole links, {hours:g} h each: per hour of a direction")
    print("weather                          link     SUSPECT  of the time  BAD")
    missed = []
    for name, media, way, every_s, dropped in CALM:
        alarms = count_alarms(calm_world(seed, media, way, every_s, dropped), hours)
        print(
            f"{name:<32} {'media' if media else 'idle':<7} {alarms.suspect / hours:8.1f}"
            f"{alarms.suspect_s / hours / 3600:12.2%}  {alarms.bad / hours:6.2f}",
            flush=True,
        )
    print(f"\nalarms of the tests of loss, {test_hours:g} h each: per hour of a direction")
    print("loss   packets/s   SUSPECT       BAD")
    for loss in (0.002, 0.005, 0.01):
        for per_s in (10.0, 160.0, 1000.0):
            alarms = alarms_of_tests(loss, per_s, test_hours * min(1.0, 200.0 / per_s), seed)
            bad = alarms.bad / alarms.hours
            print(f"{loss:5.1%}{per_s:10g}{alarms.suspect / alarms.hours:11.1f}{bad:11.4f}", flush=True)
            if loss == WEATHER and bad > FALSE_BAD_PER_HOUR:
                missed.append(f"{bad:.3f} false BAD an hour at {loss:.1%} and {per_s:g} packets/s")
    return missed


def print_cost(seed: int) -> None:
    """Processor time of both ends of a link, and what they send, without the path's."""
    print("\ncost of one end of a link, both directions alike")
    print("link    wake-ups/s  datagrams/s  us of processor/s")
    for kind, media in (("idle", False), ("media", True)):
        world = World(seed, (Way(), Way()))
        if media:
            world.carry_media()
            world.ends[1].link.active = True
        spent = Counter[str]()
        seconds = 20.0
        world.run(world.now + WARM_UP_S)
        for end in world.ends:
            end.wakes = end.sent = 0
            _time_calls(end, spent)
        world.run(world.now + seconds)
        wakes, sent = sum(end.wakes for end in world.ends), sum(end.sent for end in world.ends)
        print(f"{kind:<8}{wakes / 2 / seconds:10.1f}{sent / 2 / seconds:13.1f}{spent['ns'] / 2 / seconds / 1000:12.0f}")
    gaps = PacketGaps()
    began = time.perf_counter_ns()
    for number in range(200_000):
        gaps.add(number, 1.0)
    print(f"PacketGaps.add in order: {(time.perf_counter_ns() - began) / 200_000:.0f} ns with the loop around it")


def _time_calls(end: End, spent: Counter[str]) -> None:
    """Put a watch before the link of this end."""
    link = end.link

    class Watched:
        def __getattr__(self, name: str) -> Any:
            found = getattr(link, name)
            if not callable(found) or name == "take_changes":
                return found

            def call(*arguments: Any) -> Any:
                began = time.perf_counter_ns()
                try:
                    return found(*arguments)
                finally:
                    spent["ns"] += time.perf_counter_ns() - began

            return call

    end.link = Watched()  # type: ignore[assignment]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.links", description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--test-hours", type=float, default=1000.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", default="detection,alarms,cost")
    options = parser.parse_args(arguments)
    parts, missed = options.parts.split(","), []
    if "detection" in parts:
        missed += print_detection(options.faults, options.seed)
    if "alarms" in parts:
        missed += print_alarms(options.hours, options.test_hours, options.seed)
    if "cost" in parts:
        print_cost(options.seed)
    for line in missed:
        print(f"FAIL  {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
