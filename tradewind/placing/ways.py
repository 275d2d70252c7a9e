"""From where a viewer is to the regions that may serve it, nearest first: everything about a choice but the loads.

A `Fleet` chooses along these. They change with the operator's rules and with where relays stand, not with what relays
are doing, so that they are made once for a neighbourhood and kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tradewind.contract.messages import RelayEntry
from tradewind.placing.locating import RTT_MS_PER_KM, Spot, distance_km, guessed_rtt_ms
from tradewind.placing.policy import ELSEWHERE, NOWHERE, Policy, Reason

MAX_STEPS = 24
MAX_KEPT = 4096
SPREADS = 16
"""Orders of regions among which viewers of whom nothing is known are divided."""
MEASURED_STEP_MS = 4.0
"""Measurements closer than this are the same."""
DISBELIEF_MS = 5.0
"""A measurement that beats light in glass by more says that the viewer is somewhere else."""
LIGHT_MS_PER_KM = 0.01


class Step(NamedTuple):
    """A region on a viewer's ways."""

    region: str
    base_ms: float
    """Round trip, price and the market's order."""
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class Ways:
    """The regions that may serve a viewer, cheapest first."""

    steps: tuple[Step, ...]
    guessed: bool
    """Nothing is known of the viewer: the order only spreads, and the player should measure."""


class RegionSpot(NamedTuple):
    """Where a region is; None: nobody said."""

    name: str
    latitude: float | None
    longitude: float | None


class Atlas:
    """All regions, the rules, and the ways made lately. Forgets them when a region comes, goes or moves."""

    __slots__ = ("_kept", "_markets", "_policy", "_prices", "_regions")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._markets = {market.country: market.regions for market in policy.markets}
        self._prices = dict(policy.prices_ms)
        self._regions: tuple[RegionSpot, ...] = ()
        self._kept: OrderedDict[object, Ways] = OrderedDict()

    def apply(self, relays: Iterable[RelayEntry]) -> None:
        """Take in where relays stand."""
        regions = _region_spots(relays)
        if regions != self._regions:
            self._regions = regions
            self._kept.clear()

    def ways(self, spot: Spot, measured: Sequence[tuple[str, float]], seed: int) -> Ways | Reason:
        """The ways of a viewer at `spot`, who or whose neighbours measured these milliseconds to these regions.

        What was measured counts for more than where the viewer seems to be. `seed` is the viewer's number.
        """
        known = spot.latitude is not None or bool(measured)
        key = (
            spot.country,
            None if spot.latitude is None else round(spot.latitude),
            None if spot.longitude is None else round(spot.longitude),
            tuple((region, max(round(ms / MEASURED_STEP_MS), 1)) for region, ms in measured),
            0 if known else seed % SPREADS,
        )
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        allowed = self._allowed(spot.country)
        if isinstance(allowed, Reason):
            return allowed
        # Made from what the key says, so that it does not matter who asked first.
        country, north, east, rounded, variant = key
        near = Spot(country, north, east)
        rtts = {region: steps * MEASURED_STEP_MS for region, steps in rounded}
        ways = self._near(near, rtts, allowed) if known else self._spread(variant, allowed)
        if len(self._kept) >= MAX_KEPT:
            self._kept.popitem(last=False)
        self._kept[key] = ways
        return ways

    def market(self, country: str | None) -> tuple[str, ...] | None:
        """The regions that the rules name for this country, best first; None: there are no rules, or none for it."""
        return self._markets.get(country or NOWHERE, self._markets.get(ELSEWHERE))

    def _allowed(self, country: str | None) -> dict[str, float] | Reason:
        """Region to what its place in the market's order costs."""
        if not self._markets:
            return {region.name: 0.0 for region in self._regions}
        regions = self.market(country)
        if regions is None:
            return Reason.NO_MARKET
        if not regions:
            return Reason.NOT_SERVED_HERE
        return {region: place * self._policy.order_ms for place, region in enumerate(regions)}

    def _near(self, spot: Spot, rtts: dict[str, float], allowed: dict[str, float]) -> Ways:
        spot = self._believed(spot, rtts)
        steps = []
        for region in self._regions:
            if region.name in allowed:
                rtt_ms = rtts.get(region.name)
                if rtt_ms is None:
                    km = _km(spot, region)
                    rtt_ms = self._policy.unknown_rtt_ms if km is None else guessed_rtt_ms(km)
                base_ms = rtt_ms + allowed[region.name] + self._prices.get(region.name, 0.0)
                steps.append(Step(region.name, base_ms, rtt_ms))
        steps.sort(key=lambda step: (step.base_ms, step.region))
        return Ways(tuple(steps[:MAX_STEPS]), guessed=False)

    def _believed(self, spot: Spot, rtts: dict[str, float]) -> Spot:
        """Where the viewer is: at the region it is nearest to, where its measurements give the lie to the table."""
        if not rtts:
            return spot
        places = {region.name: region for region in self._regions}
        nearest = min(rtts, key=lambda name: (rtts[name], name))
        home = places.get(nearest)
        if home is None or home.latitude is None:
            return spot
        km = _km(spot, home)
        if km is not None and LIGHT_MS_PER_KM * km <= rtts[nearest] + DISBELIEF_MS:
            return spot
        return Spot(spot.country, home.latitude, home.longitude)

    def _spread(self, variant: int, allowed: dict[str, float]) -> Ways:
        """Regions far from each other, one after the other: whoever measures the first few is near to one of them."""
        left = [region for region in self._regions if region.name in allowed]
        ordered: list[RegionSpot] = []
        if left:
            ordered.append(left.pop(variant % len(left)))
        gaps = [_gap(region, ordered[0]) for region in left]
        while left:
            furthest = max(range(len(left)), key=lambda place: (gaps[place], left[place].name))
            ordered.append(left.pop(furthest))
            gaps.pop(furthest)
            gaps = [min(gap, _gap(region, ordered[-1])) for gap, region in zip(gaps, left, strict=True)]
        rtt_ms = self._policy.unknown_rtt_ms
        steps = [Step(r.name, rtt_ms + allowed[r.name] + self._prices.get(r.name, 0.0), rtt_ms) for r in ordered]
        return Ways(tuple(steps[:MAX_STEPS]), guessed=True)


def _region_spots(relays: Iterable[RelayEntry]) -> tuple[RegionSpot, ...]:
    """Where regions are: the mean of their relays' places, those left out that do not say theirs."""
    regions: dict[str, list[tuple[float, float]]] = {}
    for relay in relays:
        places = regions.setdefault(relay.region, [])
        if relay.latitude or relay.longitude:
            places.append((relay.latitude, relay.longitude))
    return tuple(_middle(name, regions[name]) for name in sorted(regions))


def _middle(name: str, places: Sequence[tuple[float, float]]) -> RegionSpot:
    if not places:
        return RegionSpot(name, None, None)
    # A region that spans the date line has its middle near its first relay, not on the other side.
    first = places[0][1]
    east = first + sum((longitude - first + 540.0) % 360.0 - 180.0 for _, longitude in places) / len(places)
    north = sum(latitude for latitude, _ in places) / len(places)
    return RegionSpot(name, round(north, 3), round((east + 540.0) % 360.0 - 180.0, 3))


def _km(spot: Spot, region: RegionSpot) -> float | None:
    if spot.latitude is None or spot.longitude is None or region.latitude is None or region.longitude is None:
        return None
    return distance_km(spot.latitude, spot.longitude, region.latitude, region.longitude)


def _gap(one: RegionSpot, other: RegionSpot) -> float:
    """Milliseconds between two regions; unknown ones are neither near nor far."""
    km = _km(Spot(None, one.latitude, one.longitude), other)
    return 50.0 if km is None else RTT_MS_PER_KM * km
