"""`Paths` against a slow obvious twin, anew and after changes, on small graphs with ties, missing links and regions."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.topology.paths import (
    INDEX_BITS,
    MAX_LINK_MS,
    MAX_RELAY_MS,
    NO_WAY,
    Paths,
    Ways,
    labels_of,
    milliseconds,
    quantised,
)


class Way(NamedTuple):
    """In the order in which ways are preferred."""

    cost: int
    hop: int
    via: int


Map = tuple[list[list[int]], list[int], list[int]]


def twin(links: list[list[int]], relays: list[int], labels: list[int], origin: int, relay: int) -> list[Way | None]:
    """Three ways from origin to relay, as the module's text says, by looking at all."""
    everybody = range(len(relays))

    def one(start: int, hop: int, end: int) -> int:
        usable = hop not in {start, end} and start != end
        return min(NO_WAY, links[start][hop] + relays[hop] + links[hop][end]) if usable else NO_WAY

    def crossings(way: Way) -> set[object]:
        ends = {labels[origin], labels[relay]}
        found: set[object] = {labels[index - 1] for index in (way.hop, way.via) if index}
        if len(ends) == 1:
            return found or {"direct"}
        return {"direct" if label in ends else label for label in found} or {"direct"}

    def nodes(way: Way) -> set[int]:
        return {index for index in (way.hop, way.via) if index} or {0}

    direct = Way(links[origin][relay], 0, 0)
    short = [direct] + [Way(one(origin, hop, relay), hop + 1, 0) for hop in everybody]
    short = sorted(way for way in short if way.cost < NO_WAY)
    long = []
    for hop in everybody:
        cost, via = min((one(origin, via, hop), via) for via in everybody)
        if hop in {origin, relay} or cost >= min(links[origin][hop], NO_WAY) or links[hop][relay] >= NO_WAY:
            continue
        if (whole := cost + relays[hop] + links[hop][relay]) < NO_WAY:
            long.append(Way(whole, hop + 1, via + 1))
    long = sorted(long)
    all_long = (
        (links[origin][via] + relays[via] + links[via][hop] + relays[hop] + links[hop][relay])
        for via in everybody
        for hop in everybody
        if len({origin, via, hop, relay}) == 4
    )
    best = min(chain((way.cost for way in short), all_long), default=NO_WAY)
    if best >= NO_WAY:
        return [None, None, None]
    chosen = [next(way for way in short + long if way.cost == best)]
    for _ in range(2):
        used = set().union(*map(nodes, chosen))
        crossed = set().union(*map(crossings, chosen))
        fresh = [way for way in short if not nodes(way) & used]
        across = [
            way
            for way in fresh
            if not crossings(way) & crossed and ({0} if not way.hop else crossings(way) - {"direct"})
        ]
        roundabout = [way for way in long if not nodes(way) & used and way.via != relay + 1]
        if not (pool := across or fresh or roundabout):
            break
        chosen.append(pool[0])
    return [*chosen, *[None] * (3 - len(chosen))]


def found(paths: Paths, origin: int, relay: int, candidates: list[Ways]) -> list[Way | None]:
    ways = [Way(*(int(field[origin, relay]) for field in (way.cost, way.hop, way.via))) for way in candidates]
    return [way if way.cost < NO_WAY else None for way in ways]


def assert_equal(paths: Paths, links: np.ndarray, relays: np.ndarray, labels: np.ndarray) -> None:
    candidates = paths.candidates()
    size = len(relays)
    listed: Map = (links.tolist(), relays.tolist(), labels.tolist())
    for origin in range(size):
        for relay in range(size):
            if origin != relay:
                expected = twin(*listed, origin, relay)
                assert found(paths, origin, relay, candidates) == expected, (origin, relay, expected)


def costs(units: list[int | None]) -> np.ndarray:
    return np.array([NO_WAY if unit is None else unit << INDEX_BITS for unit in units], np.int32)


@st.composite
def maps(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Few different costs make ties, one link in some is missing, and there may be one region or many."""
    size = draw(st.integers(2, 8))
    unit = st.one_of(
        st.integers(1, draw(st.sampled_from([3, 12, 64000]))), st.none() if draw(st.booleans()) else st.integers(1, 9)
    )
    links = costs(draw(st.lists(unit, min_size=size * size, max_size=size * size))).reshape(size, size)
    np.fill_diagonal(links, NO_WAY)
    relays = costs(draw(st.lists(st.one_of(st.integers(0, 3), st.none()), min_size=size, max_size=size)))
    labels = np.sort(np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), np.int32))
    return links, relays, labels


@given(maps())
@settings(max_examples=60, deadline=None)
def test_ways_are_those_of_the_twin(drawn) -> None:
    assert_equal(Paths(*drawn), *drawn)


@given(maps(), st.data())
@settings(max_examples=40, deadline=None)
def test_changes_give_what_a_new_computation_gives(drawn, data) -> None:
    links, relays, labels = drawn
    paths = Paths(links, relays, labels)
    size = len(relays)
    for _ in range(data.draw(st.integers(1, 6))):
        sender, receiver = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
        if data.draw(st.integers(0, 4)) == 0:
            paths.remove(sender)
            links[sender], links[:, sender] = NO_WAY, NO_WAY
        elif sender != receiver:
            links[sender, receiver] = costs([data.draw(st.one_of(st.integers(0, 12), st.none()))])[0]
            paths.set_link(sender, receiver, int(links[sender, receiver]))
        anew = Paths(links, relays, labels)
        for ours, theirs in zip(paths.candidates(), anew.candidates(), strict=True):
            for field, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                assert np.array_equal(one, other), field
    assert_equal(paths, links, relays, labels)


def test_changes_on_a_large_map_give_what_a_new_computation_gives() -> None:
    rng = np.random.default_rng(7)
    size = 60
    links = costs(rng.integers(1, 400, size * size).tolist()).reshape(size, size)
    links[rng.random(links.shape) < 0.3] = NO_WAY
    np.fill_diagonal(links, NO_WAY)
    relays, labels = costs([48] * size), np.sort(rng.integers(0, 9, size)).astype(np.int32)
    paths = Paths(links, relays, labels)
    for step in range(12):
        sender, receiver = (int(index) for index in rng.choice(size, 2, replace=False))
        if step % 4 == 3:
            paths.remove(sender)
            links[sender], links[:, sender] = NO_WAY, NO_WAY
        else:
            links[sender, receiver] = NO_WAY if step % 2 else int(rng.integers(1, 400)) << INDEX_BITS
            paths.set_link(sender, receiver, int(links[sender, receiver]))
    for ours, theirs in zip(paths.candidates(), Paths(links, relays, labels).candidates(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one, other)


def test_the_dearest_way_is_still_a_way() -> None:
    links = quantised(np.full((4, 4), 1e9), MAX_LINK_MS)
    links[0, 3] = links[0, 2] = links[1, 3] = NO_WAY
    paths = Paths(links, quantised(np.full(4, 1e9), MAX_RELAY_MS), np.zeros(4, np.int32))
    first = paths.cheapest()
    assert (first.hop[0, 3], first.via[0, 3]) == (3, 2)
    assert milliseconds(first.cost)[0, 3] == 3 * MAX_LINK_MS + 2 * MAX_RELAY_MS


def test_costs_are_rounded_to_sixteenths() -> None:
    assert milliseconds(quantised(np.array([0.0, 0.04, 12.34, np.inf, 1e9]), MAX_LINK_MS)).tolist() == [
        0.0,
        0.0625,
        12.3125,
        np.inf,
        MAX_LINK_MS,
    ]


def test_what_ways_cost_follows_the_links() -> None:
    links = quantised(np.array([[0, 10, 20], [5, 0, 7], [9, 8, 0]], np.float64), MAX_LINK_MS)
    paths = Paths(links, quantised(np.array([3.0, 3.0, 3.0]), MAX_RELAY_MS), np.zeros(3, np.int32))

    def cost_ms(origin: int, relay: int, hop: int, via: int) -> float:
        arrays = (np.array([value], np.int32) for value in (origin, relay, hop, via))
        return float(milliseconds(paths.cost_of(*arrays))[0])

    assert cost_ms(0, 2, 0, 0) == 20
    assert cost_ms(0, 2, 2, 0) == 20
    paths.set_link(0, 1, NO_WAY)
    assert cost_ms(0, 2, 2, 0) == np.inf
    assert cost_ms(2, 0, 2, 0) == 16


@pytest.mark.parametrize(
    ("links", "labels"), [(np.zeros((2, 3), np.int32), [0, 0]), (np.zeros((2, 2), np.int32), [1, 0])]
)
def test_what_does_not_fit_is_refused(links, labels) -> None:
    with pytest.raises(ValueError):
        Paths(links, np.zeros(2, np.int32), np.array(labels, np.int32))


def test_no_relays_and_one_relay() -> None:
    for size in (0, 1):
        empty = np.full((size, size), NO_WAY, np.int32)
        candidates = Paths(empty, np.zeros(size, np.int32), np.zeros(size, np.int32)).candidates()
        assert all((way.cost >= NO_WAY).all() for way in candidates)


def test_many_regions_share_labels_in_order() -> None:
    labels = labels_of([f"r{number:03}" for number in range(200)])
    assert len(set(labels.tolist())) <= 64
    assert (np.diff(labels) >= 0).all()
    assert labels_of(["eu", "us", "eu"]).tolist() == [0, 1, 0]
