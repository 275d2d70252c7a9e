"""What every directed link costs, and every relay that stands on a way, from evidence, priors and settings.

    link:  delay + half the jitter + loss + price + age of the evidence; no way at all while it is bad
    relay: 3 ms, and more from 60 % of its load on; none is sent over one that is nearly full or on its way out

Delay is half the round trip: clocks are not compared. The ends' own load is on every way between them alike and moves
nothing, so only relays between count theirs. Links that nobody measures have a prior: what the same two regions'
other links measure, a configured round trip, or the distance; and a surcharge, so that what is measured comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from control.registry.values import Evidence, Place, RelayView
from control.topology.paths import MAX_LINK_MS, MAX_RELAY_MS, Ints, labels_of, quantised

Floats: TypeAlias = NDArray[np.float64]

EARTH_KM = 6371.0
FIBRE_KM_PER_MS = 200.0


@dataclass(frozen=True, slots=True)
class WeightSettings:
    """What is worth how many milliseconds."""

    jitter_ratio: float = 0.5
    loss_free_ratio: float = 0.001
    loss_packets: float = 10.0
    """So many packets wait behind a lost one: the loss costs twice their number of round trips, times its ratio."""
    relay_ms: float = 3.0
    load_free_ratio: float = 0.6
    load_full_ratio: float = 0.95
    load_ms: float = 1000.0
    """Times the square of the load above what is free."""
    price_ms_per_usd_per_gb: float = 50.0
    fresh_s: float = 5.0
    age_ms_per_s: float = 2.0
    age_most_ms: float = 100.0
    prior_ratio: float = 1.1
    prior_ms: float = 5.0
    """What is not measured is so much slower than its prior."""
    detour_ratio: float = 1.6
    """How much longer cables are than great circles."""
    unknown_rtt_ms: float = 150.0


@dataclass(frozen=True, slots=True)
class Priors:
    """What an operator knows beforehand of links between regions, (sender's, receiver's); one direction is enough."""

    rtt_ms: Mapping[tuple[str, str], float] = field(default_factory=dict)
    usd_per_gb: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """What the sending side pays. Not symmetric."""


class LinkParts(NamedTuple):
    """What a link's cost is made of, in milliseconds."""

    delay_ms: float
    jitter_ms: float
    loss_ms: float
    price_ms: float
    age_ms: float
    loss_ratio: float
    measured: bool
    usable: bool
    age_s: float
    """Of the evidence; 0 where there is none."""

    @property
    def cost_ms(self) -> float:
        """What they come to."""
        parts = self.delay_ms + self.jitter_ms + self.loss_ms + self.price_ms + self.age_ms
        return parts if self.usable else float("inf")


class RelayParts(NamedTuple):
    """What a relay on the way costs, in milliseconds."""

    relay_ms: float
    load_ms: float


class Weights:
    """Costs of all links between, and over, these relays; ordered as `Paths` wants them."""

    __slots__ = (
        "_age_s",
        "_delay",
        "_jitter",
        "_load",
        "_loss",
        "_loss_ratio",
        "_measured",
        "_price",
        "_settings",
        "_usable",
        "ids",
        "index",
        "labels",
        "regions",
    )

    def __init__(
        self,
        settings: WeightSettings,
        priors: Priors,
        relays: Sequence[RelayView],
        evidence: Iterable[Evidence],
    ) -> None:
        self._settings = settings
        label = dict(zip((r.id for r in relays), labels_of([r.region for r in relays]).tolist()))
        relays = sorted(relays, key=lambda r: (label[r.id], r.region, r.id))
        self.ids = tuple(relay.id for relay in relays)
        self.regions = tuple(relay.region for relay in relays)
        self.index = {relay: number for number, relay in enumerate(self.ids)}
        self.labels: Ints = np.array([label[relay] for relay in self.ids], np.int32)
        size = len(relays)
        self._delay, self._jitter, self._loss, self._loss_ratio, self._age_s = (
            np.zeros((size, size)) for _ in range(5)
        )
        self._measured, self._usable = np.zeros((size, size), np.bool_), np.ones((size, size), np.bool_)
        np.fill_diagonal(self._usable, val=False)
        self._take(list(evidence))
        rtt, price = self._priors(priors, [relay.place for relay in relays])
        slow = rtt / 2 * settings.prior_ratio + settings.prior_ms
        self._delay = np.where(self._measured, self._delay, slow)
        self._price = price * settings.price_ms_per_usd_per_gb
        self._load = _load_ms(settings, relays)

    # --- For `Paths` ---

    def links(self) -> Ints:
        """Every directed link, [sender, receiver]."""
        cost = self._delay + self._jitter + self._loss + self._price + self._age_ms()
        return quantised(np.where(self._usable, cost, np.inf), MAX_LINK_MS)

    def relays(self) -> Ints:
        """Every relay, as one on the way."""
        return quantised(self._load + self._settings.relay_ms, MAX_RELAY_MS)

    # --- For people ---

    def link(self, sender: int, receiver: int) -> LinkParts:
        """What one link's cost is made of."""
        at = (sender, receiver)
        return LinkParts(
            delay_ms=float(self._delay[at]),
            jitter_ms=float(self._jitter[at]),
            loss_ms=float(self._loss[at]),
            price_ms=float(self._price[at]),
            age_ms=float(self._age_ms()[at]),
            loss_ratio=float(self._loss_ratio[at]),
            measured=bool(self._measured[at]),
            usable=bool(self._usable[at]),
            age_s=float(self._age_s[at]),
        )

    def relay(self, relay: int) -> RelayParts:
        """What one relay's cost is made of."""
        return RelayParts(self._settings.relay_ms, float(self._load[relay]))

    def loss_ratios(self) -> Floats:
        """Of every directed link."""
        return self._loss_ratio

    def delays_ms(self) -> Floats:
        """Of every directed link, measured or not."""
        return self._delay

    # --- Changes ---

    def set_evidence(self, found: Evidence) -> int | None:
        """Take over what is known now of one link; returns what it costs, for `Paths.set_link`.

        None: an end of it is not here. Priors of other links stay as they are until everything is computed anew.
        """
        sender, receiver = self.index.get(found.sender), self.index.get(found.receiver)
        if sender is None or receiver is None:
            return None
        self._take([found])
        parts = self.link(sender, receiver)
        return int(quantised(np.array([parts.cost_ms]), MAX_LINK_MS)[0])

    def remove(self, relay: str) -> int | None:
        """A relay is gone; returns its index, for `Paths.remove`. None: it is not here."""
        index = self.index.get(relay)
        if index is not None:
            self._usable[index], self._usable[:, index] = False, False
        return index

    # --- How ---

    def _take(self, evidence: list[Evidence]) -> None:
        known = [e for e in evidence if e.sender in self.index and e.receiver in self.index]
        if not known:
            return
        at = (
            np.array([self.index[e.sender] for e in known]),
            np.array([self.index[e.receiver] for e in known]),
        )
        rtt, jitter, loss, age = np.array([(e.rtt_ms, e.jitter_ms, e.loss_ratio, e.age_s) for e in known]).T
        settings = self._settings
        self._delay[at] = rtt / 2
        self._jitter[at] = jitter * settings.jitter_ratio
        self._loss_ratio[at] = loss
        self._loss[at] = np.where(loss < settings.loss_free_ratio, 0.0, 2 * rtt * loss * settings.loss_packets)
        self._age_s[at] = age
        self._measured[at] = True
        self._usable[at] = [e.usable for e in known]

    def _age_ms(self) -> Floats:
        settings = self._settings
        return np.clip((self._age_s - settings.fresh_s) * settings.age_ms_per_s, 0.0, settings.age_most_ms)

    def _priors(self, priors: Priors, places: list[Place | None]) -> tuple[Floats, Floats]:
        """Round trips in milliseconds and prices in dollars a gigabyte, [sender, receiver]."""
        names = sorted(set(self.regions))
        number = {name: index for index, name in enumerate(names)}
        region = np.array([number[name] for name in self.regions], np.intp)
        grid = np.ix_(region, region)
        rtt = np.full((len(names), len(names)), np.nan)
        price = np.zeros((len(names), len(names)))
        for (sender, receiver), value in priors.rtt_ms.items():
            if sender in number and receiver in number:
                rtt[number[sender], number[receiver]] = value
        rtt = np.where(np.isnan(rtt), rtt.T, rtt)
        for (sender, receiver), value in priors.usd_per_gb.items():
            if sender in number and receiver in number:
                price[number[sender], number[receiver]] = value
        count, total = np.zeros_like(rtt), np.zeros_like(rtt)
        sender_at, receiver_at = np.nonzero(self._measured)
        pairs = (region[sender_at], region[receiver_at])
        np.add.at(count, pairs, 1)
        np.add.at(total, pairs, self._delay[sender_at, receiver_at] * 2)
        measured = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        by_region = np.where(np.isnan(measured), rtt, measured)[grid]
        return np.where(np.isnan(by_region), self._distances_ms(places), by_region), price[grid]

    def _distances_ms(self, places: list[Place | None]) -> Floats:
        """Round trips along great circles, in milliseconds; where a place is not known, a guess."""
        here = [(p.latitude, p.longitude) if p else (np.nan, np.nan) for p in places]
        latitude, longitude = np.radians(np.array(here, np.float64).reshape(-1, 2)).T
        across = np.sin((latitude[:, None] - latitude) / 2) ** 2
        around = np.sin((longitude[:, None] - longitude) / 2) ** 2
        chord = np.clip(across + np.cos(latitude[:, None]) * np.cos(latitude) * around, 0.0, 1.0)
        distance_km = 2 * EARTH_KM * np.arcsin(np.sqrt(chord))
        rtt = 2 * distance_km / FIBRE_KM_PER_MS * self._settings.detour_ratio
        return np.where(np.isnan(rtt), self._settings.unknown_rtt_ms, rtt)


def _load_ms(settings: WeightSettings, relays: Sequence[RelayView]) -> Floats:
    """What relays on the way cost for their load; infinite where nothing new may pass."""
    load = np.array([relay.load_ratio for relay in relays], np.float64)
    over = np.maximum(load - settings.load_free_ratio, 0.0)
    closed = np.array([relay.stage in {"draining", "empty"} for relay in relays], np.bool_)
    return np.where(closed | (load >= settings.load_full_ratio), np.inf, settings.load_ms * over**2)
