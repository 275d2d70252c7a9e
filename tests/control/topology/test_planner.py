"""A registry and a topology over time: tables, deltas' two ends, faults, explanations, and the flap storm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from control.registry.values import AlarmKind, Event, EventKind
from control.topology.planner import Outcome, Topology, TopologySettings
from control.topology.schedule import Due
from control.topology.tables import UNREACHED_MS, Shared
from control.topology.weights import Priors
from tests.control.mesh import Mesh, hello
from tradewind.contract.messages import MarketEntry, Route, RouteTable

SIX = {"a1": "eu", "a2": "eu", "b1": "us", "b2": "us", "c1": "sa", "c2": "sa"}


class Plane:
    """What the plane does with both, every tenth of a second."""

    def __init__(self, regions: dict[str, str] | None = None, priors: Priors | None = None) -> None:
        self.mesh = Mesh(regions or SIX)
        self.topology = Topology("test", TopologySettings(), priors)
        self.shared = Shared(term=3)
        self.outcomes: list[Outcome] = []
        self.topology.receive(self.mesh.findings, self.mesh.now)

    def run(self, seconds: float, step_s: float = 0.5) -> list[Outcome]:
        done = []
        for _ in range(round(seconds / step_s)):
            self.topology.receive(self.mesh.run(step_s, step_s), self.mesh.now)
            due = self.topology.next_deadline()
            if due is not None and due <= self.mesh.now:
                done.append(self.topology.handle_deadline(self.mesh.registry, self.shared, self.mesh.now, 1e9))
        self.outcomes += done
        return done

    def table(self, relay: str) -> RouteTable:
        found = self.topology.tables(relay)
        assert found is not None
        return found.now

    def route(self, relay: str, origin: str) -> Route:
        (found,) = [route for route in self.table(relay).routes if route.origin == origin]
        return found

    def ways(self, relay: str, origin: str) -> list[tuple[str, ...]]:
        return [(way.next_hop, *way.through) for way in self.route(relay, origin).candidates]


def test_everybody_gets_a_whole_table_every_ten_seconds() -> None:
    plane = Plane()
    first, *rest = plane.run(31)
    assert first.due is Due.CYCLE and first.changed == tuple(sorted(SIX))
    assert [outcome.changed for outcome in rest] == [first.changed] * 3
    assert plane.topology.generation == 4
    table = plane.table("a1")
    assert (table.mesh, table.relay, table.term, table.generation) == ("test", "a1", 3, 4)
    assert [entry.id for entry in table.relays] == sorted(SIX)
    assert [route.origin for route in table.routes] == sorted(SIX.keys() - {"a1"})
    assert set(table.neighbours) == SIX.keys() - {"a1"}


def test_candidates_are_three_and_of_different_regions() -> None:
    plane = Plane()
    plane.run(1)
    assert plane.ways("b1", "a1") == [("a1",), ("c1",), ("a2",)]
    assert plane.ways("a2", "a1") == [("a1",), ("c1",), ("b1",)]


def test_a_bad_link_changes_only_tables_of_those_who_use_it() -> None:
    plane = Plane()
    plane.run(12)
    before = plane.table("b1")
    plane.mesh.state["a1", "b1"] = "bad"
    outcomes = plane.run(1)
    assert [outcome.due for outcome in outcomes] == [Due.EVENT]
    assert "b1" in outcomes[0].changed and "a1" not in outcomes[0].changed
    assert plane.ways("b1", "a1")[0] != ("a1",)
    assert plane.ways("a1", "b1")[0] == ("b1",)
    plane.mesh.state.clear()
    found = plane.topology.tables("b1")
    assert found is not None and found.before is found.now is not before
    kept = {id(route) for route in before.routes}
    used = {route.origin for route in before.routes if any(way.next_hop == "a1" for way in route.candidates)}
    assert {route.origin for route in found.now.routes if id(route) not in kept} == used != set()


def test_both_ends_of_a_delta_are_there_once() -> None:
    plane = Plane()
    plane.run(1)
    first = plane.topology.tables("a1")
    assert first is not None and first.before is None
    plane.run(10)
    second = plane.topology.tables("a1")
    assert second is not None and second.before is first.now
    assert second.now.generation == second.before.generation + 1
    assert plane.topology.tables("stranger") is None


def test_a_dead_relay_leaves_all_tables_at_once() -> None:
    plane = Plane()
    plane.run(12)
    plane.mesh.silent.add("a1")
    outcomes = plane.run(3)
    assert any(outcome.due is Due.EVENT and len(outcome.changed) == 5 for outcome in outcomes)
    for relay in SIX.keys() - {"a1"}:
        table = plane.table(relay)
        assert "a1" not in {entry.id for entry in table.relays} | {route.origin for route in table.routes}
        assert all("a1" not in (way.next_hop, *way.through) for route in table.routes for way in route.candidates)
    assert plane.topology.tables("a1") is None
    assert all(not outcome.alarms for outcome in outcomes)


def test_nobody_is_sent_over_a_relay_that_drains() -> None:
    plane = Plane()
    plane.mesh.rtt_ms["a1", "b1"] = 300.0
    plane.run(1)
    over = plane.ways("b1", "a1")[0][0]
    assert over != "a1"
    plane.mesh.stage[over] = "draining"
    plane.run(1)
    assert plane.ways("b1", "a1")[0] != (over,)
    assert plane.ways("b1", over)[0] == (over,)


def test_who_cannot_be_reached_is_tried_directly_and_told_of() -> None:
    plane = Plane({"a": "eu", "b": "us"})
    plane.mesh.state["a", "b"] = "bad"
    plane.run(1)
    outcomes = plane.run(10)
    assert [(way.next_hop, way.cost_ms) for way in plane.route("b", "a").candidates] == [("a", UNREACHED_MS)]
    assert [alarm.kind for outcome in outcomes for alarm in outcome.alarms] == [AlarmKind.NO_PATH]


def test_a_liar_does_not_draw_traffic() -> None:
    """A relay that calls all its links short and clean has no better ones for it."""
    plane = Plane()
    for other in SIX:
        plane.mesh.rtt_ms["c1", other] = plane.mesh.rtt_ms[other, "c1"] = 400.0
    honest = plane.mesh.report_of

    def report_of(relay: str) -> Any:
        found = honest(relay)
        if relay != "c1":
            return found
        return replace(found, links=tuple(replace(link, rtt_ms=0.1, loss_ratio=0.0) for link in found.links))

    plane.mesh.report_of = report_of
    plane.run(12)
    assert all(plane.ways(relay, origin)[0] == (origin,) for relay in SIX for origin in SIX if relay != origin)


def test_a_new_term_begins_anew() -> None:
    plane = Plane()
    plane.run(31)
    plane.shared = Shared(term=4)
    plane.run(10)
    table = plane.table("a1")
    assert (table.term, table.generation) == (4, 1)


def test_what_the_plane_puts_in_changes_all_tables() -> None:
    plane = Plane()
    plane.run(1)
    plane.shared = Shared(term=3, placement_keys=("{}",))
    plane.topology.receive_change(plane.mesh.now)
    (outcome,) = plane.run(0.5)
    assert (outcome.due, outcome.changed) == (Due.EVENT, tuple(sorted(SIX)))
    assert plane.table("c2").placement_keys == ("{}",)


def test_load_is_no_news_between_cycles() -> None:
    plane = Plane()
    plane.run(1)
    plane.mesh.load["a1"] = 0.5
    plane.mesh.state["c1", "b2"] = "bad"
    (outcome,) = plane.run(1)
    assert "a1" not in outcome.changed
    assert next(entry.load for entry in plane.table("b2").relays if entry.id == "a1") == 0.1
    plane.run(10)
    assert next(entry.load for entry in plane.table("a2").relays if entry.id == "a1") == 0.5


def test_a_route_is_explained_to_the_last_part() -> None:
    plane = Plane(priors=Priors(usd_per_gb={("eu", "us"): 0.02}))
    plane.mesh.rtt_ms["a1", "b1"] = 300.0
    plane.run(31)
    plane.mesh.load["c1"] = 0.8
    plane.mesh.rtt_ms["a1", "b1"] = 20.0
    plane.run(20)
    found = plane.topology.explain("b1", "a1", plane.mesh.now)
    assert found is not None and found.cheapest is not None
    assert (found.relay, found.origin, found.generation, found.cause) == ("b1", "a1", 6, "first")
    assert (found.better_cycles, found.cycles_wanted, found.moved_age_s) == (2, 3, float("inf"))
    assert [(way.next_hop, *way.through) for way in found.candidates] == plane.ways("b1", "a1")
    assert (found.cheapest.next_hop, found.cheapest.cost_ms) == ("a1", 11.0)
    for way in (*found.candidates, found.cheapest):
        parts = sum(link.parts.cost_ms for link in way.links) + sum(sum(relay.parts) for relay in way.relays)
        assert abs(parts - way.cost_ms) < 0.25
        assert [link.sender for link in way.links] == ["a1", *(relay.relay for relay in way.relays)]
        assert [link.receiver for link in way.links] == [*(relay.relay for relay in way.relays), "b1"]
        assert all(link.parts.measured and link.parts.age_s < 1 for link in way.links)
    assert plane.topology.explain("b1", "b1", 0.0) is None
    assert plane.topology.explain("b1", "stranger", 0.0) is None


def test_a_storm_of_flaps_moves_no_pair_twice_in_ten_seconds() -> None:
    """T13: every tenth link up and down once a second, for two minutes; afterwards all come back."""
    regions = {f"r{number}": f"region{number % 5}" for number in range(10)}
    plane = Plane(regions)
    plane.run(36)
    links = [(one, other) for one in regions for other in regions if one != other]
    changed_at: dict[tuple[str, str], list[float]] = {}
    before = {pair: plane.ways(*pair)[0] for pair in links}
    for second in range(240):
        for phase in (0, 1):
            for number, link in enumerate(links[::10]):
                plane.mesh.state[link] = "bad" if (second + number + phase) % 2 == 0 and second < 120 else "up"
            if plane.run(0.5):
                for pair in links:
                    if (now := plane.ways(*pair)[0]) != before[pair]:
                        changed_at.setdefault(pair, []).append(plane.mesh.now)
                        before[pair] = now
    assert changed_at
    for moments in changed_at.values():
        assert len(moments) <= 2
        assert all(later - earlier >= 10 for earlier, later in pairwise(moments))


def test_what_placement_needs_stands_in_every_table() -> None:
    """Relays' own keys and the market rules: without them relays admit nobody and serve everybody."""
    plane = Plane({"a": "eu", "b": "us"})
    key = bytes(range(32))
    plane.mesh.registry.receive_hello("a", "eu", hello(1, placement_key=key), plane.mesh.now)
    markets = (MarketEntry("DE", ("eu",)),)
    plane.shared = Shared(term=3, markets=markets)
    plane.run(1)
    table = plane.table("b")
    assert table.markets == markets
    assert {entry.id: entry.placement_key for entry in table.relays} == {"a": key, "b": b""}
    other = bytes(reversed(range(32)))
    plane.mesh.registry.receive_hello("a", "eu", hello(1, placement_key=other), plane.mesh.now)
    plane.topology.receive_change(plane.mesh.now)
    plane.run(1)
    assert {entry.id: entry.placement_key for entry in plane.table("b").relays}["a"] == other


def test_a_computation_in_steps_changes_nothing_before_its_end_and_ends_as_one_at_once() -> None:
    whole, steps = Plane(), Plane()
    for plane in (whole, steps):
        plane.run(5)
        plane.mesh.state["a1", "b1"] = "bad"
        plane.topology.receive(plane.mesh.run(6.0, 0.5), plane.mesh.now)
    now, before = steps.mesh.now, steps.table("b1")
    assert whole.topology.handle_deadline(whole.mesh.registry, whole.shared, now, 1e9).due is Due.CYCLE
    computing = steps.topology.compute(steps.mesh.registry, steps.shared, now, 1e9)
    taken = 0
    with pytest.raises(StopIteration) as ended:
        while True:
            next(computing)
            taken += 1
            assert steps.table("b1") is before
            if taken == 3:
                # What is found in the meantime is for the next one.
                steps.topology.receive((Event(EventKind.DIED, "c1"),), now)
    assert taken > 8 and ended.value.value.due is Due.CYCLE
    assert steps.table("b1") != before
    for relay in steps.mesh.regions:
        assert steps.table(relay) == whole.table(relay)
    due = steps.topology.next_deadline()
    assert due is not None and due < now + 1.0
