"""The room's face: findings of the registry go in, and in time out comes whose route table is another one.

The plane hands over what `registry` found, calls `handle_deadline` when `next_deadline` says so, and takes tables of
the relays that the answer names. Nothing is computed anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from control.registry.relays import Registry
from control.registry.values import Alarm, AlarmKind, Event, EventKind, Finding
from control.topology import neighbours
from control.topology.explain import ExplainedRoute, explain
from control.topology.paths import NO_WAY, Mask, Paths, Steps, finish
from control.topology.routes import Routes, RouteSettings, Step
from control.topology.schedule import Due, Schedule, ScheduleSettings
from control.topology.tables import Plan, Shared, TablePair, Tables
from control.topology.trees import Ground, Trees, TreeSettings
from control.topology.weights import Priors, Weights, WeightSettings
from tradewind.contract.messages import RelayEntry

MANY_LINKS = 64
"""More changed links than that are cheaper computed anew."""
EVIDENCE_AT_ONCE = 1000
"""Links whose two views are weighed in one step."""
NEIGHBOURS_CYCLES = 6
"""Neighbours are chosen anew when relays come or go, and every so many cycles."""


@dataclass(frozen=True, slots=True)
class TopologySettings:
    """Settings of each part."""

    weights: WeightSettings = field(default_factory=WeightSettings)
    routes: RouteSettings = field(default_factory=RouteSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    trees: TreeSettings = field(default_factory=TreeSettings)
    neighbours: int = neighbours.MOST


class Outcome(NamedTuple):
    """What one computation came to."""

    due: Due
    changed: tuple[str, ...] = ()
    """Relays whose table is another one: all of them in a cycle."""
    generation: int = 0
    step: Step | None = None
    alarms: tuple[Alarm, ...] = ()


class TopologyStatistics(NamedTuple):
    """Since the start; what `/metrics` shows."""

    cycles: int
    events: int
    computed_anew: int
    moved_better: int
    moved_bad: int
    moved_gone: int
    plans_refused: int


class _Made(NamedTuple):
    weights: Weights
    paths: Paths


class Topology:
    """Routes of one mesh."""

    __slots__ = (
        "_alive",
        "_anew",
        "_counts",
        "_cycles_to_neighbours",
        "_died",
        "_entries",
        "_links",
        "_neighbours",
        "_paths",
        "_priors",
        "_routes",
        "_schedule",
        "_settings",
        "_tables",
        "_told",
        "_trees",
        "_weights",
    )

    def __init__(self, mesh: str, settings: TopologySettings, priors: Priors | None = None) -> None:
        self._settings = settings
        self._priors = priors or Priors()
        self._schedule = Schedule(settings.schedule)
        self._routes = Routes(settings.routes)
        self._trees = Trees(settings.trees)
        self._tables = Tables(mesh)
        self._weights = Weights(settings.weights, self._priors, (), ())
        self._paths = Paths(self._weights.links(), self._weights.relays(), self._weights.labels)
        self._links: set[tuple[str, str]] = set()
        self._died: set[str] = set()
        self._anew = False
        self._neighbours: dict[str, tuple[str, ...]] = {}
        self._cycles_to_neighbours = 0
        self._entries: dict[str, RelayEntry] = {}
        self._told: tuple[RelayEntry, ...] = ()
        self._counts = TopologyStatistics(0, 0, 0, 0, 0, 0, 0)

    def receive(self, findings: Iterable[Finding], now: float) -> None:
        """The registry found something. Alarms are not for us."""
        for event in findings:
            if not isinstance(event, Event):
                continue
            match event.kind:
                case EventKind.LINK_DOWN | EventKind.LINK_UP:
                    self._links.add((event.relay, event.other))
                case EventKind.DIED:
                    self._died.add(event.relay)
                case EventKind.JOINED | EventKind.STAGE:
                    self._anew = True
                case _:
                    continue
            self._schedule.receive_event(now, patient=event.kind is EventKind.JOINED)

    def receive_change(self, now: float) -> None:
        """Something of the plane's that stands in every table changed: rooms, or keys."""
        self._schedule.receive_event(now)

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nobody was ever here."""
        return self._schedule.next_deadline()

    def handle_deadline(self, registry: Registry, shared: Shared, now: float, wall_now: float) -> Outcome:
        """Compute what is due, and put it into force."""
        return finish(self.compute(registry, shared, now, wall_now))

    def compute(self, registry: Registry, shared: Shared, now: float, wall_now: float) -> Steps[Outcome]:
        """`handle_deadline`, a few milliseconds at a time: tables are as before until the last one.

        What the registry finds in the meantime counts in the next computation; only one may be under way.
        """
        due = self._schedule.handle_deadline(now)
        if due is Due.NOTHING:
            return Outcome(due)
        cycle = due is Due.CYCLE
        made, links, removed = yield from self._update(registry, now, cycle=cycle)
        step = yield from self._routes.adapt(
            made.paths, made.weights.ids, now, cycle=cycle, links=links, removed=removed
        )
        self._weights, self._paths = made
        self._count(step, cycle=cycle)
        if step.fault:
            return Outcome(due, alarms=(Alarm(AlarmKind.PLAN_REFUSED, "", step.fault),))
        self._choose_neighbours(cycle=cycle)
        self._enter(registry, now, cycle=cycle)
        told = yield from self._trees.adapt(
            self._paths, self._ground(), self._routes.ways, step.changed, now, cycle=cycle, links=links
        )
        entries = tuple(self._entries.values())
        # The same object where nothing changed, as with routes: it is in every table.
        self._told = self._told if self._told == entries else entries
        plan = Plan(self._weights.ids, self._trees.ways, self._weights.loss_ratios(), self._neighbours, self._told)
        changed = self._tables.publish(plan, shared, told, wall_now, whole=cycle)
        return Outcome(due, changed, self._tables.generation, step, self._alarms(step) if cycle else ())

    def tables(self, relay: str) -> TablePair | None:
        """A relay's table and the one taken before it: the difference is the delta. None: it has none."""
        return self._tables.tables(relay)

    def explain(self, relay: str, origin: str, now: float) -> ExplainedRoute | None:
        """Why a relay's route to an origin is what it is; None: one of them is not in the plan."""
        generation, cycles = self._tables.generation, self._settings.routes.cycles
        return explain(self._routes, self._trees, self._paths, self._weights, (relay, origin), generation, cycles, now)

    @property
    def routes(self) -> Routes:
        """The plan in force; to be read only."""
        return self._routes

    @property
    def trees(self) -> Trees:
        """The plan as relays are told of it; to be read only."""
        return self._trees

    @property
    def generation(self) -> int:
        """Of the newest table."""
        return self._tables.generation

    def statistics(self) -> TopologyStatistics:
        """Since the start."""
        return self._counts

    def _update(self, registry: Registry, now: float, *, cycle: bool) -> Steps[tuple[_Made, Mask | None, Mask | None]]:
        """Bring weights and paths up to date; returns them, which links changed and who died, None: computed anew."""
        anew = cycle or self._anew or len(self._links) > MANY_LINKS
        links, died = sorted(self._links), sorted(self._died)
        self._links, self._died, self._anew = set(), set(), False
        if anew:
            made = yield from self._make(registry, now)
            self._counts = self._counts._replace(computed_anew=self._counts.computed_anew + 1)
            return made, None, None
        size = len(self._weights.ids)
        changed, removed = np.zeros((size, size), np.bool_), np.zeros(size, np.bool_)
        for relay in died:
            if (index := self._weights.remove(relay)) is not None:
                self._paths.remove(index)
                removed[index] = True
        for sender, receiver in links:
            found = registry.evidence_of(sender, receiver, now)
            if found is None or sender in died or receiver in died:
                continue
            if (cost := self._weights.set_evidence(found)) is not None:
                at = self._weights.index[sender], self._weights.index[receiver]
                self._paths.set_link(*at, cost)
                changed[at] = True
                yield
        return _Made(self._weights, self._paths), changed, removed

    def _make(self, registry: Registry, now: float) -> Steps[_Made]:
        members = registry.members(now)
        evidence = []
        for found in registry.evidence(now):
            evidence.append(found)
            if len(evidence) % EVIDENCE_AT_ONCE == 0:
                yield
        weights = Weights(self._settings.weights, self._priors, members, evidence)
        yield
        links, relays = weights.links(), weights.relays()
        yield
        return _Made(weights, (yield from Paths.in_steps(links, relays, weights.labels)))

    def _choose_neighbours(self, *, cycle: bool) -> None:
        ids = self._weights.ids
        self._cycles_to_neighbours -= cycle
        if set(ids) == self._neighbours.keys() and self._cycles_to_neighbours > 0:
            return
        self._cycles_to_neighbours = NEIGHBOURS_CYCLES
        used = neighbours.usage(self._routes.ways)
        found = neighbours.chosen(self._weights.regions, self._weights.delays_ms(), used, self._settings.neighbours)
        self._neighbours = {relay: tuple(ids[other] for other in others) for relay, others in zip(ids, found)}

    def _enter(self, registry: Registry, now: float, *, cycle: bool) -> None:
        """What everybody is told of everybody. Load is news in cycles only: else every table changed at every event."""
        entries = {}
        for member in registry.members(now):
            entry, before = member.entry(), self._entries.get(member.id)
            if before is not None and not cycle and _as_before(before, entry):
                entry = before
            entries[member.id] = entry
        self._entries = dict(sorted(entries.items()))

    def _ground(self) -> Ground:
        """What trees stand on now."""
        ids, entries = self._weights.ids, self._entries
        linked = np.zeros((len(ids), len(ids)), np.bool_)
        for relay, others in self._neighbours.items():
            linked[self._weights.index[relay], [self._weights.index[other] for other in others]] = True
        alive = np.array([relay in entries for relay in ids], np.bool_)
        staying = [relay in entries and entries[relay].stage in {"serving", "cordoned"} for relay in ids]
        steady = np.array(staying, np.bool_)
        free = steady & (self._weights.relays() < NO_WAY)
        return Ground(ids, self._weights.regions, linked | linked.T, alive, steady, free)

    def _count(self, step: Step, *, cycle: bool) -> None:
        counts = self._counts
        self._counts = counts._replace(
            cycles=counts.cycles + cycle,
            events=counts.events + (not cycle),
            moved_better=counts.moved_better + (0 if step.fault else step.better),
            moved_bad=counts.moved_bad + (0 if step.fault else step.bad),
            moved_gone=counts.moved_gone + (0 if step.fault else step.gone),
            plans_refused=counts.plans_refused + bool(step.fault),
        )

    def _alarms(self, step: Step) -> tuple[Alarm, ...]:
        """In cycles only: a relay that is about to be found dead is no news of its own."""
        dead = len(self._weights.ids) - sum(relay in self._entries for relay in self._weights.ids)
        size = len(self._weights.ids)
        expected = size * (size - 1) - (size - dead) * (size - dead - 1)
        if step.pathless <= expected:
            return ()
        return (Alarm(AlarmKind.NO_PATH, "", f"{step.pathless - expected} pairs have no way that can be used"),)


_TOLD_AT_ONCE = ("stage", "uri", "address", "region", "placement_key")


def _as_before(before: RelayEntry, entry: RelayEntry) -> bool:
    """Whether what changed of a relay can wait for the next cycle."""
    same = all(getattr(before, name) == getattr(entry, name) for name in _TOLD_AT_ONCE)
    return same and bool(before.headroom_sessions) == bool(entry.headroom_sessions)
