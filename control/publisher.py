"""Who has which route table, and what each is sent next: whole ones in turn, differences where something changed.

`plane` says when to compute and sends what `take` gives. What tables hold is `topology`'s, whose is due `publishing`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from control.connected import Connected
from control.publishing import Publishing, Sent, Signing, Wanted, publish
from control.registry.relays import Registry
from control.registry.values import Alarm
from control.topology.paths import Steps
from control.topology.planner import Outcome, Topology
from control.topology.schedule import Due
from control.topology.tables import Shared
from tradewind.contract.codec import SINCE
from tradewind.contract.messages import PackedTable, RoomEntry, SignedTable, TableDelta
from tradewind.contract.tables import Press


class PublisherStatistics(NamedTuple):
    """Since the start."""

    tables: int
    deltas: int
    table_bytes: int
    """Of the whole tables that were signed, as differences too."""


class Publisher:
    """The tables of one mesh on their way. `cycle_s`: how long a round of whole tables takes."""

    __slots__ = (
        "_computing",
        "_connected",
        "_counts",
        "_press",
        "_queue",
        "_sent",
        "_shared",
        "_signing",
        "_tableless",
        "_topology",
    )

    def __init__(
        self, topology: Topology, connected: Connected, shared: Shared, signing: Signing, cycle_s: float
    ) -> None:
        self._topology = topology
        self._connected = connected
        self._shared = shared
        self._signing = signing
        self._queue = Publishing(cycle_s)
        self._computing: Steps[Outcome] | None = None
        self._tableless: set[str] = set()
        """Relays that are here, and not yet part of the plan."""
        self._press = Press()
        self._sent: dict[str, tuple[int, Sent]] = {}
        """By relay: on which link its last table went out, and which it was."""
        self._counts = PublisherStatistics(0, 0, 0)

    def receive_new(self, relay: str) -> None:
        """A relay has connected: it gets its whole table as soon as there is one."""
        self._queue.receive_new(relay)

    def receive_rooms(self, rooms: Sequence[RoomEntry], now: float) -> None:
        """Rooms have other homes."""
        self._shared = self._shared._replace(rooms=tuple(rooms))
        self._topology.receive_change(now)

    def next_deadline(self, now: float) -> float | None:
        """When `compute` or `take` has something to do."""
        if self._computing is not None:
            return now
        moments = (self._topology.next_deadline(), self._queue.next_deadline(now))
        return min((moment for moment in moments if moment is not None), default=None)

    def compute(self, registry: Registry, now: float, wall_now: float) -> tuple[Alarm, ...]:
        """Compute routes if that is due, one step of it a call; at the end queue the tables that are others for it."""
        if self._computing is None:
            due = self._topology.next_deadline()
            if due is None or now < due:
                return ()
            self._computing = self._topology.compute(registry, self._shared, now, wall_now)
        try:
            next(self._computing)
        except StopIteration as end:
            outcome: Outcome = end.value
        else:
            return ()
        self._computing = None
        if outcome.due is Due.CYCLE:
            self._queue.receive_cycle(outcome.changed, now)
        elif outcome.due is Due.EVENT:
            self._queue.receive_changed(outcome.changed)
        for relay in sorted(self._tableless):
            self._queue.receive_new(relay)
        self._tableless.clear()
        return outcome.alarms

    def take(self, now: float) -> Iterator[tuple[int, SignedTable | PackedTable | TableDelta]]:
        """What goes out now, and on which link. A few tables at most: while more wait, `next_deadline` is now."""
        for relay, whole in self._queue.take(now):
            link = self._connected.of(relay)
            pair = self._topology.tables(relay) if link is not None else None
            if link is None:
                continue
            if pair is None:
                self._tableless.add(relay)
                continue
            on, sent = self._sent.get(relay, (None, None))
            wanted = Wanted(sent if on == link.number else None, whole, link.version >= SINCE[PackedTable])
            made = publish(pair, wanted, self._signing, self._press)
            self._sent[relay] = link.number, Sent(pair.now.term, pair.now.generation)
            if made is not None:
                self._count(isinstance(made.message, TableDelta), made.size_bytes)
                yield link.number, made.message

    def forget(self, relay: str) -> None:
        """A relay is dead."""
        self._sent.pop(relay, None)
        self._press.forget(relay)

    def statistics(self) -> PublisherStatistics:
        """Since the start."""
        return self._counts

    def _count(self, delta: bool, size_bytes: int) -> None:
        tables, deltas, table_bytes = self._counts
        self._counts = PublisherStatistics(tables + (not delta), deltas + delta, table_bytes + size_bytes)
