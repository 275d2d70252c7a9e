"""Round trips that viewers measured themselves, by neighbourhood and region: what corrects every table of places.

A player probes a few candidates and says what it found when it asks again. A neighbourhood (`locating.bucket_of`) has
a figure for a region once three viewers have spoken: an average over time of the median of those heard last, one word
each. So one client, however often it speaks and whatever it says, moves nobody but itself; that its own words count for
itself at once is up to who calls this.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from tradewind.placing.locating import Address, bucket_of

MAX_BUCKETS = 65_536
MAX_REGIONS_PER_BUCKET = 8
HEARD = 9
"""Viewers whose last word about a region is kept."""
QUORUM = 3
WEIGHT = 0.3
"""Of the newest median in the average."""
LEAST_MS, MOST_MS = 0.5, 3000.0
KEEP_S = 6 * 3600.0
"""How long a word counts."""


class MeasurementStatistics(NamedTuple):
    """What `/state` shows."""

    buckets: int
    reports: int
    ignored: int


class Measurements:
    """What was measured from where. Bounded: the neighbourhood that was silent longest is forgotten first."""

    __slots__ = ("_buckets", "_ignored", "_most", "_reports")

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self._buckets: OrderedDict[int, dict[str, _Series]] = OrderedDict()
        self._most = max_buckets
        self._reports = 0
        self._ignored = 0

    def apply(self, address: Address, viewer: str, region: str, rtt_ms: float, now: float) -> None:
        """Take in what a viewer says; `viewer` is the same for one access token. Regions are known ones.

        Nonsense, and more regions than a neighbourhood can have, is counted and forgotten.
        """
        if not LEAST_MS <= rtt_ms <= MOST_MS:
            self._ignored += 1
            return
        key = bucket_of(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = {}
        else:
            self._buckets.move_to_end(key)
        series = bucket.get(region)
        if series is None:
            if len(bucket) >= MAX_REGIONS_PER_BUCKET:
                stalest = min(bucket, key=lambda name: bucket[name].heard[-1].at)
                if now - bucket[stalest].heard[-1].at < KEEP_S:
                    self._ignored += 1
                    return
                del bucket[stalest]
            series = bucket[region] = _Series()
        self._reports += 1
        # Two words from one network, or with one token, may be one client: they count once.
        series.hear(_Word(_network(address), viewer, rtt_ms, now))

    def rtts_ms(self, address: Address, now: float) -> tuple[tuple[str, float], ...]:
        """Region and milliseconds for what this address's neighbourhood agrees on, in the order of names."""
        bucket = self._buckets.get(bucket_of(address))
        if not bucket:
            return ()
        return tuple(
            (region, series.average)
            for region, series in sorted(bucket.items())
            if series.average is not None and now - series.heard[-1].at < KEEP_S
        )

    def statistics(self) -> MeasurementStatistics:
        """How much there is."""
        return MeasurementStatistics(len(self._buckets), self._reports, self._ignored)

    def check_invariants(self) -> None:
        """What holds between any two calls."""
        assert len(self._buckets) <= self._most
        for bucket in self._buckets.values():
            assert 0 < len(bucket) <= MAX_REGIONS_PER_BUCKET
            for series in bucket.values():
                assert 0 < len(series.heard) <= HEARD
                assert len({word.network for word in series.heard}) == len(series.heard)
                assert len({word.viewer for word in series.heard}) == len(series.heard)
                assert series.average is None or LEAST_MS <= series.average <= MOST_MS


class _Word(NamedTuple):
    network: int
    viewer: str
    rtt_ms: float
    at: float


class _Series:
    """What was heard of one region in one neighbourhood, and what is made of it."""

    __slots__ = ("average", "heard")

    def __init__(self) -> None:
        self.average: float | None = None
        self.heard: list[_Word] = []

    def hear(self, word: _Word) -> None:
        kept = [
            other
            for other in self.heard
            if other.network != word.network and other.viewer != word.viewer and word.at - other.at < KEEP_S
        ]
        self.heard = [*kept[-HEARD + 1 :], word]
        if len(self.heard) < QUORUM:
            return
        ordered = sorted(other.rtt_ms for other in self.heard)
        middle = ordered[(len(ordered) - 1) // 2]
        self.average = middle if self.average is None else self.average + WEIGHT * (middle - self.average)


def _network(address: Address) -> int:
    """What one client can be taken to have for itself: an IPv4 address, an IPv6 /64."""
    return int(address) if address.version == 4 else int(address) >> 64
