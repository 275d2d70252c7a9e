"""Trees: two heads a region, few moves, everybody reached, and what happens to them when something breaks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.topology.paths import CANDIDATES, NO_WAY, Paths, Ways, finish, labels_of, quantised
from control.topology.planner import Topology, TopologySettings
from control.topology.routes import Routes, RouteSettings
from control.topology.trees import Ground, Trees, TreeSettings
from tests.control.mesh import hello
from tests.control.topology.test_planner import Plane

FAR_MS = {"fra hkg": 190.0, "fra sin": 160.0, "hkg sin": 37.0, "fra iad": 90.0, "iad sin": 220.0, "hkg iad": 215.0}
TWELVE = {f"fra-{number}": "fra" for number in range(1, 13)}
WORLD = {**TWELVE, "hkg-1": "hkg", "sin-1": "sin", "sin-2": "sin", "iad-1": "iad"}


def rtt_ms(one: str, other: str) -> float:
    return 1.0 if one == other else FAR_MS[" ".join(sorted((one, other)))]


def world(regions: dict[str, str] | None = None, seconds: float = 31.0) -> Plane:
    plane = Plane(regions or WORLD)
    lay(plane)
    plane.run(seconds)
    return plane


def lay(plane: Plane) -> None:
    """Everybody is as far from everybody as their regions are."""
    regions = plane.mesh.regions
    for one in regions:
        for other in regions:
            if one != other:
                plane.mesh.rtt_ms[one, other] = rtt_ms(regions[one], regions[other])


def firsts(plane: Plane, origin: str) -> dict[str, str]:
    alive = plane.mesh.regions.keys() - plane.mesh.silent
    return {relay: plane.ways(relay, origin)[0][0] for relay in sorted(alive) if relay != origin}


def heads(plane: Plane, origin: str, region: str = "fra") -> set[str]:
    """Who of a region takes from outside it first."""
    found = firsts(plane, origin)
    members = {relay for relay in found if plane.mesh.regions[relay] == region}
    return {relay for relay in members if found[relay] not in members}


@pytest.mark.parametrize("relays", [3, 4, 12])
def test_two_heads_however_many_relays(relays: int) -> None:
    names = [*TWELVE][:relays]
    plane = world({name: WORLD[name] for name in (*names, "hkg-1", "sin-1", "sin-2", "iad-1")})
    for origin in ("hkg-1", "sin-1", "sin-2", "iad-1"):
        two = heads(plane, origin)
        assert len(two) == 2
        for name in names:
            ways = [way[0] for way in plane.ways(name, origin)]
            explained = plane.topology.explain(name, origin, plane.mesh.now)
            assert explained is not None
            assert [(way.next_hop, *way.through) for way in explained.candidates] == plane.ways(name, origin)
            if name in two:
                assert ways[0] == origin and explained.place == "head"
            else:
                assert set(ways[:2]) == two and ways[2] == origin and explained.place == "edge"


def test_origins_have_different_heads_and_both_heads_have_edges() -> None:
    plane = world()
    assert len({frozenset(heads(plane, origin)) for origin in ("hkg-1", "sin-1", "sin-2", "iad-1")}) > 1
    used = [set(firsts(plane, origin).values()) >= heads(plane, origin) for origin in ("hkg-1", "sin-1", "iad-1")]
    assert all(used)


def test_inside_the_origins_region_and_in_regions_of_two_nothing_is_different() -> None:
    plane = world({"fra-1": "fra", "fra-2": "fra", "hkg-1": "hkg", "sin-1": "sin", "sin-2": "sin"})
    routes, trees = plane.topology.routes.ways, plane.topology.trees.ways
    assert all((one == other).all() for one, other in zip(routes, trees))
    plane = world()
    assert all(plane.ways(f"fra-{number}", "fra-1")[0] == ("fra-1",) for number in range(2, 13))


def test_whoever_goes_over_a_region_asks_a_head_of_it() -> None:
    """Iad reaches hkg best over Frankfurt, but over an edge there three relays would stand on the way."""
    plane = Plane({**TWELVE, "hkg-1": "hkg", "iad-1": "iad", "iad-2": "iad", "iad-3": "iad"})
    lay(plane)
    for number in (1, 2, 3):
        plane.mesh.rtt_ms["hkg-1", f"iad-{number}"] = plane.mesh.rtt_ms[f"iad-{number}", "hkg-1"] = 400.0
    plane.run(31)
    two, found = heads(plane, "hkg-1"), firsts(plane, "hkg-1")
    there = heads(plane, "hkg-1", "iad")
    assert len(two) == 2 and len(there) == 2
    assert {found[name] for name in there} <= two
    assert all(way[0] in {*two, "hkg-1"} for name in there for way in plane.ways(name, "hkg-1"))
    (edge,) = {"iad-1", "iad-2", "iad-3"} - there
    assert plane.ways(edge, "hkg-1")[0][0] in there and plane.ways(edge, "hkg-1")[0][1] in two


def test_who_joins_takes_some_edges_and_moves_nobody_else() -> None:
    origins = {f"hkg-{number}": "hkg" for number in range(1, 25)}
    plane = world({**TWELVE, **origins})
    before = {origin: firsts(plane, origin) for origin in origins}
    plane.mesh.regions["fra-13"] = "fra"
    lay(plane)
    plane.topology.receive(
        plane.mesh.registry.receive_hello("fra-13", "fra", hello(99), plane.mesh.now), plane.mesh.now
    )
    plane.run(41)
    moved = 0
    for origin in origins:
        after = firsts(plane, origin)
        for relay in TWELVE:
            if after[relay] != before[origin][relay]:
                moved += 1
                # To the one who joined, or from a head that it took the place of.
                assert after[relay] == "fra-13" or before[origin][relay] not in heads(plane, origin)
    assert 0 < moved <= 0.25 * len(origins) * len(TWELVE)


def test_a_dead_heads_edges_ask_the_other_one_at_once_and_get_a_second_in_time() -> None:
    plane = world()
    dead, other = sorted(heads(plane, "hkg-1"))
    plane.mesh.silent.add(dead)
    plane.run(3)
    assert heads(plane, "hkg-1") == {other}
    assert all(first == other for name, first in firsts_alive(plane, dead) if name != other)
    plane.run(20)
    two = heads(plane, "hkg-1") - {dead}
    assert other in two and len(two) == 2


def firsts_alive(plane: Plane, *dead: str) -> list[tuple[str, str]]:
    return [
        (name, first)
        for name, first in firsts(plane, "hkg-1").items()
        if plane.mesh.regions[name] == "fra" and name not in dead
    ]


@pytest.mark.parametrize("what", ["draining", "full", "lossy"])
def test_a_head_that_should_not_be_one_is_replaced(what: str) -> None:
    plane = world()
    ill, other = sorted(heads(plane, "hkg-1"))
    if what == "draining":
        plane.mesh.stage[ill] = "draining"
    elif what == "full":
        plane.mesh.load[ill] = 0.99
    else:
        # Everything from outside comes to it 45 ms later.
        for one in plane.mesh.regions:
            if WORLD[one] != "fra":
                plane.mesh.rtt_ms[one, ill] = plane.mesh.rtt_ms[ill, one] = 280.0
    plane.run(21)
    assert what == "draining" or heads(plane, "hkg-1") == {ill, other}
    plane.run(20)
    two = heads(plane, "hkg-1")
    assert other in two
    if what == "full":
        # It stays where it is: a region that fills up needs its tree most.
        assert ill in two
    else:
        assert len(two - {ill}) == 2
        assert ill not in {first for name, first in firsts_alive(plane, ill)}


def test_everybody_goes_directly_where_nobody_may_be_a_head() -> None:
    plane = Plane(WORLD)
    lay(plane)
    for name in TWELVE:
        plane.mesh.load[name] = 0.99
    plane.run(31)
    assert set(dict(firsts_alive(plane)).values()) == {"hkg-1"}


def test_flapping_links_move_no_pair_twice_in_ten_seconds() -> None:
    plane = world()
    links = [(one, other) for one in WORLD for other in WORLD if one != other]
    before = {pair: plane.ways(*pair)[0][0] for pair in links}
    changed_at: dict[tuple[str, str], list[float]] = {}
    for second in range(90):
        for phase in (0, 1):
            for number, link in enumerate(links[::10]):
                plane.mesh.state[link] = "bad" if (second + number + phase) % 2 == 0 and second < 50 else "up"
            if plane.run(0.5):
                for pair in links:
                    if (now := plane.ways(*pair)[0][0]) != before[pair]:
                        changed_at.setdefault(pair, []).append(plane.mesh.now)
                        before[pair] = now
    assert changed_at
    assert all(later - earlier >= 10 for moments in changed_at.values() for earlier, later in pairwise(moments))


# --- Whatever happens ---


class Chance:
    """Relays in regions, links that go bad and come back, deaths; not all of a region are neighbours."""

    def __init__(self, seed: int, sizes: list[int]) -> None:
        self.dice = np.random.default_rng(seed)
        self.regions = tuple(f"region-{number}" for number, size in enumerate(sizes) for _ in range(size))
        self.ids = tuple(f"relay-{number}" for number in range(len(self.regions)))
        size = len(self.ids)
        place = np.array([int(region[7:]) for region in self.regions])
        apart = np.abs(self.dice.integers(10, 200, (len(sizes), len(sizes))))[np.ix_(place, place)]
        cost = np.where(place[:, None] == place, 1.0, apart) + self.dice.random((size, size)) * 8
        self.paths = Paths(quantised(cost, 4000.0), quantised(np.full(size, 3.0), 2000.0), labels_of(self.regions))
        self.cost = cost
        self.routes = Routes(RouteSettings())
        linked = self.dice.random((size, size)) < 0.7
        self.alive = np.ones(size, np.bool_)
        self.steady = np.ones(size, np.bool_)
        self.linked = linked | linked.T
        self.trees = Trees(TreeSettings())
        self.now = 0.0
        self.step(cycle=True)

    def step(self, *, cycle: bool, links: np.ndarray | None = None, removed: np.ndarray | None = None) -> None:
        done = finish(self.routes.adapt(self.paths, self.ids, self.now, cycle=cycle, links=links, removed=removed))
        assert not done.fault
        free = self.steady & self.alive
        ground = Ground(self.ids, self.regions, self.linked, self.alive, self.steady, free)
        before = Ways(*(field.copy() for field in self.trees.ways))
        told = finish(
            self.trees.adapt(self.paths, ground, self.routes.ways, done.changed, self.now, cycle=cycle, links=links)
        )
        if before.hop.shape == self.trees.ways.hop.shape:
            same = [(one == other).all(axis=0) for one, other in zip(before[:2], self.trees.ways[:2])]
            assert (same[0] & same[1] | told).all(), "changed, and not told of"
        self.check()
        self.check_first_ways(np.ones_like(told) if cycle or links is None else links)
        if cycle:
            self.check_nobody_goes_over_an_edge()

    def check(self) -> None:
        ways, parents, heads = self.trees.ways, self.trees._parents, self.trees._heads
        size = len(self.ids)
        origin, relay = np.indices((size, size))
        there = ways.cost < NO_WAY
        assert not there[:, origin == relay].any()
        assert not (there & ((ways.hop == origin + 1) | (ways.hop == relay + 1))).any(), "a next hop that is an end"
        assert not (there & (ways.via > 0) & ((ways.via == ways.hop) | (ways.via == relay + 1))).any()
        assert (there[1:] <= there[:-1]).all(), "no holes"
        for one in range(CANDIDATES):
            for other in range(one):
                assert not (there[one] & there[other] & (ways.hop[one] == ways.hop[other])).any(), "a next hop twice"
        for parent in parents:
            at = np.nonzero(parent)
            assert heads[at[0], parent[at] - 1].all() and self.linked[parent[at] - 1, at[1]].all()
            regions = np.array(self.regions)
            assert (regions[parent[at] - 1] == regions[at[1]]).all() and (regions[at[0]] != regions[at[1]]).all()

    def check_first_ways(self, looked_at: np.ndarray) -> None:
        """Nobody is told to ask a head that cannot be asked, or that has no way itself, unless it moved just now.

        `looked_at`: links that changed, [head, relay]. Who may move again by now does so in the next cycle.
        """
        own, told = self.routes.ways, self.trees.ways
        over = (told.cost[0] < NO_WAY) & (told.hop[0] != own.hop[0])
        resting = (self.now - self.trees._moved_at < 10.0) & (self.now >= 25.0)
        held = resting & self.alive[told.hop[0] - 1]
        origin, relay = (index.astype(np.int32) for index in np.nonzero(over & ~held))
        head = told.hop[0, origin, relay] - 1
        there = ~looked_at[head, relay] | (told.cost[0, origin, head] < NO_WAY)
        here = ~looked_at[head, relay] | (
            self.paths.cost_of(head, relay, np.zeros_like(head), np.zeros_like(head)) < NO_WAY
        )
        assert (there & here).all()

    def check_nobody_goes_over_an_edge(self) -> None:
        """Nobody who is none, that is: an edge that finds its heads too far goes its own way, whatever that is."""
        told, heads, parents = self.trees.ways, self.trees._heads, self.trees._parents
        origin, relay = np.nonzero((told.cost[0] < NO_WAY) & (told.hop[0] > 0) & (heads | (parents[0] == 0)))
        over = told.hop[0, origin, relay] - 1
        is_edge = (
            ~heads[origin, over]
            & (told.hop[0, origin, over] == parents[0, origin, over])
            & (parents[0, origin, over] > 0)
        )
        resting = (self.now - self.trees._moved_at[origin, relay] < 10.0) & (self.now >= 25.0)
        assert not (is_edge & ~resting).any()

    def event(self, kind: int) -> None:
        size = len(self.ids)
        links, removed = np.zeros((size, size), np.bool_), np.zeros(size, np.bool_)
        if kind == 0 and self.alive.sum() > 4:
            gone = int(self.dice.choice(np.flatnonzero(self.alive)))
            self.paths.remove(gone)
            removed[gone], self.alive[gone] = True, False
        else:
            for _ in range(3):
                sender, receiver = self.dice.integers(0, size, 2)
                if sender == receiver or not (self.alive[sender] and self.alive[receiver]):
                    continue
                bad = self.dice.random() < 0.5
                cost = np.array([np.inf if bad else self.cost[sender, receiver] * (1 + self.dice.random())])
                self.paths.set_link(int(sender), int(receiver), int(quantised(cost, 4000.0)[0]))
                links[sender, receiver] = True
        self.step(cycle=False, links=links, removed=removed)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.lists(st.integers(0, 5), max_size=12)
)
def test_nothing_is_overlooked_between_cycles(seed: int, sizes: list[int], events: list[int]) -> None:
    chance = Chance(seed, sizes)
    for kind in events:
        chance.now += 1.7
        if kind == 5:
            chance.now += 6.0
            chance.step(cycle=True)
        else:
            chance.event(kind)


def test_who_is_gone_over_and_has_no_head_to_stand_in_is_made_one() -> None:
    chance = Chance(1, [1, 5, 1])
    chance.linked[:] = True
    chance.step(cycle=True)
    edges = [relay for relay in range(1, 6) if chance.trees.place(0, relay) == "edge"]
    assert len(edges) == 3
    # The last relay is neighbour of one of the edges only, and that is its best way.
    chance.linked[6], chance.linked[:, 6] = False, False
    chance.linked[6, edges[0]] = chance.linked[edges[0], 6] = True
    for other in {0, *range(1, 6)} - {edges[0]}:
        chance.paths.set_link(other, 6, NO_WAY)
    chance.now = 10.0
    chance.step(cycle=True)
    assert chance.trees.ways.hop[0, 0, 6] == edges[0] + 1
    assert chance.trees.place(0, edges[0]) == "head" and chance.trees.ways.hop[0, 0, edges[0]] == 0
    assert [chance.trees.place(0, edge) for edge in edges[1:]] == ["edge", "edge"]


def test_a_pair_whose_link_to_its_head_flaps_moves_once_in_ten_seconds() -> None:
    chance = Chance(1, [5, 2])
    chance.linked[:] = True
    chance.now = 10.0
    chance.step(cycle=True)
    size = len(chance.ids)
    origin, edge = next((o, r) for o, r in np.ndindex(size, size) if chance.trees.place(o, r) == "edge")
    head = int(chance.trees.ways.hop[0, origin, edge]) - 1
    links = np.zeros((size, size), np.bool_)
    links[head, edge] = True
    moved_at, first = [], head + 1
    for second in range(30, 90):
        chance.now = float(second)
        cost = np.array([np.inf if second % 2 and second < 70 else chance.cost[head, edge]])
        chance.paths.set_link(head, edge, int(quantised(cost, 4000.0)[0]))
        chance.step(cycle=second % 10 == 0, links=links)
        if (now := int(chance.trees.ways.hop[0, origin, edge])) != first:
            moved_at.append(chance.now)
            first = now
    assert len(moved_at) > 2 and first == head + 1
    assert all(later - earlier >= 10.0 for earlier, later in pairwise(moved_at))


def test_controllers_choose_the_same_heads_from_the_same_evidence() -> None:
    """One that has just begun, and one that has seen relays come and go."""
    plane = world({name: region for name, region in WORLD.items() if name not in {"fra-3", "fra-7"}})
    for number, name in enumerate(("fra-3", "fra-7"), 50):
        plane.mesh.regions[name] = "fra"
        lay(plane)
        found = plane.mesh.registry.receive_hello(name, "fra", hello(number), plane.mesh.now)
        plane.topology.receive(found, plane.mesh.now)
        plane.run(31)
    fresh = Topology("test", TopologySettings())
    fresh.handle_deadline(plane.mesh.registry, plane.shared, plane.mesh.now, 1e9)
    fresh.receive_change(plane.mesh.now)
    due = fresh.next_deadline()
    assert due is not None
    fresh.handle_deadline(plane.mesh.registry, plane.shared, max(due, plane.mesh.now), 1e9)
    for origin in ("hkg-1", "sin-1", "iad-1"):
        for name in TWELVE:
            tables = fresh.tables(name)
            assert tables is not None
            (route,) = [route for route in tables.now.routes if route.origin == origin]
            assert route.candidates[0].next_hop == plane.ways(name, origin)[0][0]
