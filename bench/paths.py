"""Paths of a large mesh: how long it takes to compute them, and how often they change in a storm of flaps.

    python -m bench.paths [--relays 500] [--rounds 11] [--planetlab FILE] [--storm-relays 500] [--storm-s 600]

Relays stand in 32 AWS regions, with the round trips between them (`bench/data`), each relay a little off; with
`--planetlab` they are PlanetLab's hosts (see `bench/data/README.md`), grouped into 32 regions around hosts that are
far from each other. Times are of one thread, medians; "with the plan" is what an event costs until it is known whose
table changed. In the storm every tenth measured link goes bad and comes back once a second, seen by a registry whose
relays report at once, on a clock of its own. Exit code 1 where a floor is missed: a whole computation in 1 s, a link
or a relay's death in 20 ms (T3), no pair moved twice in 10 s (T13).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from control.registry.relays import Registry
from control.registry.values import EventKind, Finding, RegistrySettings
from control.topology import neighbours
from control.topology.paths import MAX_LINK_MS, MAX_RELAY_MS, NO_WAY, Paths, Ways, finish, labels_of, quantised
from control.topology.planner import Topology, TopologySettings
from control.topology.routes import Routes, RouteSettings
from control.topology.schedule import Due
from control.topology.tables import Shared
from tradewind.contract.messages import Hello, LinkReport, Report, StateName

DATA = Path(__file__).parent / "data"
REGIONS = 32
WHOLE_FLOOR_S, CHANGE_FLOOR_S, MOVES_FLOOR = 1.0, 0.020, 1
Matrix = Any


def aws(relays: int, seed: int) -> tuple[list[str], Matrix]:
    """Regions of relays, in order, and round trips in milliseconds."""
    with (DATA / "aws_rtt_p50_1y.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names, between = rows[0][1:], np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    rng = np.random.default_rng(seed)
    region = np.sort(np.arange(relays) % len(names))
    off = rng.lognormal(0.0, 0.08, (relays, relays))
    return [names[index] for index in region], between[np.ix_(region, region)] * np.sqrt(off * off.T)


def planetlab(path: str, relays: int, seed: int) -> tuple[list[str], Matrix]:
    """The same of PlanetLab's hosts; those above their number are copies, a little off."""
    rtt = np.load(path)["rtt_tenth_ms"][1] / 10.0
    rng = np.random.default_rng(seed)
    pick = np.concatenate((np.arange(len(rtt)), rng.integers(0, len(rtt), max(0, relays - len(rtt)))))[:relays]
    rtt = rtt[np.ix_(pick, pick)] * rng.lognormal(0.0, 0.01, (relays, relays)) + 0.5
    centres = [0]
    while len(centres) < REGIONS:
        centres.append(int(rtt[:, centres].min(axis=1).argmax()))
    region = rtt[:, centres].argmin(axis=1)
    order = np.argsort(region, kind="stable")
    return [f"region-{region[index]:02}" for index in order], rtt[np.ix_(order, order)]


class World:
    """Relays that report to a registry, and a topology that follows it, on a clock of their own."""

    def __init__(self, regions: list[str], rtt: Matrix) -> None:
        self.now, self.rtt = 100.0, rtt
        self.ids = [f"{region}-{index:03}" for index, region in enumerate(regions)]
        self.registry = Registry(RegistrySettings())
        self.topology = Topology("bench", TopologySettings())
        measured = neighbours.chosen(regions, rtt / 2, np.zeros_like(rtt))
        self.links = [(sender, receiver) for receiver, others in enumerate(measured) for sender in others]
        self.reports = {receiver: self._told(receiver, others) for receiver, others in enumerate(measured)}
        found: list[Finding] = []
        for index, (relay, region) in enumerate(zip(self.ids, regions)):
            hello = Hello(index.to_bytes(16, "big"), "https://relay.test", ("192.0.2.1", 4433), "bench", 0, 1e9, 1000)
            found += self.registry.receive_hello(relay, region, hello, self.now)
        self.topology.receive(found, self.now)

    def _told(self, receiver: int, others: Sequence[int]) -> dict[int, LinkReport]:
        return {
            sender: LinkReport(self.ids[sender], "up", float(self.rtt[sender, receiver]), 2.0, 0.0, 1e6)
            for sender in others
        }

    def set_state(self, link: tuple[int, int], state: StateName) -> None:
        sender, receiver = link
        rtt_ms = float(self.rtt[sender, receiver])
        self.reports[receiver][sender] = LinkReport(self.ids[sender], state, rtt_ms, 2.0, 0.0, 1e6)

    def tell(self, relays: Sequence[int]) -> list[Finding]:
        """These report."""
        found: list[Finding] = []
        for index in relays:
            links = tuple(self.reports[index].values())
            report = Report(1, "serving", 0.3, 100, 1e6, 0.3, 1.0, 1, links)
            found += self.registry.receive_report(self.ids[index], report, self.now)
        if (due := self.registry.next_deadline()) is not None and due <= self.now:
            found += self.registry.handle_deadline(self.now)
        self.topology.receive(found, self.now)
        return found

    def compute(self) -> Due:
        """Let the topology do what is due."""
        due = self.topology.next_deadline()
        if due is None or due > self.now:
            return Due.NOTHING
        return self.topology.handle_deadline(self.registry, Shared(term=1), self.now, self.now).due


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Change:
    """One link or relay after the other changes, in paths and in the plan."""

    def __init__(self, links: Any, costs: Any, labels: Any, ids: Sequence[str]) -> None:
        self.links, self.costs, self.labels, self.ids = links, costs, labels, ids
        self.paths = Paths(links, costs, labels)
        self.routes = Routes(RouteSettings(rest_s=0.0))
        finish(self.routes.adapt(self.paths, ids, 0.0, cycle=True))

    def link(self, sender: int, receiver: int, cost: int) -> tuple[float, float]:
        links = np.zeros(self.links.shape, np.bool_)
        links[sender, receiver] = True
        paths_s = timed(lambda: self.paths.set_link(sender, receiver, cost))
        return paths_s, paths_s + timed(
            lambda: finish(self.routes.adapt(self.paths, self.ids, 1.0, cycle=False, links=links))
        )

    def death(self, relay: int) -> tuple[float, float]:
        self.paths = Paths(self.links, self.costs, self.labels)
        finish(self.routes.adapt(self.paths, self.ids, 0.0, cycle=True))
        removed = np.arange(len(self.ids)) == relay
        paths_s = timed(lambda: self.paths.remove(relay))
        links = np.zeros(self.links.shape, np.bool_)
        step: dict[str, Any] = {"cycle": False, "links": links, "removed": removed}
        plan_s = timed(lambda: finish(self.routes.adapt(self.paths, self.ids, 1.0, **step)))
        return paths_s, paths_s + plan_s


def compute(regions: list[str], rtt: Matrix, rounds: int, seed: int) -> list[str]:
    """T3: print how long paths take; returns the floors missed."""
    rng = np.random.default_rng(seed)
    size = len(regions)
    links = quantised(rtt / 2 + 1.0, MAX_LINK_MS)
    costs, labels = quantised(np.full(size, 3.0), MAX_RELAY_MS), labels_of(regions)
    ids = [f"{index:04}" for index in range(size)]
    found: list[list[Ways]] = []
    whole = [timed(lambda: found.append(Paths(links, costs, labels).candidates())) for _ in range(rounds)]
    change = Change(links, costs, labels, ids)
    one, one_plan, dead, dead_plan = [], [], [], []
    for _ in range(rounds * 5):
        sender, receiver = (int(index) for index in rng.choice(size, 2, replace=False))
        for cost in (NO_WAY, int(links[sender, receiver])):
            paths_s, plan_s = change.link(sender, receiver, cost)
            one.append(paths_s)
            one_plan.append(plan_s)
    for _ in range(rounds):
        paths_s, plan_s = change.death(int(rng.integers(size)))
        dead.append(paths_s)
        dead_plan.append(plan_s)
    pairs = size * (size - 1)
    first, *spares = found[-1]
    print(f"{size} relays, {len(set(regions))} regions, {pairs:,} pairs, {len(spares) + 1} candidates each")
    print(
        f"  all three of {sum((ways.cost < NO_WAY).sum() for ways in found[-1]) / pairs / 3:.1%}, first over one relay "
        f"{((first.hop > 0) & (first.via == 0)).sum() / pairs:.1%}, over two {(first.via > 0).sum() / pairs:.1%}"
    )
    missed = []
    for what, values, floor_s in (
        ("everything", whole, WHOLE_FLOOR_S),
        ("one link", one, CHANGE_FLOOR_S),
        ("one link, with the plan", one_plan, None),
        ("one death", dead, CHANGE_FLOOR_S),
        ("one death, with the plan", dead_plan, None),
    ):
        middle = median(values)
        least, most = min(values) * 1e3, max(values) * 1e3
        print(f"  {what:<26}{middle * 1e3:9.2f} ms ({least:.2f} to {most:.2f}, {len(values)} times)")
        if floor_s is not None and middle > floor_s:
            missed.append(f"{what}: {middle * 1e3:.1f} ms (at most {floor_s * 1e3:g})")
    return missed


def cycle(regions: list[str], rtt: Matrix, rounds: int) -> None:
    """Print how long a whole cycle takes, from the registry's reports to every relay's table."""
    world = World(regions, rtt)
    everybody = range(len(regions))
    reports, cycles, tables = [], [], []
    for _ in range(rounds):
        world.now += 10.0
        # Everybody was silent since the last round on this clock: heard first, judged after.
        reports.append(timed(lambda: world.tell(everybody)))
        cycles.append(timed(world.compute))
        tables.append(timed(lambda: [world.topology.tables(relay) for relay in world.ids]))
    print(
        f"  a cycle of {len(world.links):,} measured links: {median(cycles) * 1e3:.0f} ms; all reports before it "
        f"{median(reports) * 1e3:.0f} ms, all tables after it {median(tables) * 1e3:.0f} ms (the first time "
        f"{tables[0] * 1e3:.0f})"
    )


def storm(regions: list[str], rtt: Matrix, seconds: int, seed: int) -> list[str]:
    """T13: print how often relays are told of another first next hop; returns the floors missed."""
    rng = np.random.default_rng(seed)
    world = World(regions, rtt)
    size, everybody = len(regions), range(len(regions))
    for _ in range(64):
        world.now += 0.5
        world.tell(everybody)
        world.compute()
    flapping = [
        world.links[int(index)] for index in rng.choice(len(world.links), len(world.links) // 10, replace=False)
    ]
    phase = rng.integers(0, 20, len(flapping))
    moves = np.zeros((size, size), np.int64)
    moved_at = np.full((size, size), -np.inf)
    closest_s, computed, downs, busy_s = float("inf"), 0, 0, 0.0
    before = world.topology.trees.ways
    start = time.perf_counter()
    for step in range(seconds * 20):
        world.now += 0.05
        reporting = {index for index in everybody if index % 20 == step % 20}
        for link, offset in zip(flapping, phase):
            if (turn := (step + offset) % 20) in {0, 10}:
                world.set_state(link, "bad" if turn == 0 else "up")
                reporting.add(link[1])
        downs += sum(found.kind is EventKind.LINK_DOWN for found in world.tell(sorted(reporting)))
        began = time.perf_counter()
        if world.compute() is Due.NOTHING:
            continue
        busy_s += time.perf_counter() - began
        computed += 1
        ways = world.topology.trees.ways
        differs = ways.hop[0] != before.hop[0]
        if differs.any():
            closest_s = min(closest_s, float((world.now - moved_at[differs]).min()))
        moved_at[differs], before = world.now, ways
        moves += differs
    pairs = size * (size - 1)
    taken_s = time.perf_counter() - start
    print(f"storm: {size} relays, {len(flapping):,} of {len(world.links):,} links flap once a second for {seconds} s")
    print(
        f"  {downs:,} links found down, {computed} computations of {busy_s / max(computed, 1) * 1e3:.0f} ms, "
        f"{taken_s:.0f} s in all\n"
        f"  changes of a pair in 10 s: {moves.sum() / pairs / seconds * 10:.4f} on average, never two within "
        f"{closest_s:.1f} s; in all {moves.sum() / pairs:.3f} a pair, the most {moves.max()}"
    )
    print(f"  pairs that changed {dict(zip(*(part.tolist() for part in np.unique(moves, return_counts=True))))}")
    return [f"a pair moved twice in {closest_s:.1f} s"] if closest_s < 10.0 - 1e-6 else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.paths", description=__doc__.split("\n")[0])
    parser.add_argument("--relays", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--planetlab", default="", help="npz file")
    parser.add_argument("--storm-relays", type=int, default=500)
    parser.add_argument("--storm-s", type=int, default=600, help="0: no storm")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    def made(relays: int) -> tuple[list[str], Matrix]:
        where = options.planetlab
        return planetlab(where, relays, options.seed) if where else aws(relays, options.seed)

    regions, rtt = made(options.relays)
    missed = compute(regions, rtt, options.rounds, options.seed)
    cycle(regions, rtt, max(2, options.rounds // 3))
    if options.storm_s:
        missed += storm(*made(options.storm_relays), options.storm_s, options.seed)
    for line in missed:
        print(f"FAIL  {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
