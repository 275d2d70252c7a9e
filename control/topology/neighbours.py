"""Which links are measured: at most 32 of each relay, the same ones at both ends.

First a ring of all relays by region and name, which keeps the graph whole whatever happens to distances. Then, as long
as both ends have room: the nearest few, the links that most routes lead over, the nearest relay of every other region,
and the next nearest until a third of the places is left for what may become useful.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from control.topology.paths import CANDIDATES, NO_WAY, Ways
from control.topology.weights import Floats

MOST = 32
NEAREST = 8
ON_ROUTES = 12
STAND_INS = 4


class Link(NamedTuple):
    """Two relays by index, the smaller first."""

    one: int
    other: int


def chosen(regions: Sequence[str], delays_ms: Floats, used: Floats, most: int = MOST) -> list[tuple[int, ...]]:
    """The neighbours of every relay, by index, in order.

    `delays_ms` and `used` are [sender, receiver]; `used` counts what leads over each link (`usage`).
    """
    size = len(regions)
    links: list[set[int]] = [set() for _ in range(size)]
    if size < 2:
        return [() for _ in range(size)]
    far = delays_ms + delays_ms.T
    np.fill_diagonal(far, np.inf)
    busy = used + used.T
    nearest = np.argsort(far, axis=1, kind="stable")
    busiest = np.argsort(-busy, axis=1, kind="stable")
    for index in range(size):
        _join(links, index, (index + 1) % size, most)
    for rank in range(min(NEAREST, size - 1)):
        for index in range(size):
            _join(links, index, int(nearest[index, rank]), most)
    for rank in range(min(ON_ROUTES, size - 1)):
        for index in range(size):
            if busy[index, busiest[index, rank]] > 0:
                _join(links, index, int(busiest[index, rank]), most)
    heads = [_by_region(regions, regions[index], nearest[index].tolist()) for index in range(size)]
    for rank in range(max(map(len, heads))):
        for index in range(size):
            if rank < len(heads[index]):
                # Who is near to many is soon full: then its neighbour stands for the region.
                any(_join(links, index, other, most) for other in heads[index][rank])
    for rank in range(min(NEAREST, size - 1), min(most * 2 // 3, size - 1)):
        for index in range(size):
            _join(links, index, int(nearest[index, rank]), most * 2 // 3)
    return [tuple(sorted(neighbours)) for neighbours in links]


def usage(ways: Ways) -> Floats:
    """How many pairs' ways lead over each link, [sender, receiver]; a first way counts as much as three spares."""
    size = ways.hop.shape[1]
    used = np.zeros((size, size))
    for rank in range(CANDIDATES):
        there = ways.cost[rank] < NO_WAY
        origin, relay = np.nonzero(there)
        hop, via = ways.hop[rank][there], ways.via[rank][there]
        weight = 3.0 if rank == 0 else 1.0
        last = np.where(hop > 0, hop - 1, origin)
        middle = np.where(via > 0, via - 1, origin)
        np.add.at(used, (last, relay), weight)
        np.add.at(used, (middle[hop > 0], last[hop > 0]), weight)
        np.add.at(used, (origin[via > 0], middle[via > 0]), weight)
    return used


def _join(links: list[set[int]], one: int, other: int, most: int) -> bool:
    """Add a link if there is room at both ends; returns whether it is there now."""
    if one != other and other not in links[one] and len(links[one]) < most and len(links[other]) < most:
        links[one].add(other)
        links[other].add(one)
    return other in links[one]


def _by_region(regions: Sequence[str], own: str, nearest: list[int]) -> list[list[int]]:
    """The nearest relays of each region but its own, the nearest regions first."""
    found: dict[str, list[int]] = {}
    for index in nearest:
        if regions[index] != own and len(others := found.setdefault(regions[index], [])) < STAND_INS:
            others.append(index)
    return list(found.values())
