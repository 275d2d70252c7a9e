"""From a viewer's ways to the candidates of one answer: what every answerer does around `Fleet.choose`.

Who fails, who is left out because the viewer could not reach it, and what is offered when all look dead.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tradewind.placing.fleet import MAX_CANDIDATES, Fleet, Standing, Track
from tradewind.placing.measuring import MOST_MS
from tradewind.placing.policy import Reason
from tradewind.placing.ways import Ways

_ANOTHER_SEED = 0x9E3779B97F4A7C15
_SEED_MASK = 2**64 - 1


class Choice(NamedTuple):
    """Candidates, the best first, and whether they were taken for want of any that look alive."""

    relays: list[Standing]
    panic: bool


def candidates(fleet: Fleet, seed: int, ways: Ways, track: Track, failed: Collection[str] = ()) -> Choice | Reason:
    """Choose up to four candidates; `failed` are relays that the viewer could not reach."""
    chosen = fleet.choose(seed, ways, track)
    if failed and chosen:
        left = [standing for standing in chosen if standing.entry.id not in failed]
        if len(left) < len(chosen):
            # The place of one that failed is filled by what another viewer would have drawn.
            others = fleet.choose((seed ^ _ANOTHER_SEED) & _SEED_MASK, ways, track)
            left += [other for other in others if other not in left and other.entry.id not in failed]
        # Where everything failed, the fault is more likely the viewer's: it hears the same again.
        chosen = left[:MAX_CANDIDATES] or chosen
    if chosen:
        return Choice(chosen, panic=any(standing.group.panics for standing in chosen))
    chosen = fleet.choose_anyway(seed, ways)
    if chosen:
        return Choice(chosen, panic=True)
    return why_none(fleet, ways)


def why_none(fleet: Fleet, ways: Ways) -> Reason:
    """Why `candidates` found nobody."""
    groups = [fleet.group(step.region) for step in ways.steps]
    return Reason.NO_CAPACITY if any(group and group.ring for group in groups) else Reason.NO_RELAY


def first(relays: list[Standing], relay: Standing) -> list[Standing]:
    """The same candidates with this relay before all others."""
    return [relay, *(other for other in relays if other is not relay)][:MAX_CANDIDATES]


def measured_regions(fleet: Fleet, rtts_ms: Collection[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """What a viewer measured, by region: names of relays become their regions, the least counts, unknown ones go."""
    found: dict[str, float] = {}
    for name, rtt_ms in rtts_ms:
        standing = fleet.standing(name)
        region = standing.group.name if standing is not None else name
        if 0.0 < rtt_ms <= MOST_MS and fleet.group(region) is not None:
            found[region] = min(rtt_ms, found.get(region, MOST_MS))
    return tuple(sorted(found.items()))
