"""Whom relays measure: few, both ends alike, and the graph stays whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.topology.neighbours import chosen, usage
from control.topology.paths import NO_WAY, Ways


@given(st.integers(0, 60), st.integers(1, 8), st.integers(3, 32), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_few_mutual_and_whole(size, regions, most, seed) -> None:
    rng = np.random.default_rng(seed)
    names = sorted(f"region{number}" for number in rng.integers(0, regions, size))
    delays, used = rng.uniform(0, 100, (size, size)), rng.integers(0, 5, (size, size)).astype(float)
    found = chosen(names, delays, used, most)
    assert found == chosen(names, delays.copy(), used.copy(), most)
    reached, waiting = set(), [0] if size else []
    for index, others in enumerate(found):
        assert len(others) <= most
        assert all(index in found[other] and other != index for other in others)
    while waiting:
        index = waiting.pop()
        if index not in reached:
            reached.add(index)
            waiting += found[index]
    assert len(reached) == size


def test_two_far_crowds_in_one_region_are_joined() -> None:
    crowd = np.arange(40) >= 20
    delays = np.where(crowd[:, None] == crowd, 1.0, 200.0)
    found = chosen(["eu"] * 40, delays, np.zeros((40, 40)), most=8)
    assert any(crowd[index] != crowd[other] for index, others in enumerate(found) for other in others)


def test_the_nearest_the_busy_and_every_region() -> None:
    size = 60
    names = sorted(f"region{number % 10}" for number in range(size))
    place = np.arange(size, dtype=float)
    delays = np.abs(place[:, None] - place)
    used = np.zeros((size, size))
    used[2, 50] = 9
    found = chosen(names, delays, used)
    assert {1, 3, 0, 4} <= set(found[2])
    assert 50 in found[2]
    assert all(len({names[other] for other in others}) >= 6 for others in found)


def test_usage_counts_every_link_of_a_way() -> None:
    hop, via, cost = (np.zeros((3, 4, 4), np.int32) for _ in range(3))
    cost[:] = NO_WAY
    cost[0, 0, 3], hop[0, 0, 3], via[0, 0, 3] = 16, 3, 2  # 0 -> 1 -> 2 -> 3
    cost[1, 0, 3] = 16
    used = usage(Ways(hop, via, cost))
    assert {(int(a), int(b)): used[a, b] for a, b in np.argwhere(used)} == {(0, 1): 3, (1, 2): 3, (2, 3): 3, (0, 3): 1}
