"""From the plan to what each relay is told: its route table, and which relays' tables changed.

A table is built when somebody asks for it, from what was last published; the one before is kept beside it, so that the
difference can be told. What did not change are the same objects: comparing two tables is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from control.topology.paths import CANDIDATES, Mask, Ways, milliseconds
from control.topology.weights import Floats
from tradewind.contract.messages import Candidate, MarketEntry, RelayEntry, RoomEntry, Route, RouteTable

UNREACHED_MS = 60_000.0
"""What the direct way is said to cost where there is none: it is still worth trying."""


class Shared(NamedTuple):
    """What the plane puts into every table."""

    term: int
    rooms: tuple[RoomEntry, ...] = ()
    placement_keys: tuple[str, ...] = ()
    markets: tuple[MarketEntry, ...] = ()


class Plan(NamedTuple):
    """What tables are made of. `ways` is [rank, origin, relay] over `ids`, `loss_ratios` [sender, receiver]."""

    ids: tuple[str, ...]
    ways: Ways
    loss_ratios: Floats
    neighbours: Mapping[str, tuple[str, ...]]
    entries: tuple[RelayEntry, ...]
    """Of everybody who is not dead, by id. Relays of `ids` that have none are left out of tables."""


class TablePair(NamedTuple):
    """A relay's table as it was last taken, and as it is now."""

    before: RouteTable | None
    now: RouteTable


class Tables:
    """The route tables of a mesh."""

    __slots__ = (
        "_dirty",
        "_issued_wall",
        "_known",
        "_made",
        "_plan",
        "_published",
        "_routes",
        "_shared",
        "generation",
        "mesh",
    )

    def __init__(self, mesh: str) -> None:
        self.mesh = mesh
        self.generation = 0
        self._plan: Plan | None = None
        self._shared = Shared(0)
        self._issued_wall = 0.0
        self._known: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._dirty: dict[str, set[str] | None] = {}
        self._routes: dict[str, dict[str, Route]] = {}
        self._made: dict[str, RouteTable] = {}

    def publish(self, plan: Plan, shared: Shared, changed: Mask, wall_now: float, *, whole: bool) -> tuple[str, ...]:
        """Put a plan into force; returns whose table is another now, in order.

        `changed` marks pairs, [origin, relay], whose ways are others than in the plan before. `whole`: everybody gets
        a table, changed or not. Generations begin anew with a term.
        """
        if shared.term != self._shared.term:
            self.generation = 0
        before = self._plan
        present = {entry.id for entry in plan.entries}
        same_for_all = (
            before is not None and before.entries == plan.entries and self._shared == shared and before.ids == plan.ids
        )
        touched = [bool(column.any()) for column in changed.T]
        relays = []
        for index, relay in enumerate(plan.ids):
            if relay not in present:
                continue
            self._mark(relay, plan.ids, changed[:, index] if touched[index] else None)
            same = same_for_all and before is not None and before.neighbours.get(relay) == plan.neighbours.get(relay)
            if whole or touched[index] or not same or relay not in self._published:
                relays.append(relay)
        self._plan, self._shared = plan, shared
        self._known = {relay: index for index, relay in enumerate(plan.ids)}
        if relays:
            self.generation += 1
            self._issued_wall = wall_now
        self._published.update(dict.fromkeys(relays, self.generation))
        for gone in self._published.keys() - present:
            for book in (self._published, self._dirty, self._routes, self._made):
                book.pop(gone, None)
        return tuple(sorted(relays))

    def tables(self, relay: str) -> TablePair | None:
        """A relay's table, and the one that was taken before it. None: it has none, it is not part of the plan."""
        if self._plan is None or relay not in self._published:
            return None
        before = self._made.get(relay)
        if before is not None and (before.term, before.generation) == (self._shared.term, self._published[relay]):
            return TablePair(before, before)
        self._made[relay] = self._table(self._plan, relay)
        return TablePair(before, self._made[relay])

    def _mark(self, relay: str, ids: Sequence[str], changed: Mask | None) -> None:
        """Note which origins' routes have to be made anew; None in the book: all."""
        if relay not in self._routes:
            self._dirty[relay] = None
        elif changed is not None and (dirty := self._dirty.setdefault(relay, set())) is not None:
            dirty.update(ids[origin] for origin in np.flatnonzero(changed).tolist())

    def _table(self, plan: Plan, relay: str) -> RouteTable:
        return RouteTable(
            mesh=self.mesh,
            relay=relay,
            term=self._shared.term,
            generation=self._published[relay],
            issued_wall=self._issued_wall,
            neighbours=plan.neighbours.get(relay, ()),
            relays=plan.entries,
            routes=self._routes_of(plan, relay),
            rooms=self._shared.rooms,
            placement_keys=self._shared.placement_keys,
            markets=self._shared.markets,
        )

    def _routes_of(self, plan: Plan, relay: str) -> tuple[Route, ...]:
        dirty = self._dirty.pop(relay, set())
        kept = self._routes.setdefault(relay, {})
        at = self._known[relay]
        columns: list[list[tuple[int, int, float, float]]] = []
        routes = {}
        for entry in plan.entries:
            origin = entry.id
            if origin == relay or origin not in self._known:
                continue
            route = kept.get(origin) if dirty is not None and origin not in dirty else None
            if route is None:
                # Nearly always nothing changed: then nothing is read out of the plan.
                columns = columns or [_told(plan, rank, at) for rank in range(CANDIDATES)]
                index = self._known[origin]
                made = (told[index] for told in columns)
                ways = [_candidate(plan.ids, origin, *way) for way in made if way[2] != float("inf")]
                route = Route(origin, tuple(ways) or (Candidate(origin, (), UNREACHED_MS),))
            routes[origin] = route
        self._routes[relay] = routes
        found = tuple(routes.values())
        before = self._made.get(relay)
        # The same object where nothing changed: then nobody has to compare or encode it again.
        return before.routes if before is not None and before.routes == found else found


def _told(plan: Plan, rank: int, relay: int) -> list[tuple[int, int, float, float]]:
    """Of every origin's way of one rank: hop, via, cost in milliseconds, loss."""
    hop, via, cost = (field[rank, :, relay] for field in plan.ways)
    origin = np.arange(len(plan.ids))
    last = np.where(hop > 0, hop - 1, origin)
    middle = np.where(via > 0, via - 1, origin)
    arrives = np.ones(len(origin))
    for sender, receiver in ((origin, middle), (middle, last), (last, relay)):
        arrives *= 1.0 - plan.loss_ratios[sender, receiver]
    lost = np.round(1.0 - arrives, 6)
    return list(zip(hop.tolist(), via.tolist(), milliseconds(cost).tolist(), lost.tolist()))


def _candidate(ids: Sequence[str], origin: str, hop: int, via: int, cost_ms: float, loss_ratio: float) -> Candidate:
    return Candidate(ids[hop - 1] if hop else origin, (ids[via - 1],) if via else (), cost_ms, loss_ratio)
