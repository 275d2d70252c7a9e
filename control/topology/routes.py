"""The plan in force: which ways every pair has, and when it is worth giving it others.

The cheapest way of this second is not the plan. A pair's first way stays until it is bad or gone, or until another has
been at least a tenth and 5 ms better in three cycles one after the other; then it moves, the biggest gains first, and
at most 2 % of all pairs in one cycle. A pair whose first way went bad moves at once, but once in 10 s only: its relay
has spares of its own, and a plan that follows every flap helps nobody. While a pair is new its links are still being
measured: it gets what is better in the next cycle, without patience and beside the 2 %. Spares change when they break,
when their pair moves, or when others are clearly better. So most of a table stays as it was, and with it what relays
are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from control.topology.paths import CANDIDATES, INDEX_BITS, NO_WAY, UNITS_PER_MS, Ints, Mask, Paths, Steps, Ways


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """What a change has to be worth, and how many there may be."""

    better_ratio: float = 0.10
    better_ms: float = 5.0
    cycles: int = 3
    moved_ratio: float = 0.02
    """Of all pairs, in one cycle; at least one pair."""
    rest_s: float = 10.0
    new_s: float = 25.0
    """So long after a pair was first seen what is better counts at once: two cycles, in which links come up."""


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
    first_at: NDArray[np.float64]
    cause: NDArray[np.uint8]
    troubled: Mask
    """Pairs without a way, or whose first way cannot be used: every event looks at them."""

    def copy(self) -> _Plan:
        return _Plan(
            Ways(*(field.copy() for field in self.ways)),
            self.better.copy(),
            self.moved_at.copy(),
            self.first_at.copy(),
            self.cause.copy(),
            self.troubled.copy(),
        )


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

    def adapt(
        self,
        paths: Paths,
        ids: Sequence[str],
        now: float,
        *,
        cycle: bool,
        links: Mask | None = None,
        removed: Mask | None = None,
    ) -> Steps[Step]:
        """Adapt the plan to what ways cost now, a few milliseconds at a time: until the end the one in force holds.

        `cycle`: this is one of the regular computations, which alone count what is better and move pairs to it.
        `links`, [sender, receiver], marks those that changed since the last time, `removed` relays that died, by index;
        with None for `links` all may have, and everybody is looked at.
        """
        plan = self._adopted(ids)
        size = len(ids)
        indices = self._indices if size == len(self.ids) else _pairs(size)
        asked = np.arange(size * size)
        if not cycle and links is not None and tuple(ids) == self.ids:
            asked = np.flatnonzero(self._touched(plan, links, removed) | plan.troubled.ravel())
        origin, relay = indices[0][asked], indices[1][asked]
        yield
        ways = Ways(*(field.reshape(CANDIDATES, -1)[:, asked] for field in plan.ways))
        yield
        best = paths.cheapest_of(origin, relay)
        found = []
        for rank in range(CANDIDATES):
            yield
            found.append(paths.cost_of(origin, relay, ways.hop[rank], ways.via[rank]))
        yield
        costs = np.stack(found)
        costs = np.where(ways.cost < NO_WAY, costs, NO_WAY).astype(np.int32)
        yield
        moves = self._moves(plan, asked, ways, best, costs[0], now, cycle=cycle, removed=removed)
        moving = moves.first | moves.better | moves.bad | moves.gone
        for field, values in zip(ways, best):
            field[0, moving] = values[moving]
        yield
        respared = yield from self._respare(paths, (origin, relay), ways, costs, moving, cycle=cycle)
        changed = np.zeros(size * size, np.bool_)
        changed[asked] = moving | respared
        yield
        self._record(plan, asked, ways, moves, now)
        plan.troubled.ravel()[asked] = ~moving & (costs[0] >= NO_WAY) & (origin != relay)
        first, better, bad, gone = (int(mask.sum()) for mask in moves[:4])
        yield
        fault = fault_of(origin, relay, ways, size)
        if int((moves.better & ~moves.new).sum()) > self._most_moved(size):
            fault = "too many pairs moved"
        if not fault:
            self.ids, self._plan, self._indices = tuple(ids), plan, indices
        counts = (moves.waiting, moves.resting, moves.pathless)
        return Step(changed.reshape(size, size), first, better, bad, gone, *counts, fault)

    def _touched(self, plan: _Plan, links: Mask, removed: Mask | None) -> Mask:
        """Which pairs have a way over a link that changed, or over a relay that died."""
        hop, via = plan.ways.hop, plan.ways.via
        touched = links.copy()
        for sender, receiver in np.argwhere(links).tolist():
            first = np.where(via[:, sender] > 0, via[:, sender], hop[:, sender])
            touched[sender] |= (first == receiver + 1).any(axis=0)
            touched[:, receiver] |= (hop[:, :, receiver] == sender + 1).any(axis=0)
        rank, origin, relay = np.nonzero(via)
        between = links[via[rank, origin, relay] - 1, hop[rank, origin, relay] - 1]
        touched[origin[between], relay[between]] = True
        if removed is not None and removed.any():
            lost = np.concatenate(([False], removed))
            touched |= (lost[hop] | lost[via]).any(axis=0) | removed[:, None] | removed
        return touched.ravel()

    def _record(self, plan: _Plan, asked: NDArray[np.intp], ways: Ways, moves: _Moves, now: float) -> None:
        """Write down what became of the pairs that were looked at."""
        for field, values in zip(plan.ways, ways):
            field.reshape(CANDIDATES, -1)[:, asked] = values
        for cause, mask in (
            (Cause.FIRST, moves.first),
            (Cause.BETTER, moves.better),
            (Cause.BAD, moves.bad),
            (Cause.GONE, moves.gone),
        ):
            plan.cause.ravel()[asked[mask]] = cause
            plan.better.ravel()[asked[mask]] = 0
            book = plan.first_at if cause is Cause.FIRST else plan.moved_at
            book.ravel()[asked[mask]] = now

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
        plan.first_at[to] = self._plan.first_at[at]
        plan.troubled[to] = self._plan.troubled[at] | (plan.ways.cost[0][to] >= NO_WAY)
        return plan

    def _moves(
        self,
        plan: _Plan,
        asked: NDArray[np.intp],
        ways: Ways,
        best: Ways,
        cost: Ints,
        now: float,
        *,
        cycle: bool,
        removed: Mask | None,
    ) -> _Moves:
        """Which of the pairs asked get another first way, and why. Counts in the plan what is better."""
        settings = self._settings
        has, can = ways.cost[0] < NO_WAY, best.cost < NO_WAY
        usable = cost < NO_WAY
        resting = (now - plan.moved_at.ravel()[asked]) < settings.rest_s
        gone = ~has & (plan.cause.ravel()[asked] == Cause.GONE) & can
        if removed is not None and removed.any():
            lost = np.concatenate(([False], removed))
            gone |= has & can & (lost[ways.hop[0]] | lost[ways.via[0]])
        gain = np.where(has & usable & can, cost - best.cost, 0)
        better = (gain >= self._least()) & (gain >= settings.better_ratio * cost)
        chosen = np.zeros(len(has), np.bool_)
        new = (now - plan.first_at.ravel()[asked]) < settings.new_s
        waiting = 0
        if cycle:
            count = plan.better.ravel()[asked]
            count = np.where(better, np.minimum(count, 254) + 1, 0)
            plan.better.ravel()[asked] = count
            chosen = better & new
            ready = np.flatnonzero(better & (count >= settings.cycles) & ~resting & ~new)
            biggest = ready[np.argsort(-gain[ready], kind="stable")][: self._most_moved(len(plan.better))]
            chosen[biggest] = True
            waiting = len(ready) - len(biggest)
        broken = has & ~usable & can & ~gone
        pathless = int((~can).sum()) - (len(plan.better) if len(asked) == plan.better.size else 0)
        first = ~has & can & ~gone
        return _Moves(first, chosen, broken & ~resting, gone, new, waiting, int((broken & resting).sum()), pathless)

    def _least(self) -> int:
        return int(self._settings.better_ms * UNITS_PER_MS) << INDEX_BITS

    def _most_moved(self, size: int) -> int:
        return max(1, int(self._settings.moved_ratio * size * (size - 1)))

    def _respare(
        self, paths: Paths, ends: tuple[Ints, Ints], ways: Ways, costs: Ints, moving: Mask, *, cycle: bool
    ) -> Steps[Mask]:
        """Give spares to who needs or deserves others; returns who got any."""
        broken = ((costs[1:] >= NO_WAY) & (ways.cost[1:] < NO_WAY)).any(axis=0)
        asked = np.flatnonzero((ways.cost[0] < NO_WAY) & (moving | broken | cycle))
        # A bad first way that is kept still takes its relays from the spares.
        first = Ways(ways.hop[0, asked], ways.via[0, asked], np.zeros(len(asked), np.int32))
        spares = yield from paths.find_spares(ends[0][asked], ends[1][asked], first)
        yield
        worse, differs = (moving | broken)[asked], moving[asked]
        for rank, spare in enumerate(spares, start=1):
            gain = costs[rank, asked] - spare.cost
            worse |= (gain >= self._least()) & (gain >= self._settings.better_ratio * costs[rank, asked])
            differs |= (ways.hop[rank, asked] != spare.hop) | (ways.via[rank, asked] != spare.via)
            differs |= (ways.cost[rank, asked] < NO_WAY) != (spare.cost < NO_WAY)
        taken = worse & differs
        for rank, spare in enumerate(spares, start=1):
            for field, values in zip(ways, spare):
                field[rank, asked[taken]] = values[taken]
        changed = np.zeros(len(moving), np.bool_)
        changed[asked[taken]] = True
        return changed


def fault_of(origin: Ints, relay: Ints, ways: Ways, size: int) -> str:
    """What is wrong with the ways, [rank, pair], of these pairs of `size` relays; empty: nothing.

    No way leads through its own ends, none has a relay twice, and no two ways of a pair share a relay.
    """
    there = ways.cost < NO_WAY
    hop, via = np.where(there, ways.hop, -1), np.where(there, ways.via, 0)
    if there[:, origin == relay].any():
        return "a way from a relay to itself"
    if any((index == end + 1).any() for index in (hop, via) for end in (origin, relay)):
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
    new: Mask
    """Pairs first seen a short while ago."""
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
        np.full((size, size), -np.inf),
        np.full((size, size), Cause.NONE, np.uint8),
        ~np.eye(size, dtype=np.bool_),
    )


def _pairs(size: int) -> tuple[Ints, Ints]:
    origin, relay = (index.ravel().astype(np.int32) for index in np.indices((size, size)))
    return origin, relay
