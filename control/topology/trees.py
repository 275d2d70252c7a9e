"""Trees: the relays of a region take what lives elsewhere from two of their own, and these alone over the long link.

Without them every relay of a region that has viewers of a track asks the origin, or whoever stands on the cheapest way
to it, and the same bytes cross the same sea once for each. With them an origin sends a region two copies, however many
relays it has. `planner` puts them between the plan and the tables: what relays are told is what comes out here.

For every origin outside a region its *heads* are the first two of its relays by a hash of (origin, relay), so that
origins have different heads and a relay that joins or leaves changes few of them. Whoever cannot go over both, because
it is no neighbour of theirs, has a third made head, and so on: a region of fifty has more heads than two. A head keeps
its own ways. Everybody else asks a head first, the other one next, and goes its own way after them; which of the two is
first for whom, a hash says, so that both are at work, and what one of them sent is there at once where it dies.

Who goes over a relay of another region that takes from a head asks that head in its place. Where that cannot be, the
relay in between is made a head as well.

Measured costs decide who takes part. A head may not be much dearer than the cheapest relay of its region for long, and
is near to those that take from it. A region of two has nothing to gain: both would be heads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from control.topology.paths import CANDIDATES, INDEX_BITS, NO_WAY, UNITS_PER_MS, Ints, Mask, Paths, Steps, Ways

Hashes = NDArray[np.uint64]
PARENTS = 2
"""Heads that a relay is told of."""


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """When relays of a region take from each other."""

    smallest: int = 3
    """A region of fewer relays has no heads."""
    dearer_ms: float = 15.0
    """So much more than the cheapest of its region a head may pay."""
    dropped_ms: float = 30.0
    """One that pays more than this in `cycles` on end is no head, until it has paid no more than that as often."""
    cycles: int = 3
    near_ms: float = 25.0
    """A relay takes from a head that is no farther. What is in its way counts, its load does not: while a region
    fills up it needs its tree most."""
    left_ms: float = 45.0
    """The same of a head that it takes from already."""
    relay_ms: float = 3.0
    rest_s: float = 10.0
    """A pair that got another next hop keeps it so long, unless that is dead: the plan's rule, for trees as well."""
    new_s: float = 25.0
    """But not while it is new: its links are still being measured."""


class Ground(NamedTuple):
    """What trees stand on. Relays by index, as in `Paths`."""

    ids: tuple[str, ...]
    regions: tuple[str, ...]
    linked: Mask
    """Who is whose neighbour, symmetric."""
    alive: Mask
    steady: Mask
    """Who may stay a head: not who is being emptied."""
    free: Mask
    """Who may become one: who has room besides."""


class Trees:
    """The ways of every pair as relays are told of them."""

    __slots__ = (
        "_dear",
        "_dismissed",
        "_first_at",
        "_heads",
        "_keys",
        "_moved_at",
        "_parents",
        "_settings",
        "_ways",
        "ids",
    )

    def __init__(self, settings: TreeSettings) -> None:
        self._settings = settings
        self.ids: tuple[str, ...] = ()
        self._ways = _nothing(0)
        self._heads: Mask = np.zeros((0, 0), np.bool_)
        self._dear = np.zeros((0, 0), np.uint8)
        self._dismissed: Mask = np.zeros((0, 0), np.bool_)
        self._parents: Ints = np.zeros((PARENTS, 0, 0), np.int32)
        self._moved_at = np.zeros((0, 0))
        self._first_at = np.zeros((0, 0))
        self._keys: Hashes = np.zeros(0, np.uint64)

    @property
    def ways(self) -> Ways:
        """Of every pair, [rank, origin, relay]; not to be changed. A step makes others."""
        return self._ways

    def place(self, origin: int, relay: int) -> str:
        """What a relay is for an origin: "head", "edge", or nothing where there is no tree."""
        hop = int(self._ways.hop[0, origin, relay])
        if self._heads[origin, relay]:
            return "head"
        return "edge" if hop and hop in self._parents[:, origin, relay].tolist() else ""

    def adapt(
        self,
        paths: Paths,
        ground: Ground,
        ways: Ways,
        changed: Mask,
        now: float,
        *,
        cycle: bool,
        links: Mask | None = None,
    ) -> Steps[Mask]:
        """Follow the plan's `ways`, of which `changed` pairs changed, a few milliseconds at a time.

        Returns which pairs are told of others. Heads are chosen in a `cycle`, and when relays came or went; in between
        pairs only leave what went bad: `links`, [sender, receiver], marks links that changed, None: all may have.
        One at a time; until it is over `ways` are partly those of before.
        """
        whole = cycle or links is None or ground.ids != self.ids
        if ground.ids != self.ids:
            self._adopt(ground.ids, now)
        if whole:
            yield from self._choose(paths, ground, ways, cycle=cycle)
            asked = np.arange(len(self.ids) ** 2)
        else:
            assert links is not None
            asked = np.flatnonzero(self._touched(ground, ways, changed, links))
        size = len(self.ids)
        origin, relay = (index.astype(np.int32) for index in np.divmod(asked, max(size, 1)))
        edge = ~self._heads[origin, relay] & (self._parents[0, origin, relay] > 0)
        told = np.zeros((size, size), np.bool_)
        if not len(asked):
            return told
        self._ways = Ways(*(field.copy() for field in self._ways))
        # Edges go as their heads are told to go.
        for part in (np.flatnonzero(~edge), np.flatnonzero(edge)):
            for at in range(0, len(part), _CHUNK):
                some = part[at : at + _CHUNK]
                self._tell(paths, ground, ways, origin[some], relay[some], told, now)
                yield
        return told

    # --- Who is a head ---

    def _choose(self, paths: Paths, ground: Ground, ways: Ways, *, cycle: bool) -> Steps[None]:
        size = len(self.ids)
        origin, relay = (index.astype(np.int32) for index in np.indices((size, size)))
        hops, vias, cost = _going(paths, ways, origin, relay)
        were, self._heads = self._heads, np.zeros((size, size), np.bool_)
        self._parents = np.zeros((PARENTS, size, size), np.int32)
        regions = np.array(ground.regions)
        for region in dict.fromkeys(ground.regions):
            members = np.flatnonzero((regions == region) & ground.alive)
            if len(members) < self._settings.smallest:
                continue
            origins = np.flatnonzero(regions != region)
            grid = np.ix_(origins, members)
            hop, here = hops[grid], cost[grid]
            # Heads bring it over the long link themselves, and leave room for one relay below them.
            fit = (vias[grid] == 0) & ((hop == 0) | (regions[np.maximum(hop - 1, 0)] != region))
            least = here.min(axis=1, initial=NO_WAY)[:, None]
            if cycle:
                self._judge(
                    grid,
                    ~fit | (here > least + _units(self._settings.dropped_ms)),
                    fit & (here <= least + _units(self._settings.dearer_ms)),
                )
            may = ground.free[members] | (ground.steady[members] & were[grid])
            eligible = (here < NO_WAY) & may & ~self._dismissed[grid]
            self._plant(origins, members, eligible, ground.linked[np.ix_(members, members)])
            yield
        self._relieve(paths, ground, ways)

    def _judge(self, grid: tuple[NDArray[np.intp], ...], poor: Mask, good: Mask) -> None:
        """Count who would be a poor head and who a good one; one lost packet on a long link decides nothing."""
        most, before = self._settings.cycles, self._dear[grid].astype(np.int32)
        first = np.where(poor, most, 0)
        self._dear[grid] = count = np.where(before == _UNSEEN, first, np.clip(before + poor - good, 0, most))
        self._dismissed[grid] = (count == most) | (self._dismissed[grid] & (count > 0))

    def _plant(self, origins: NDArray[np.intp], members: NDArray[np.intp], eligible: Mask, linked: Mask) -> None:
        """Make heads of the members of one region, in the order of their hashes, until everybody can go over two."""
        rank = _mixed(_mixed(self._keys[origins])[:, None] ^ self._keys[members])
        order = np.argsort(np.where(eligible, rank, np.uint64(0)), axis=1)[:, ::-1]
        row = np.arange(len(origins))
        heads = np.zeros(eligible.shape, np.bool_)
        reached = np.zeros(eligible.shape, np.int32)
        scores = np.zeros((PARENTS, *eligible.shape), np.uint64)
        parents = np.zeros((PARENTS, *eligible.shape), np.int32)
        for place in range(len(members)):
            if (heads | (reached >= PARENTS)).all():
                break
            one = order[:, place]
            missed = (linked[one] & ~heads & (reached < PARENTS)).any(axis=1)
            taken = eligible[row, one] & (missed | (reached[row, one] == 0))
            if not taken.any():
                continue
            heads[row[taken], one[taken]] = True
            below = linked[one] & taken[:, None]
            reached += below
            score = np.where(below, _mixed(rank[row, one][:, None] ^ _mixed(self._keys[members])), np.uint64(0))
            number = (members[one] + 1).astype(np.int32)[:, None]
            first, second = below & (score > scores[0]), below & (score <= scores[0]) & (score > scores[1])
            for index, values in ((parents, number), (scores, score)):
                index[1] = np.where(first, index[0], np.where(second, values, index[1]))
                index[0] = np.where(first, values, index[0])
        grid = np.ix_(origins, members)
        self._heads[grid] = heads
        for kept, values in zip(self._parents, parents):
            kept[grid] = values

    def _relieve(self, paths: Paths, ground: Ground, ways: Ways) -> None:
        """Make heads of those whom relays that are none go over, and cannot go over a head instead."""
        hop = ways.hop[0]
        edge = ~self._heads & (self._parents[0] > 0)
        over = np.take_along_axis(edge, np.maximum(hop - 1, 0), axis=1) & (hop > 0) & (ways.cost[0] < NO_WAY)
        origin, relay = (index.astype(np.int32) for index in np.nonzero(over & ~edge))
        first = Ways(*(field[0, origin, relay] for field in ways))
        alone = self._instead(paths, ground, ways, origin, relay, first).cost >= NO_WAY
        self._heads[origin[alone], hop[origin, relay][alone] - 1] = True

    # --- What a pair is told ---

    def _tell(
        self, paths: Paths, ground: Ground, ways: Ways, origin: Ints, relay: Ints, told: Mask, now: float
    ) -> None:
        """Bring these pairs up to date, and mark those that changed."""
        before = Ways(*(field[:, origin, relay] for field in self._ways))
        found = self._rested(ground, origin, relay, before, self._told(paths, ground, ways, origin, relay), now)
        there, was = found.cost < NO_WAY, before.cost < NO_WAY
        same = (found.hop == before.hop) & (found.via == before.via) & there & was
        for field, old, new in zip(self._ways, before, found):
            field[:, origin, relay] = np.where(same, old, new)
        told[origin, relay] = (~same & (there | was)).any(axis=0)

    def _told(self, paths: Paths, ground: Ground, ways: Ways, origin: Ints, relay: Ints) -> Ways:
        """Of each pair, [rank, pair]: heads, where it takes from them, and its own ways, no next hop twice."""
        slots = []
        for parents in self._parents:
            head = np.where(self._heads[origin, relay], 0, parents[origin, relay])
            slot, asked = _none(head), np.flatnonzero(head)
            if len(asked):
                way = self._near(paths, origin[asked], relay[asked], head[asked])
                for field, values in zip(slot, way):
                    field[asked] = values
            slots.append(slot)
        for rank in range(CANDIDATES):
            way = Ways(*(field[rank, origin, relay] for field in ways))
            other = self._instead(paths, ground, ways, origin, relay, way)
            slots.append(Ways(*(np.where(other.cost < NO_WAY, new, old) for new, old in zip(other, way))))
        return _distinct(slots)

    def _near(self, paths: Paths, origin: Ints, relay: Ints, head: Ints) -> Ways:
        """The way of each pair over a head of its own region, as that is told to go; none where it is too far."""
        far = paths.cost_of(head - 1, relay, _zero(head), _zero(head))
        taken = self._ways.hop[0, origin, relay] == head
        near = far <= np.where(taken, _units(self._settings.left_ms), _units(self._settings.near_ms))
        return self._over(paths, self._ways, origin, relay, np.where(near, head, 0).astype(np.int32))

    def _over(self, paths: Paths, ways: Ways, origin: Ints, relay: Ints, head: Ints) -> Ways:
        """The way of each pair over a head, index + 1, that goes by these ways; none where there is none."""
        at = np.maximum(head - 1, 0)
        hop, via, there = _going(paths, ways, origin, at)
        cost = there.astype(np.int64) + paths.cost_of(at, relay, _zero(at), _zero(at))
        cost += _units(self._settings.relay_ms)
        fits = (head > 0) & (at != relay) & (via == 0) & (hop != relay + 1) & (cost < NO_WAY)
        return Ways(*(np.where(fits, value, none).astype(np.int32) for value, none in zip((head, hop, cost), _NONE)))

    def _instead(self, paths: Paths, ground: Ground, ways: Ways, origin: Ints, relay: Ints, way: Ways) -> Ways:
        """Where a way leads over an edge: one over a head of that edge."""
        at = np.maximum(way.hop - 1, 0)
        edge = (way.cost < NO_WAY) & (way.hop > 0) & ~self._heads[origin, at] & (self._parents[0, origin, at] > 0)
        asked = np.flatnonzero(edge)
        found = _none(at)
        if not len(asked):
            return found
        origin, relay, at = origin[asked], relay[asked], at[asked]
        for parents in self._parents:
            head = parents[origin, at]
            head = np.where(ground.linked[np.maximum(head - 1, 0), relay], head, 0).astype(np.int32)
            other = self._over(paths, ways, origin, relay, head)
            missing = found.cost[asked] >= NO_WAY
            for field, values in zip(found, other):
                field[asked[missing]] = values[missing]
        return found

    def _rested(self, ground: Ground, origin: Ints, relay: Ints, before: Ways, found: Ways, now: float) -> Ways:
        """Leave pairs their first next hop that they got a short while ago, and note who moves."""
        had, has = before.cost[0] < NO_WAY, found.cost[0] < NO_WAY
        moves = had & has & (before.hop[0] != found.hop[0])
        resting = now - self._moved_at[origin, relay] < self._settings.rest_s
        resting &= now - self._first_at[origin, relay] >= self._settings.new_s
        lost = np.concatenate(([False], ~ground.alive))
        held = moves & resting & ~(lost[before.hop[0]] | lost[before.via[0]])
        moved = moves & ~held
        self._moved_at[origin[moved], relay[moved]] = now
        slots = [Ways(*(field[0, held] for field in before))]
        slots += [Ways(*(field[rank, held] for field in found)) for rank in range(CANDIDATES)]
        for field, values in zip(found, _distinct(slots)):
            field[:, held] = values
        return found

    # --- What changed ---

    def _touched(self, ground: Ground, ways: Ways, changed: Mask, links: Mask) -> Mask:
        """Pairs whose ways changed, or those of a head that they go over, or a link on the way."""
        hop, via = ways.hop[0], ways.via[0]
        shaken = changed.copy()
        touched = np.zeros_like(changed)
        for sender, receiver in np.argwhere(links).tolist():
            first = np.where(via[sender] > 0, via[sender], hop[sender])
            shaken[sender] |= first == receiver + 1
            shaken[:, receiver] |= hop[:, receiver] == sender + 1
            shaken[sender, receiver] = True
            touched[:, receiver] |= (self._parents[:, :, receiver] == sender + 1).any(axis=0)
            touched[:, receiver] |= (self._ways.hop[:, :, receiver] == sender + 1).any(axis=0)
        far_origin, far = np.nonzero(via)
        between = links[via[far_origin, far] - 1, hop[far_origin, far] - 1]
        shaken[far_origin[between], far[between]] = True
        if not ground.alive.all():
            lost = np.concatenate(([False], ~ground.alive))
            touched |= lost[self._ways.hop[0]] | lost[self._ways.via[0]] | lost[hop]
            shaken |= lost[hop] | ~ground.alive
        touched |= shaken
        for origin, head in np.argwhere(touched & self._heads).tolist():
            touched[origin] |= (self._parents[:, origin] == head + 1).any(axis=0)
            touched[origin] |= (self._ways.hop[:, origin] == head + 1).any(axis=0)
        return touched

    def _adopt(self, ids: tuple[str, ...], now: float) -> None:
        """Number everything as these relays are."""
        before = {relay: index for index, relay in enumerate(self.ids)}
        came_from = np.array([before.get(relay, -1) for relay in ids], np.intp)
        kept = np.flatnonzero(came_from >= 0)
        number = np.zeros(len(self.ids) + 1, np.int32)
        number[came_from[kept] + 1] = kept + 1
        to, at = np.ix_(kept, kept), np.ix_(came_from[kept], came_from[kept])
        ways, moved_at = _nothing(len(ids)), np.full((len(ids), len(ids)), -np.inf)
        first_at = np.full(moved_at.shape, now)
        heads = np.zeros((len(ids), len(ids)), np.bool_)
        for rank in range(CANDIDATES):
            hop, via, cost = (field[rank][at] for field in self._ways)
            lost = ((hop > 0) & (number[hop] == 0)) | ((via > 0) & (number[via] == 0))
            for field, values in zip(ways, (number[hop], number[via], cost)):
                field[rank][to] = np.where(lost, NO_WAY if field is ways.cost else 0, values)
        dear, dismissed = np.full(heads.shape, _UNSEEN, np.uint8), np.zeros(heads.shape, np.bool_)
        moved_at[to], first_at[to], heads[to] = self._moved_at[at], self._first_at[at], self._heads[at]
        dear[to], dismissed[to] = self._dear[at], self._dismissed[at]
        self._ways, self._moved_at, self._heads, self.ids = ways, moved_at, heads, ids
        self._first_at, self._dear, self._dismissed = first_at, dear, dismissed
        self._keys = np.array([_key(relay) for relay in ids], np.uint64)


_NONE = (0, 0, NO_WAY)
_UNSEEN = 255
_CHUNK = 1 << 14


def _going(paths: Paths, ways: Ways, origin: Ints, relay: Ints) -> Ways:
    """The first way of each pair that can be used, as relays choose it, with what it costs now."""
    hop, via, cost = (field[0, origin, relay] for field in ways)
    found = Ways(hop, via, np.where(cost < NO_WAY, paths.cost_of(origin, relay, hop, via), NO_WAY).astype(np.int32))
    for rank in range(1, CANDIDATES):
        bad = np.nonzero(found.cost >= NO_WAY)
        at = (origin[bad], relay[bad])
        hop, via, cost = (field[rank, *at] for field in ways)
        cost = np.where(cost < NO_WAY, paths.cost_of(*at, hop, via), NO_WAY)
        for field, values in zip(found, (hop, via, cost)):
            field[bad] = np.where(cost < NO_WAY, values, field[bad])
    return found


def _distinct(slots: Sequence[Ways]) -> Ways:
    """The first ways of each pair that are there, each with a next hop of its own."""
    hop, via, cost = (np.stack([way[field] for way in slots]) for field in range(3))
    kept = cost < NO_WAY
    for slot in range(1, len(slots)):
        kept[slot] &= ~(kept[:slot] & (hop[:slot] == hop[slot])).any(axis=0)
    order = np.argsort(~kept, axis=0, kind="stable")[:CANDIDATES]
    there = np.take_along_axis(kept, order, axis=0)
    return Ways(
        *(
            np.where(there, np.take_along_axis(field, order, axis=0), none).astype(np.int32)
            for field, none in zip((hop, via, cost), _NONE)
        )
    )


def _nothing(size: int) -> Ways:
    shape = (CANDIDATES, size, size)
    return Ways(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, NO_WAY, np.int32))


def _none(like: Ints) -> Ways:
    """No way, for as many pairs."""
    return Ways(_zero(like), _zero(like), np.full(like.shape, NO_WAY, np.int32))


def _zero(like: Ints) -> Ints:
    return np.zeros(like.shape, np.int32)


def _units(cost_ms: float) -> int:
    return int(cost_ms * UNITS_PER_MS) << INDEX_BITS


def _key(relay: str) -> int:
    return int.from_bytes(hashlib.sha256(relay.encode()).digest()[:8], "big")


def _mixed(values: Hashes) -> Hashes:
    """Other numbers, each as different from the others as any (the finaliser of SplitMix64)."""
    found = values ^ (values >> np.uint64(30))
    found = found * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = found ^ (found >> np.uint64(31))
    return mixed
