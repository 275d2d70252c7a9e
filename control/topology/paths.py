"""The cheapest ways between all relays: over no, one or two relays, and spares that share no relay and no region.

Media flows from an origin to the relay that wants it, so every matrix here is indexed [origin, relay] or, for links,
[sender, receiver], and each direction is computed by itself. A way is (hop, via): `hop` is the relay that the asker
asks, 0 where that is the origin itself, else index + 1; `via` likewise the relay between hop and origin, 0: none.

A pair's ways are ranked so:
1. First is the cheapest of all: direct, over one relay, or over two where that is cheaper than anything shorter.
2. Spares share no relay with those before them. First come direct and one-relay ways that also share no crossing,
   then any direct or one-relay way, then two-relay ways whose relays nearest the origin are best for their hop. A
   second relay is one more that can fail, and seldom saves anything.
A way's crossings are its relays' regions. Relays in the regions of the ends do not count: whoever goes over them only,
or direct, takes the crossing that the two regions have between them. Inside one region each region counts as itself.

Costs are whole sixteenths of a millisecond, shifted left to make room for an index: one 32-bit minimum finds the
cheapest way and the relay that it goes over, ties go to the smallest index, sums are exact, and what is recomputed
after one change equals what would have been computed anew.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""Work that is done a few milliseconds at a time; what it came to is what it returns."""
Ints: TypeAlias = NDArray[np.int32]
Mask: TypeAlias = NDArray[np.bool_]

UNITS_PER_MS = 16
INDEX_BITS = 11
INDEX_MASK = (1 << INDEX_BITS) - 1
MAX_RELAYS = INDEX_MASK
NO_WAY = 1 << 29
"""As much or more than this is no way at all. The dearest way of two relays stays below it."""
MAX_LINK_MS, MAX_RELAY_MS = 4000.0, 2000.0
CANDIDATES = 3

_BEST_BYTES = 1 << 28
_MOST_LABELS = 64
_CHUNK = 1 << 15
_ROWS = 128
_SEGMENTS, _HOPS = 8, 128
"""How much of 128 rows is one step: a few milliseconds of 500 relays."""


class Ways(NamedTuple):
    """Ways of some pairs: arrays of one shape. Where there is none, `cost` is `NO_WAY` and the rest 0."""

    hop: Ints
    via: Ints
    cost: Ints
    """In units of `UNITS_PER_MS`, shifted by `INDEX_BITS`; see `milliseconds`."""


def quantised(cost_ms: NDArray[np.float64], most_ms: float) -> Ints:
    """Milliseconds as costs; infinite ones as `NO_WAY`. What is dearer than `most_ms` is made that dear."""
    finite = np.clip(np.where(np.isfinite(cost_ms), cost_ms, 0.0), 0.0, most_ms)
    units = np.rint(finite * UNITS_PER_MS).astype(np.int32) << INDEX_BITS
    return np.where(np.isfinite(cost_ms), units, NO_WAY).astype(np.int32)


def finish(steps: Steps[T]) -> T:
    """Do all of it now."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def milliseconds(cost: Ints) -> NDArray[np.float64]:
    """Costs as milliseconds; infinite where there is no way."""
    return np.where(cost >= NO_WAY, np.inf, (cost >> INDEX_BITS) / UNITS_PER_MS)


def labels_of(regions: Sequence[str]) -> Ints:
    """Numbers for regions, in order of their names. With many of them some share one: those count as one region."""
    names = sorted(set(regions))
    most = max(2, min(_MOST_LABELS, _BEST_BYTES // (4 * max(1, len(regions)) ** 2)))
    number = {name: index * min(len(names), most) // len(names) for index, name in enumerate(names)}
    return np.array([number[region] for region in regions], np.int32)


class Paths:
    """All ways over one set of relays, kept up to date. Relays have to be ordered by label.

    `links` is what each directed link costs, [sender, receiver], `relays` what each relay on the way does, both from
    `quantised`; `labels` says whose regions are one.
    """

    __slots__ = (
        "_best",
        "_labels",
        "_legs",
        "_links",
        "_links_into",
        "_relays",
        "_segments",
        "_short",
        "_two",
        "_twos",
    )

    def __init__(self, links: Ints, relays: Ints, labels: Ints) -> None:
        self._begin(links, relays, labels)
        finish(self._compute())

    @classmethod
    def in_steps(cls, links: Ints, relays: Ints, labels: Ints) -> Steps[Paths]:
        """The same, made a few milliseconds at a time."""
        paths = cls.__new__(cls)
        paths._begin(links, relays, labels)
        yield from paths._compute()
        return paths

    def _begin(self, links: Ints, relays: Ints, labels: Ints) -> None:
        size = len(relays)
        if links.shape != (size, size) or labels.shape != (size,) or size > MAX_RELAYS:
            raise ValueError(f"{size} relays do not fit links of {links.shape}")
        if np.any(np.diff(labels) < 0):
            raise ValueError("relays have to be ordered by label")
        self._labels = labels
        starts = [0, *(int(at) for at in np.flatnonzero(np.diff(labels)) + 1), size]
        self._segments = [slice(a, b) for a, b in pairwise(starts)] if size else []
        self._links = links.copy()
        np.fill_diagonal(self._links, NO_WAY)
        self._links_into = np.ascontiguousarray(self._links.T)
        self._relays = relays.copy()
        self._best = np.full((len(self._segments), size, size), NO_WAY, np.int32)
        self._legs, self._twos, self._two = (np.empty_like(self._links) for _ in range(3))
        self._short = np.empty_like(self._links)

    @property
    def size(self) -> int:
        """How many relays there are."""
        return len(self._relays)

    # --- What is asked ---

    def cheapest(self) -> Ways:
        """The cheapest way of every pair, [origin, relay]."""
        origin, relay = np.indices((self.size, self.size), np.int32)
        return self.cheapest_of(origin, relay)

    def cheapest_of(self, origin: Ints, relay: Ints) -> Ways:
        """The cheapest way of each of these pairs."""
        one = np.minimum(self._links[origin, relay], self._short[origin, relay])
        two = self._two[origin, relay]
        over_two = (two & ~INDEX_MASK) < (one & ~INDEX_MASK)
        key = np.where(origin == relay, NO_WAY, np.where(over_two, two, one))
        return self._ways(key, over_two, origin)

    def cost_of(self, origin: Ints, relay: Ints, hop: Ints, via: Ints) -> Ints:
        """What ways cost now, whoever chose them; `NO_WAY` or more where they cannot be used."""
        last = np.where(hop == 0, origin, hop - 1)
        cost = self._links[last, relay].astype(np.int64)
        middle = np.where(via == 0, origin, via - 1)
        cost += np.where(hop > 0, self._relays[last].astype(np.int64) + self._links[middle, last], 0)
        cost += np.where(via > 0, self._relays[middle].astype(np.int64) + self._links[origin, middle], 0)
        return np.minimum(cost, NO_WAY).astype(np.int32)

    def spares(self, origin: Ints, relay: Ints, first: Ways, count: int = CANDIDATES - 1) -> list[Ways]:
        """For each pair the next best ways beside `first`, best first, as the module says."""
        return finish(self.find_spares(origin, relay, first, count))

    def find_spares(self, origin: Ints, relay: Ints, first: Ways, count: int = CANDIDATES - 1) -> Steps[list[Ways]]:
        """`spares`, a few milliseconds at a time."""
        parts = []
        for at in range(0, len(origin), _CHUNK):
            chunk = slice(at, at + _CHUNK)
            yield
            parts.append(self._spares(origin[chunk], relay[chunk], Ways(*(f[chunk] for f in first)), count))
        if not parts:
            return [Ways(*(np.empty(0, np.int32) for _ in range(3)))] * count
        return [Ways(*(np.concatenate([part[n][f] for part in parts]) for f in range(3))) for n in range(count)]

    def candidates(self) -> list[Ways]:
        """The cheapest way and its spares, of every pair: three of shape [origin, relay]."""
        first = self.cheapest()
        origin, relay = (index.ravel().astype(np.int32) for index in np.indices((self.size, self.size)))
        spares = self.spares(origin, relay, Ways(*(field.ravel() for field in first)))
        return [first, *(Ways(*(field.reshape(first.hop.shape) for field in ways)) for ways in spares)]

    # --- What changes ---

    def set_link(self, sender: int, receiver: int, cost: int) -> None:
        """One directed link costs something else now."""
        self._links[sender, receiver] = self._links_into[receiver, sender] = cost
        self._set_legs(sender)
        short_before = self._twos[:, receiver].copy()
        self._refresh_origin(sender)
        self._refresh_relay(receiver)
        self._set_twos(np.s_[sender, :])
        self._set_twos(np.s_[:, receiver])
        self._two[sender] = (self._twos[sender][:, None] + self._links).min(axis=0, initial=NO_WAY)
        self._two[:, receiver] = (self._twos + self._links_into[receiver]).min(axis=1, initial=NO_WAY)
        self._rehop(np.flatnonzero(self._twos[:, receiver] != short_before), receiver)

    def remove(self, relay: int) -> None:
        """A relay is gone: nobody's way leads over it, to it or from it."""
        self._links[relay], self._links[:, relay] = NO_WAY, NO_WAY
        self._links_into[relay], self._links_into[:, relay] = NO_WAY, NO_WAY
        self._set_legs(np.s_[:])
        for table in (self._short, self._two, *self._best):
            table[relay], table[:, relay] = NO_WAY, NO_WAY
        self._bypass(relay)

    # --- How it is computed ---

    def _bypass(self, relay: int) -> None:
        """Find other ways for whoever goes over a relay whose links are gone."""
        twos_before = self._twos.copy()
        label = int(np.searchsorted([s.stop for s in self._segments], relay, side="right"))
        best, segment = self._best[label], self._segments[label]
        origin, asker = np.nonzero((best & INDEX_MASK) == relay + 1)
        legs, links_into = self._legs[:, segment], self._links_into[:, segment]
        for at in range(0, len(origin), _CHUNK):
            o, r = origin[at : at + _CHUNK], asker[at : at + _CHUNK]
            best[o, r] = (legs[o] + links_into[r]).min(axis=1, initial=NO_WAY)
        origin, asker = np.nonzero((self._short & INDEX_MASK) == relay + 1)
        self._short[origin, asker] = self._best[:, origin, asker].min(axis=0, initial=NO_WAY)
        self._set_twos(np.s_[:, :])
        hop = (self._two & INDEX_MASK) - 1
        broken = np.take_along_axis(self._twos != twos_before, np.maximum(hop, 0), axis=1) & (hop >= 0)
        origin, asker = np.nonzero(broken | (hop == relay))
        self._retwo(origin, asker)

    def _compute(self) -> Steps[None]:
        self._set_legs(np.s_[:])
        for at in range(0, self.size, _ROWS):
            rows = slice(at, at + _ROWS)
            sums = np.empty(self._legs[rows].shape, np.int32)
            for number, (best, segment) in enumerate(zip(self._best, self._segments)):
                self._extend(self._legs[rows], segment, best[rows], sums)
                if number % _SEGMENTS == _SEGMENTS - 1:
                    yield
            yield
        # Nobody goes round to where he is.
        self._best[:, range(self.size), range(self.size)] = NO_WAY
        self._short = self._best.min(axis=0, initial=NO_WAY)
        yield
        self._set_twos(np.s_[:, :])
        yield
        yield from self._compute_two()

    def _compute_two(self) -> Steps[None]:
        self._two.fill(NO_WAY)
        for at in range(0, self.size, _ROWS):
            rows = slice(at, at + _ROWS)
            sums = np.empty(self._twos[rows].shape, np.int32)
            for first in range(0, self.size, _HOPS):
                hops = slice(first, min(first + _HOPS, self.size))
                self._extend(self._twos[rows], hops, self._two[rows], sums)
                yield

    def _extend(self, legs: Ints, hops: slice, best: Ints, sums: Ints) -> None:
        """Lower `best` to what the last link from each of the hops makes of the way to it."""
        for hop in range(hops.start, hops.stop):
            np.add(legs[:, hop, None], self._links[hop], out=sums)
            np.minimum(best, sums, out=best)

    def _set_legs(self, origins: int | slice) -> None:
        """From an origin to a relay that passes it on, with that relay's index: what one-relay ways begin with."""
        legs = np.minimum(self._links[origins] + self._relays, NO_WAY)
        self._legs[origins] = legs + np.arange(1, self.size + 1, dtype=np.int32)

    def _set_twos(self, where: tuple[int | slice, int | slice]) -> None:
        """Over one relay to a second that passes it on: what two-relay ways begin with, where that saves something."""
        short = self._short[where] & ~INDEX_MASK
        hops = np.arange(self.size, dtype=np.int32)[where[1]]
        saves = short < self._links[where]
        self._twos[where] = np.where(saves, np.minimum(short + self._relays[hops], NO_WAY), NO_WAY) + hops + 1

    def _refresh_origin(self, origin: int) -> None:
        sums = self._legs[origin][:, None] + self._links
        for best, segment in zip(self._best, self._segments):
            best[origin] = sums[segment].min(axis=0, initial=NO_WAY)
            best[origin, origin] = NO_WAY
        self._short[origin] = self._best[:, origin].min(axis=0, initial=NO_WAY)

    def _refresh_relay(self, relay: int) -> None:
        sums = self._legs + self._links_into[relay]
        for best, segment in zip(self._best, self._segments):
            best[:, relay] = sums[:, segment].min(axis=1, initial=NO_WAY)
            best[relay, relay] = NO_WAY
        self._short[:, relay] = self._best[:, :, relay].min(axis=0, initial=NO_WAY)

    def _rehop(self, origins: NDArray[np.intp], hop: int) -> None:
        """What leads from these origins over one relay to `hop` changed: follow it, or find another."""
        if not len(origins):
            return
        before = self._two[origins]
        now = self._twos[origins, hop][:, None] + self._links[hop]
        self._two[origins] = np.minimum(before, now)
        row, asker = np.nonzero(((before & INDEX_MASK) == hop + 1) & (now > before))
        self._retwo(origins[row], asker)

    def _retwo(self, origin: NDArray[np.intp], relay: NDArray[np.intp]) -> None:
        """Find the best two-relay way of each of these pairs anew."""
        if len(origin) * 8 > self.size**2:
            finish(self._compute_two())
            return
        for at in range(0, len(origin), _CHUNK):
            o, r = origin[at : at + _CHUNK], relay[at : at + _CHUNK]
            self._two[o, r] = (self._twos[o] + self._links_into[r]).min(axis=1, initial=NO_WAY)

    def _ways(self, key: Ints, over_two: Mask, origin: NDArray[np.integer]) -> Ways:
        """What keys stand for; `over_two`: whose index is the second relay of two."""
        there = key < NO_WAY
        hop = np.where(there, key & INDEX_MASK, 0)
        via = np.where(there & over_two, self._short[origin, np.maximum(hop - 1, 0)] & INDEX_MASK, 0)
        return Ways(hop, via, np.where(there, key & ~INDEX_MASK, NO_WAY).astype(np.int32))

    def _spares(self, origin: Ints, relay: Ints, first: Ways, count: int) -> list[Ways]:
        taken = [np.where(first.cost < NO_WAY, first.hop, -1), first.via]
        result = []
        for key in self._other_crossings(origin, relay, first, count):
            ways = self._ways(key, np.zeros(len(key), np.bool_), origin)
            self._fill(ways, origin, relay, taken)
            taken += [np.where(ways.cost < NO_WAY, ways.hop, -1), ways.via]
            result.append(ways)
        return result

    def _other_crossings(self, origin: Ints, relay: Ints, first: Ways, count: int) -> list[Ints]:
        """The cheapest direct and one-relay ways that share no crossing with the first, nor with each other."""
        from_label, to_label = self._labels[origin], self._labels[relay]
        outside = from_label != to_label
        straight = first.hop == 0
        crossed = []
        for index in (first.hop, first.via):
            label = self._labels[np.maximum(index - 1, 0)]
            bare = (index > 0) & outside & ((label == from_label) | (label == to_label))
            straight |= bare
            crossed.append(np.where((index > 0) & ~bare, label, -1))
        best = [np.where(straight, NO_WAY, self._links[origin, relay])]
        best += [np.full_like(best[0], NO_WAY) for _ in range(count - 1)]
        flat = origin.astype(np.intp) * self.size + relay
        for label, table in zip(self._labels[[s.start for s in self._segments]], self._best):
            barred = ((from_label == label) ^ (to_label == label)) | (crossed[0] == label) | (crossed[1] == label)
            key = np.where(barred, NO_WAY, table.ravel()[flat])
            for rank in range(count):
                best[rank], key = np.minimum(best[rank], key), np.maximum(best[rank], key)
        return best

    def _fill(self, ways: Ways, origin: Ints, relay: Ints, taken: list[Ints]) -> None:
        """Where a spare is missing, take one that shares a crossing, or else one over two relays."""
        for over_two in (False, True):
            missing = np.flatnonzero((ways.cost >= NO_WAY) & (origin != relay) & (taken[0] >= 0))
            for at in range(0, len(missing), _ROWS * 8):
                pairs = missing[at : at + _ROWS * 8]
                used = [index[pairs] for index in taken]
                key = self._unshared(origin[pairs], relay[pairs], used, over_two)
                fresh = self._ways(key, np.full(len(key), over_two), origin[pairs])
                for field, values in zip(ways, fresh):
                    field[pairs] = values

    def _unshared(self, origin: Ints, relay: Ints, used: list[Ints], over_two: bool) -> Ints:
        """The cheapest way of each pair that goes over none of the relays in use."""
        legs = self._twos if over_two else self._legs
        sums = legs[origin] + self._links_into[relay]
        row = np.arange(len(origin))
        for index in used:
            sums[row, np.maximum(index - 1, 0)] = np.where(index > 0, NO_WAY, sums[row, np.maximum(index - 1, 0)])
        if over_two:
            via = self._short[origin] & INDEX_MASK
            for index in (*used, relay + 1):
                sums[(via == index[:, None]) & (index[:, None] > 0)] = NO_WAY
            return np.asarray(sums.min(axis=1, initial=NO_WAY), np.int32)
        is_direct = [index == 0 for index in used[::2]]
        direct = np.where(np.logical_or.reduce(is_direct), NO_WAY, self._links[origin, relay])
        return np.asarray(np.minimum(sums.min(axis=1, initial=NO_WAY), direct), np.int32)
