"""Why a route is what it is: every part of every candidate's cost, how old the evidence is, and what would be better.

For `tradewind route … --explain`. Figures are those of the last computation; what a candidate was worth when it was
chosen stands beside what it is worth now.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from control.topology.paths import CANDIDATES, NO_WAY, Paths, milliseconds
from control.topology.routes import Cause, Routes
from control.topology.trees import Trees
from control.topology.weights import LinkParts, RelayParts, Weights


class ExplainedLink(NamedTuple):
    """One link of a way, in the direction in which media goes."""

    sender: str
    receiver: str
    parts: LinkParts


class ExplainedRelay(NamedTuple):
    """One relay between the ends."""

    relay: str
    parts: RelayParts


class ExplainedWay(NamedTuple):
    """One way from the origin to the relay. Links and relays stand as media passes them."""

    next_hop: str
    through: tuple[str, ...]
    chosen_at_ms: float
    """What it cost when it was chosen; infinite: it is not chosen."""
    cost_ms: float
    """What it costs now; infinite: it cannot be used."""
    links: tuple[ExplainedLink, ...]
    relays: tuple[ExplainedRelay, ...]


class ExplainedRoute(NamedTuple):
    """What a relay is told of one origin, and why."""

    relay: str
    origin: str
    generation: int
    candidates: tuple[ExplainedWay, ...]
    """In order; the first is in use unless its relay found it bad."""
    cheapest: ExplainedWay | None
    """Of all ways, whether a candidate or not; None: there is none."""
    cause: str
    """Why the first is the first: see `routes.Cause`."""
    better_cycles: int
    """In so many cycles on end another way was clearly better than the first."""
    cycles_wanted: int
    moved_age_s: float
    """Since the first changed last; infinite: never."""
    place: str = ""
    """In the tree of its region: "head", or "edge", which asks heads before it goes the ways that the rest explains."""


def explain(
    routes: Routes,
    trees: Trees,
    paths: Paths,
    weights: Weights,
    ends: tuple[str, str],
    generation: int,
    cycles_wanted: int,
    now: float,
) -> ExplainedRoute | None:
    """Explain the route of `ends`, (relay, origin); None: one of them is not in the plan."""
    relay, origin = ends
    index = {known: number for number, known in enumerate(routes.ids)}
    if relay not in index or origin not in index or relay == origin or routes.ids != weights.ids:
        return None
    standing = routes.standing(index[origin], index[relay], now)

    def way(hop: int, via: int, cost: int) -> ExplainedWay:
        return _way(paths, weights, index[origin], index[relay], hop, via, cost)

    best = paths.cheapest()
    at = (index[origin], index[relay])
    found = int(best.cost[at]) < NO_WAY
    ways = ((int(field[rank][at]) for field in trees.ways) for rank in range(CANDIDATES))
    return ExplainedRoute(
        relay=relay,
        origin=origin,
        generation=generation,
        candidates=tuple(way(*one) for one in map(tuple, ways) if one[2] < NO_WAY),
        cheapest=way(int(best.hop[at]), int(best.via[at]), NO_WAY) if found else None,
        cause=Cause(standing.cause).name.lower(),
        better_cycles=standing.better_cycles,
        cycles_wanted=cycles_wanted,
        moved_age_s=standing.moved_age_s,
        place=trees.place(*at),
    )


def _way(paths: Paths, weights: Weights, origin: int, relay: int, hop: int, via: int, chosen: int) -> ExplainedWay:
    between = [index - 1 for index in (via, hop) if index]
    stations = [origin, *between, relay]
    arrays = [np.array([value], np.int32) for value in (origin, relay, hop, via)]
    return ExplainedWay(
        next_hop=weights.ids[between[-1] if between else origin],
        through=(weights.ids[via - 1],) if via else (),
        chosen_at_ms=float(milliseconds(np.array([chosen], np.int32))[0]),
        cost_ms=float(milliseconds(paths.cost_of(*arrays))[0]),
        links=tuple(ExplainedLink(weights.ids[a], weights.ids[b], weights.link(a, b)) for a, b in pairwise(stations)),
        relays=tuple(ExplainedRelay(weights.ids[index], weights.relay(index)) for index in between),
    )
