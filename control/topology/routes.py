"""The plan in force: which ways every pair has, and when it is worth giving it others.

The cheapest way of this second is not the plan. A pair's first way stays until it is bad or gone, or until another has
been at least a tenth and 5 ms better in three cycles one after the other; then it moves, the biggest gains first, and
at most 2 % of all pairs in one cycle. A pair whose first way went bad moves at once, but once in 10 s only: its relay
has spares of its own, and a plan that follows every flap helps nobody. Spares change when they break, when their pair
moves, or when others are clearly better. So most of a table stays as it was, and with it what relays are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from control.topology.paths import CANDIDATES, INDEX_BITS, NO_WAY, UNITS_PER_MS, Ints, Mask, Paths, Ways


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """What a change has to be worth, and how many there may be."""

    better_ratio: float = 0.10
    better_ms: float = 5.0
    cycles: int = 3
    moved_ratio: float = 0.02
    """Of all pairs, in one cycle; at least one pair."""
    rest_s: float = 10.0


class Cause(IntEnum):
    """Why a pair has the first way that it has."""

    NONE = 0
    """There is no way."""
    FIRST = 1
    """The cheapest when the pair was first seen."""
    BETTER = 2
    BAD = 3
    """The one before went bad."""
    GONE = 4
    """A relay of the one before is gone."""


class Step(NamedTuple):
    """What one computation changed. Matrices are [origin, relay]."""

    changed: Mask
    """Pairs with other ways than before."""
    first: int
    better: int
    bad: int
    gone: int
    waiting: int
    """Pairs that had earned a better way and have to wait for a later cycle."""
    resting: int
    """Pairs whose first way is bad and who moved less than `rest_s` ago: their relays use spares."""
    pathless: int
    """Pairs without any way that can be used."""
    fault: str = ""
    """Not empty: an invariant does not hold, and the plan before is still in force."""


class Standing(NamedTuple):
    """How one pair stands, for people."""

    ways: tuple[tuple[int, int, int], ...]
    """(hop, via, cost when chosen) of each candidate."""
    cause: Cause
    better_cycles: int
    moved_age_s: float


@dataclass(slots=True)
class _Plan:
    """Everything that a step changes, replaced as a whole. `ways` has an axis for the rank before those of the pair."""

    ways: Ways
    better: NDArray[np.uint8]
    moved_at: NDArray[np.float64]
    cause: NDArray[np.uint8]

    def copy(self) -> _Plan:
        return _Plan(Ways(*(f.copy() for f in self.ways)), self.better.copy(), self.moved_at.copy(), self.cause.copy())


class Routes:
    """The ways in force of every ordered pair of the relays `ids`."""

    __slots__ = ("_indices", "_plan", "_settings", "ids")

    def __init__(self, settings: RouteSettings) -> None:
        self._settings = settings
        self.ids: tuple[str, ...] = ()
        self._plan = _nothing(0)
        self._indices = _pairs(0)

    @property
    def ways(self) -> Ways:
        """Of every pair, [rank, origin, relay], with what each cost when it was chosen; not to be changed."""
        return self._plan.ways

    def standing(self, origin: int, relay: int, now: float) -> Standing:
        """How one pair stands."""
        plan = self._plan
        ways = [tuple(int(field[rank, origin, relay]) for field in plan.ways) for rank in range(CANDIDATES)]
        at = (origin, relay)
        there = tuple((hop, via, cost) for hop, via, cost in ways if cost < NO_WAY)
        return Standing(there, Cause(int(plan.cause[at])), int(plan.better[at]), now - float(plan.moved_at[at]))

    def step(self, paths: Paths, ids: Sequence[str], now: float, *, cycle: bool, removed: Mask | None = None) -> Step:
        """Adapt the plan to what ways cost now.

        `cycle`: this is one of the regular computations, which alone count what is better and move pairs to it.
        `removed` marks relays, by index, that died since `ids` was made.
        """
        plan = self._adopted(ids)
        size = len(ids)
        origin, relay = _pairs(size) if size != len(self.ids) else self._indices
        flat = Ways(*(field.reshape(CANDIDATES, -1) for field in plan.ways))
        best = Ways(*(field.ravel() for field in paths.cheapest()))
        costs = np.stack([paths.cost_of(origin, relay, flat.hop[k], flat.via[k]) for k in range(CANDIDATES)])
        costs = np.where(flat.cost < NO_WAY, costs, NO_WAY).astype(np.int32)
        moves = self._moves(plan, flat, best, costs[0], now, cycle=cycle, removed=removed)
        moving = moves.first | moves.better | moves.bad | moves.gone
        for field, values in zip(flat, best):
            field[0, moving] = values[moving]
        changed = moving | self._respare(paths, flat, costs, moving, cycle=cycle)
        again = moving & ~moves.first
        plan.moved_at.ravel()[again] = now
        for cause, mask in (
            (Cause.FIRST, moves.first),
            (Cause.BETTER, moves.better),
            (Cause.BAD, moves.bad),
            (Cause.GONE, moves.gone),
        ):
            plan.cause.ravel()[mask] = cause
        plan.better.ravel()[moving] = 0
        first, better, bad, gone = (int(mask.sum()) for mask in moves[:4])
        fault = fault_of(plan.ways) or ("too many pairs moved" if better > self._most_moved(size) else "")
        if not fault:
            self.ids, self._plan, self._indices = tuple(ids), plan, (origin, relay)
        return Step(changed.reshape(size, size), first, better, bad, gone, *moves[4:], fault)

    def _adopted(self, ids: Sequence[str]) -> _Plan:
        """A copy of the plan, for these relays. First ways over relays that are not among them are marked as gone."""
        if tuple(ids) == self.ids:
            return self._plan.copy()
        before = {relay: index for index, relay in enumerate(self.ids)}
        came_from = np.array([before.get(relay, -1) for relay in ids], np.intp)
        kept = np.flatnonzero(came_from >= 0)
        number = np.full(len(self.ids) + 1, -1, np.int32)
        number[0] = 0
        number[came_from[kept] + 1] = kept + 1
        plan, to, at = _nothing(len(ids)), np.ix_(kept, kept), np.ix_(came_from[kept], came_from[kept])
        for rank in range(CANDIDATES):
            hop, via, cost = (field[rank][at] for field in self._plan.ways)
            hop, via = number[hop], number[via]
            lost = (hop < 0) | (via < 0) | (plan.ways.cost[0][to] >= NO_WAY if rank else False)
            renumbered = (np.where(lost, 0, hop), np.where(lost, 0, via), np.where(lost, NO_WAY, cost))
            for field, values in zip(plan.ways, renumbered):
                field[rank][to] = values
            if rank == 0:
                plan.cause[to] = np.where(lost, Cause.GONE, self._plan.cause[at])
        plan.better[to], plan.moved_at[to] = self._plan.better[at], self._plan.moved_at[at]
        return plan

    def _moves(
        self, plan: _Plan, flat: Ways, best: Ways, cost: Ints, now: float, *, cycle: bool, removed: Mask | None
    ) -> _Moves:
        """Which pairs get another first way, and why. Updates what the plan counts."""
        settings = self._settings
        has, can = flat.cost[0] < NO_WAY, best.cost < NO_WAY
        usable = cost < NO_WAY
        resting = (now - plan.moved_at.ravel()) < settings.rest_s
        gone = ~has & (plan.cause.ravel() == Cause.GONE) & can
        if removed is not None and removed.any():
            lost = np.concatenate(([False], removed))
            gone |= has & can & (lost[flat.hop[0]] | lost[flat.via[0]])
        gain = np.where(has & usable & can, cost - best.cost, 0)
        least = int(settings.better_ms * UNITS_PER_MS) << INDEX_BITS
        better = (gain >= least) & (gain >= settings.better_ratio * cost)
        chosen = np.zeros(len(has), np.bool_)
        waiting = 0
        if cycle:
            count = plan.better.ravel()
            count[:] = np.where(better, np.minimum(count, 254) + 1, 0)
            ready = np.flatnonzero(better & (count >= settings.cycles) & ~resting)
            biggest = ready[np.argsort(-gain[ready], kind="stable")][: self._most_moved(len(plan.better))]
            chosen[biggest] = True
            waiting = len(ready) - len(biggest)
        broken = has & ~usable & can & ~gone
        size = len(plan.better)
        pathless = int((~can).sum()) - size
        first = ~has & can & ~gone
        return _Moves(first, chosen, broken & ~resting, gone, waiting, int((broken & resting).sum()), pathless)

    def _most_moved(self, size: int) -> int:
        return max(1, int(self._settings.moved_ratio * size * (size - 1)))

    def _respare(self, paths: Paths, flat: Ways, costs: Ints, moving: Mask, *, cycle: bool) -> Mask:
        """Give spares to who needs or deserves others; returns who got any."""
        has = flat.cost[0] < NO_WAY
        broken = (costs[1:] >= NO_WAY) & (flat.cost[1:] < NO_WAY)
        asked = np.flatnonzero(has & (moving | broken.any(axis=0) | cycle))
        origin, relay = (index[asked] for index in _pairs(paths.size))
        # A bad first way that is kept still takes its relays from the spares.
        first = Ways(flat.hop[0, asked], flat.via[0, asked], np.zeros(len(asked), np.int32))
        spares = paths.spares(origin, relay, first)
        worse = moving[asked] | broken[:, asked].any(axis=0)
        least = int(self._settings.better_ms * UNITS_PER_MS) << INDEX_BITS
        for rank, spare in enumerate(spares, start=1):
            gain = costs[rank, asked] - spare.cost
            worse |= (gain >= least) & (gain >= self._settings.better_ratio * costs[rank, asked])
        differs = np.zeros(len(asked), np.bool_)
        for rank, spare in enumerate(spares, start=1):
            for field, values in zip(flat[:2], spare[:2]):
                differs |= field[rank, asked] != values
            differs |= (flat.cost[rank, asked] < NO_WAY) != (spare.cost < NO_WAY)
        taken = worse & (differs | moving[asked])
        for rank, spare in enumerate(spares, start=1):
            for field, values in zip(flat, spare):
                field[rank, asked[taken]] = values[taken]
        changed = np.zeros(len(has), np.bool_)
        changed[asked[taken]] = True
        return changed


def fault_of(ways: Ways) -> str:
    """What is wrong with ways of pairs, [rank, origin, relay]; empty: nothing.

    No way leads through its own ends, none has a relay twice, and no two ways of a pair share a relay.
    """
    there = ways.cost < NO_WAY
    hop, via = np.where(there, ways.hop, -1), np.where(there, ways.via, 0)
    size = hop.shape[1]
    origin, relay = np.arange(1, size + 1)[None, :, None], np.arange(1, size + 1)[None, None, :]
    if there[:, range(size), range(size)].any():
        return "a way from a relay to itself"
    if ((hop == relay) | (via == relay) | (hop == origin) | (via == origin)).any():
        return "a way through one of its ends"
    if ((via > 0) & ((hop <= 0) | (hop == via))).any() or (hop > size).any() or (via > size).any():
        return "a way with a relay twice, or with none before its second"
    if (there[1:] & ~there[:1]).any():
        return "a spare without a first way"
    for one in range(len(hop)):
        for other in range(one):
            both = there[one] & there[other]
            shared = (hop[one] == hop[other]) | ((via[one] > 0) & ((via[one] == via[other]) | (via[one] == hop[other])))
            if (both & (shared | ((via[other] > 0) & (via[other] == hop[one])))).any():
                return "two ways of a pair over one relay"
    return ""


class _Moves(NamedTuple):
    first: Mask
    better: Mask
    bad: Mask
    gone: Mask
    waiting: int
    resting: int
    pathless: int


def _nothing(size: int) -> _Plan:
    shape = (CANDIDATES, size, size)
    ways = Ways(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, NO_WAY, np.int32))
    return _Plan(
        ways,
        np.zeros((size, size), np.uint8),
        np.full((size, size), -np.inf),
        np.full((size, size), Cause.NONE, np.uint8),
    )


def _pairs(size: int) -> tuple[Ints, Ints]:
    origin, relay = (index.ravel().astype(np.int32) for index in np.indices((size, size)))
    return origin, relay
