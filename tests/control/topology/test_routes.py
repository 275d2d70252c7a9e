"""When pairs move: hysteresis, bounds, rests, relays that go; and what may never be published."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.topology.paths import MAX_LINK_MS, MAX_RELAY_MS, NO_WAY, Paths, Ways, finish, quantised
from control.topology.routes import Cause, Routes, RouteSettings, fault_of

IDS = ("a", "b", "c", "d")
SETTLED = RouteSettings(new_s=0.0)
"""Of pairs that are not new."""


def paths(links_ms, labels=(0, 0, 1, 2)) -> Paths:
    size = len(links_ms)
    links = quantised(np.array(links_ms, np.float64), MAX_LINK_MS)
    return Paths(links, quantised(np.full(size, 3.0), MAX_RELAY_MS), np.array(labels[:size], np.int32))


def flat(ms: float = 50.0, size: int = 4) -> np.ndarray:
    links = np.full((size, size), ms)
    np.fill_diagonal(links, np.inf)
    return links


def hop(routes: Routes, origin: int, relay: int) -> int:
    return int(routes.ways.hop[0, origin, relay])


def test_a_first_way_is_the_cheapest() -> None:
    routes = Routes(SETTLED)
    links = flat()
    links[0, 3] = 200
    step = finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    assert (step.first, step.better, step.bad, step.fault) == (12, 0, 0, "")
    assert hop(routes, 0, 3) == 2
    assert step.changed.sum() == 12
    assert finish(routes.adapt(paths(links), IDS, 10.0, cycle=True)).changed.sum() == 0


def test_a_better_way_is_taken_after_three_cycles() -> None:
    routes = Routes(SETTLED)
    finish(routes.adapt(paths(flat()), IDS, 0.0, cycle=True))
    links = flat()
    links[0, 3] = 200
    moved = [finish(routes.adapt(paths(links), IDS, 10.0 * n, cycle=True)).better for n in range(1, 5)]
    assert moved == [0, 0, 1, 0]
    assert Cause(routes.standing(0, 3, 40.0).cause) is Cause.BETTER
    assert routes.standing(0, 3, 40.0).moved_age_s == 10.0


def test_what_moved_rests_even_from_better_ways() -> None:
    routes = Routes(RouteSettings(cycles=1, new_s=0.0))
    links = flat()
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    links[0, 3] = 200
    assert finish(routes.adapt(paths(links), IDS, 1.0, cycle=True)).better == 1
    assert [finish(routes.adapt(paths(flat()), IDS, now, cycle=True)).better for now in (2.0, 10.9, 11.0)] == [0, 0, 1]


def test_only_cycles_count_and_only_on_end() -> None:
    routes = Routes(SETTLED)
    slow = flat()
    slow[0, 3] = 200
    finish(routes.adapt(paths(flat()), IDS, 0.0, cycle=True))
    for n, (links, cycle) in enumerate(
        [(slow, True), (slow, True), (slow, False), (flat(), True), (slow, True), (slow, True)]
    ):
        assert finish(routes.adapt(paths(links), IDS, 10.0 + n, cycle=cycle)).better == 0
    assert routes.standing(0, 3, 20.0).better_cycles == 2


@pytest.mark.parametrize(("direct_ms", "moves"), [(107.9, False), (109.0, False), (115.0, True)])
def test_a_tenth_and_five_milliseconds(direct_ms, moves) -> None:
    links = flat()
    routes = Routes(SETTLED)
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    links[0, 3] = direct_ms  # 103 over a relay: a tenth of the direct way's cost is 11 ms
    better = sum(finish(routes.adapt(paths(links), IDS, 10.0 * n, cycle=True)).better for n in range(1, 5))
    assert bool(better) == moves
    tiny = np.where(np.isinf(flat()), np.inf, 0.5)
    finish(routes.adapt(paths(tiny), IDS, 100.0, cycle=True))
    tiny[1, 2] = 7.0  # 4 ms over a relay: more than a tenth better, but less than 5 ms
    assert sum(finish(routes.adapt(paths(tiny), IDS, 100 + 10.0 * n, cycle=True)).better for n in range(1, 5)) == 0


def test_what_is_bad_moves_at_once_then_rests() -> None:
    routes = Routes(SETTLED)
    links = flat()
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    links[0, 3] = np.inf
    step = finish(routes.adapt(paths(links), IDS, 1.0, cycle=False))
    assert (step.bad, step.better, hop(routes, 0, 3)) == (1, 0, 2)
    links[1, 3] = np.inf  # over which it goes now, and 1 -> 3 itself
    step = finish(routes.adapt(paths(links), IDS, 2.0, cycle=False))
    assert (step.bad, step.resting, hop(routes, 0, 3)) == (1, 1, 2)
    assert routes.ways.hop[1, 0, 3] == 3  # its spare
    assert finish(routes.adapt(paths(links), IDS, 10.9, cycle=False)).resting == 1
    assert finish(routes.adapt(paths(links), IDS, 11.0, cycle=False)).bad == 1
    assert hop(routes, 0, 3) == 3


def test_where_nothing_can_be_used_the_plan_stays() -> None:
    routes = Routes(SETTLED)
    links = flat()
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    links[:, 3] = np.inf
    step = finish(routes.adapt(paths(links), IDS, 20.0, cycle=True))
    assert (step.bad, step.pathless, step.fault) == (0, 3, "")
    assert hop(routes, 0, 3) == 0 and routes.ways.cost[0, 0, 3] < NO_WAY


def test_few_pairs_move_in_a_cycle_and_the_biggest_gains_first() -> None:
    size = 40
    ids = [f"r{n:02}" for n in range(size)]
    rng = np.random.default_rng(3)
    links = rng.uniform(20, 60, (size, size))
    np.fill_diagonal(links, np.inf)
    routes = Routes(SETTLED)
    labels = np.arange(size) // 8
    finish(routes.adapt(paths(links, labels), ids, 0.0, cycle=True))
    links[:5] *= 4
    most = int(0.02 * size * (size - 1))
    gains = []
    for n in range(1, 9):
        computed = paths(links, labels)
        before = routes.ways
        step = finish(routes.adapt(computed, ids, 10.0 * n, cycle=True))
        assert step.better <= most and not step.fault
        if n > 2 and step.better:
            differs = (before.hop[0] != routes.ways.hop[0]) | (before.via[0] != routes.ways.via[0])
            origin, relay = (index.astype(np.int32) for index in np.nonzero(differs))
            cost = computed.cost_of(origin, relay, before.hop[0, origin, relay], before.via[0, origin, relay])
            gains.append(cost - computed.cheapest().cost[origin, relay])
            assert (step.waiting > 0) == (step.better == most) or step.waiting == 0
    assert len(gains) > 1
    assert all(earlier.min() >= later.max() for earlier, later in pairwise(gains))


def test_a_relay_that_dies_moves_who_went_over_it_even_at_rest() -> None:
    routes = Routes(SETTLED)
    links = flat()
    links[0, 3] = np.inf
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    links[0, 3] = 50
    assert hop(routes, 0, 3) == 2
    known = paths(links)
    known.remove(1)
    removed = np.array([False, True, False, False])
    step = finish(routes.adapt(known, IDS, 1.0, cycle=False, removed=removed))
    assert (step.gone, hop(routes, 0, 3)) == (1, 0)
    assert Cause(routes.standing(0, 3, 1.0).cause) is Cause.GONE


def test_relays_come_and_go_and_others_keep_their_ways() -> None:
    routes = Routes(SETTLED)
    links = flat()
    links[0, 3] = links[1, 3] = 200  # both go over c
    finish(routes.adapt(paths(links), IDS, 0.0, cycle=True))
    assert hop(routes, 0, 3) == hop(routes, 1, 3) == 3
    fewer = np.delete(np.delete(links, 1, 0), 1, 1)
    step = finish(routes.adapt(paths(fewer, (0, 1, 2)), ("a", "c", "d"), 10.0, cycle=True))
    assert (step.gone, step.first, step.better) == (0, 0, 0)
    assert hop(routes, 0, 2) == 2
    fewest = fewer[np.ix_([0, 2], [0, 2])]
    step = finish(routes.adapt(paths(fewest, (0, 2)), ("a", "d"), 20.0, cycle=True))
    assert (step.gone, hop(routes, 0, 1)) == (1, 0)
    step = finish(routes.adapt(paths(links), IDS, 30.0, cycle=True))
    assert step.first == 10 and hop(routes, 0, 3) == 0


def fault(ways: Ways, origin: int = 0, relay: int = 3) -> str:
    return fault_of(np.array([origin], np.int32), np.array([relay], np.int32), ways, 4)


@pytest.mark.parametrize(
    ("field", "rank", "value", "said"),
    [
        ("hop", 1, 1, "ends"),
        ("hop", 1, 4, "ends"),
        ("via", 1, 1, "ends"),
        ("via", 1, 2, "twice"),
        ("via", 0, 2, "twice"),
        ("via", 1, 3, "over one relay"),
        ("hop", 2, 2, "over one relay"),
        ("hop", 2, 0, "over one relay"),
        ("hop", 2, 5, "twice"),
        ("cost", 0, NO_WAY, "without a first"),
    ],
)
def test_what_may_not_be_published(field, rank, value, said) -> None:
    ways = Ways(
        *(np.array([[one], [two], [three]], np.int32) for one, two, three in ((0, 2, 3), (0, 0, 0), (16, 16, 16)))
    )
    assert fault(ways) == ""
    assert "itself" in fault(ways, 3, 3)
    getattr(ways, field)[rank] = value
    assert said in fault(ways)


def everything(ways: Ways) -> str:
    size = ways.hop.shape[1]
    origin, relay = (index.ravel() for index in np.indices((size, size), np.int32))
    return fault_of(origin, relay, Ways(*(field.reshape(3, -1) for field in ways)), size)


def test_a_plan_with_a_fault_is_not_taken(monkeypatch) -> None:
    routes = Routes(SETTLED)
    finish(routes.adapt(paths(flat()), IDS, 0.0, cycle=True))
    links = flat()
    links[0, 3] = np.inf
    monkeypatch.setattr("control.topology.routes.fault_of", lambda *_: "wrong")
    before = routes.ways
    assert finish(routes.adapt(paths(links), IDS, 1.0, cycle=False)).fault == "wrong"
    assert routes.ways is before


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(max_examples=12, deadline=None)
def test_whatever_happens_plans_hold_and_pairs_move_seldom(seed, size) -> None:
    """A twin that is not told which links changed, and looks at all, has the same plan."""
    rng = np.random.default_rng(seed)
    routes, twin, now, labels = Routes(SETTLED), Routes(SETTLED), 0.0, np.sort(rng.integers(0, 3, size))
    moved_at: dict[tuple[int, ...], float] = {}
    links = rng.uniform(1, 100, (size, size))
    ids = [str(number) for number in range(size)]
    for n in range(20):
        at = rng.integers(size), rng.integers(size)
        links[at] = np.inf if rng.random() < 0.5 else rng.uniform(1, 200)
        touched = np.zeros((size, size), np.bool_)
        touched[at] = True
        now += float(rng.choice([0.2, 1.0, 10.0]))
        before, known, cycle = routes.ways, paths(links, labels), n % 3 == 0
        step = finish(routes.adapt(known, ids, now, cycle=cycle, links=touched))
        other = finish(twin.adapt(known, ids, now, cycle=cycle))
        assert step[1:5] == other[1:5] and (step.changed == other.changed).all()
        assert all(np.array_equal(one, two) for one, two in zip(routes.ways, twin.ways, strict=True))
        assert step.fault == everything(routes.ways) == ""
        assert step.better <= max(1, int(0.02 * size * (size - 1)))
        differs = (before.hop[0] != routes.ways.hop[0]) | (before.via[0] != routes.ways.via[0]) if n else step.changed
        assert not (differs & ~step.changed).any()
        had = before.cost[0] < NO_WAY if n else np.zeros_like(differs)
        for pair in map(tuple, np.argwhere(differs & had).tolist()):
            assert now - moved_at.get(pair, -99.0) >= 10.0
            moved_at[pair] = now


def test_what_is_new_gets_what_is_better_in_the_next_cycle_and_all_at_once() -> None:
    routes = Routes(RouteSettings())
    coming_up = flat()
    coming_up[0, 1] = coming_up[1, 0] = coming_up[2, 3] = 200
    finish(routes.adapt(paths(coming_up), IDS, 0.0, cycle=True))
    assert finish(routes.adapt(paths(flat()), IDS, 5.0, cycle=False)).better == 0, "events look at what broke"
    step = finish(routes.adapt(paths(flat()), IDS, 10.0, cycle=True))
    assert (step.better, step.fault) == (3, ""), "one would be the 2 % of those that are not new"
    later = flat()
    later[0, 3] = 200
    moved = [finish(routes.adapt(paths(later), IDS, 10.0 * n, cycle=True)).better for n in range(3, 8)]
    assert moved == [0, 0, 1, 0, 0], "and is patient afterwards"
