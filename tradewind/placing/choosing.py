"""From a viewer's ways to the candidates of one answer: what every answerer does around `Fleet.choose`.

Who fails, who is left out because the viewer could not reach it, and what is offered when all look dead.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tradewind.placing.fleet import MAX_CANDIDATES, Fleet, Offer, Standing, Track
from tradewind.placing.measuring import MOST_MS
from tradewind.placing.policy import Reason
from tradewind.placing.ways import Ways

_ANOTHER_SEED = 0x9E3779B97F4A7C15
_SEED_MASK = 2**64 - 1


class Choice(NamedTuple):
    """Candidates, the best first, and whether they were taken for want of any that look alive."""

    offers: list[Offer]
    panic: bool


def candidates(fleet: Fleet, seed: int, ways: Ways, track: Track, failed: Collection[str] = ()) -> Choice | Reason:
    """Choose up to four candidates; `failed` are relays that the viewer could not reach."""
    offers = fleet.choose(seed, ways, track)
    if failed and offers:
        left = [offer for offer in offers if offer.standing.entry.id not in failed]
        if len(left) < len(offers):
            # The place of one that failed is filled by what another viewer would have drawn.
            named = {offer.standing.entry.id for offer in left} | set(failed)
            others = fleet.choose((seed ^ _ANOTHER_SEED) & _SEED_MASK, ways, track)
            left += [offer for offer in others if offer.standing.entry.id not in named]
        # Where everything failed, the fault is more likely the viewer's: it hears the same again.
        offers = left[:MAX_CANDIDATES] or offers
    if offers:
        return Choice(offers, panic=any(offer.standing.group.panics for offer in offers))
    offers = fleet.choose_anyway(seed, ways)
    if offers:
        return Choice(offers, panic=True)
    return why_none(fleet, ways)


def why_none(fleet: Fleet, ways: Ways) -> Reason:
    """Why `candidates` found nobody."""
    groups = [fleet.group(step.region) for step in ways.steps]
    return Reason.NO_CAPACITY if any(group and group.ring for group in groups) else Reason.NO_RELAY


def first(offers: list[Offer], standing: Standing, cost_ms: float) -> list[Offer]:
    """The same candidates with this relay before all others."""
    others = [offer for offer in offers if offer.standing is not standing]
    return [Offer(cost_ms, -1, standing), *others[: MAX_CANDIDATES - 1]]


def measured_regions(fleet: Fleet, rtts_ms: Collection[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """What a viewer measured, by region: names of relays become their regions, the least counts, unknown ones go."""
    found: dict[str, float] = {}
    for name, rtt_ms in rtts_ms:
        standing = fleet.standing(name)
        region = standing.group.name if standing is not None else name
        if 0.0 < rtt_ms <= MOST_MS and fleet.group(region) is not None:
            found[region] = min(rtt_ms, found.get(region, MOST_MS))
    return tuple(sorted(found.items()))
