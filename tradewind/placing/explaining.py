"""Why a viewer goes where it goes: every candidate with the parts of its cost, and what became of it.

For `tradewind place ... --explain`: the same figures that the choice was made from, written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tradewind.placing.choosing import Choice
from tradewind.placing.fleet import Fleet, Standing, Track
from tradewind.placing.policy import Reason
from tradewind.placing.ways import Step, Ways

MAX_EXPLAINED = 16


@dataclass(frozen=True, slots=True)
class Explained:
    """One relay. The parts, from `rtt_ms` to `here_ms`, add up to `cost_ms`."""

    relay: str
    region: str
    load: float
    """As it is reckoned, with what was sent there since it reported."""
    rtt_ms: float
    price_ms: float
    order_ms: float
    load_ms: float
    rush_ms: float
    track_ms: float
    full_ms: float
    here_ms: float
    cost_ms: float
    place: int | None
    """Its place among the candidates, from 0; None: it is none."""
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A whole decision."""

    seed: int
    country: str | None
    measured_ms: tuple[tuple[str, float], ...]
    guessed: bool
    panic: bool
    refused: Reason | None
    relays: tuple[Explained, ...]
    """Candidates in their order, then what else is near, cheapest first."""

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        document = asdict(self)
        document["refused"] = self.refused.value if self.refused else None
        document["measured_ms"] = dict(self.measured_ms)
        return document


def explain_relays(
    fleet: Fleet, ways: Ways, track: Track, chosen: Choice | Reason, here: Standing | None
) -> tuple[Explained, ...]:
    """Write out the candidates and the cheapest others, `MAX_EXPLAINED` at most. Call it before anything is counted."""
    places = {standing: place for place, standing in enumerate(chosen.relays)} if isinstance(chosen, Choice) else {}
    steps = {step.region: step for step in ways.steps}
    reach_ms = _reach_ms(fleet, ways)
    found = []
    for standing in fleet.standings():
        step = steps.get(standing.group.name)
        if step is not None:
            place = places.get(standing)
            parts = _parts(fleet, standing, step, track, here)
            cost_ms = sum(parts.values())
            found.append(
                Explained(
                    standing.entry.id,
                    standing.group.name,
                    standing.load,
                    **parts,
                    cost_ms=cost_ms,
                    place=place,
                    verdict=_out_of_the_question(fleet, standing, step, reach_ms) if place is None else "",
                )
            )
    best_ms = min((one.cost_ms for one in found if one.place == 0), default=None)
    found = [replace(one, verdict=one.verdict or _compared(one, best_ms)) for one in found]
    found.sort(key=lambda one: (one.place is None, one.place or 0, one.cost_ms, one.relay))
    return tuple(found[:MAX_EXPLAINED])


def _reach_ms(fleet: Fleet, ways: Ways) -> float:
    for step in ways.steps:
        group = fleet.group(step.region)
        if group is not None and group.ring:
            return step.rtt_ms + fleet.policy.spill_ms
    return float("inf")


def _parts(fleet: Fleet, standing: Standing, step: Step, track: Track, here: Standing | None) -> Mapping[str, float]:
    policy = fleet.policy
    price_ms = dict(policy.prices_ms).get(step.region, 0.0)
    rush_ms = policy.rush_ms * max(standing.pending - policy.rush_free, 0)
    return {
        "rtt_ms": step.rtt_ms,
        "price_ms": price_ms,
        "order_ms": step.base_ms - step.rtt_ms - price_ms,
        "load_ms": standing.load_ms - rush_ms,
        "rush_ms": rush_ms,
        "track_ms": fleet.fetch_ms(standing, track),
        "full_ms": policy.full_ms if standing.closed or standing.is_full else 0.0,
        "here_ms": -policy.here_ms if standing is here else 0.0,
    }


def _out_of_the_question(fleet: Fleet, standing: Standing, step: Step, reach_ms: float) -> str:
    """Why this relay was not to be drawn, whatever it costs; empty: it was."""
    policy, bound = fleet.policy, standing.group.bound
    if standing.closed == "suspect":
        return "looks dead: it has been silent"
    if standing.closed:
        return f"takes nobody: {standing.closed}"
    if standing.is_full:
        return f"full: load {standing.load:.2f}, at most {policy.full_ratio:.2f}"
    if step.rtt_ms > reach_ms:
        return f"too far: {step.rtt_ms:.0f} ms, at most {reach_ms:.0f} ms while nearer ones have room"
    if standing.load >= bound:
        return f"above its region's bound: load {standing.load:.2f}, bound {bound:.2f}"
    return ""


def _compared(one: Explained, best_ms: float | None) -> str:
    if one.place == 0:
        return "chosen"
    if best_ms is None:
        return "not drawn for this viewer"
    if one.place is not None:
        return f"to fall back on: {one.cost_ms - best_ms:+.1f} ms"
    if one.cost_ms > best_ms:
        return f"costs {one.cost_ms - best_ms:.1f} ms more"
    return "not drawn for this viewer"
