"""Every metric of a controller, declared once: its name, unit, help and labels; nobody names one anywhere else.

What rooms count by themselves is copied in by `observe`, which runs when somebody asks. `tradewind.metering` says what
a number is and how it becomes text.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.links import LinksStatistics
from control.plane import Plane
from tradewind import metering as m


@dataclass(slots=True)
class MeshMetrics:
    """Relays and links."""

    relays: m.Labelled = m.gauges("control_relays", "Relays known, by condition.", "condition")
    links_troubled: m.Count = m.gauge(
        "control_links_troubled", "Links between relays that are, or lately were, not usable."
    )
    overrides: m.Count = m.gauge("control_overrides", "Origins to which relays go another way than their tables say.")
    control_links: m.Count = m.gauge("control_links", "Control links of relays that are welcome.")
    proven: m.Count = m.counter("control_links_proven_total", "Control links on which a relay proved who it is.")
    unproven: m.Labelled = m.counters(
        "control_links_refused_total", "Control links that proved nothing, and why.", "reason"
    )
    faults: m.Count = m.counter("control_link_faults_total", "Control links ended for what came on them.")
    two_boots: m.Count = m.counter("control_relays_refused_total", "Relays refused although they proved who they are.")
    reports: m.Count = m.counter("control_reports_total", "Reports taken.")
    reports_dropped: m.Count = m.counter(
        "control_reports_dropped_total", "Reports not looked at: too many of one relay."
    )


@dataclass(slots=True)
class TableMetrics:
    """Paths and route tables."""

    term: m.Count = m.gauge("control_term", "This writer's term.")
    generation: m.Count = m.gauge("control_table_generation", "Of the newest route table of this term.")
    sent: m.Labelled = m.counters("control_tables_sent_total", "Route tables sent, whole or as a difference.", "form")
    made_bytes: m.Count = m.counter("control_table_bytes_total", "Bytes of the tables that were signed.")
    computed: m.Labelled = m.counters("control_paths_computed_total", "Computations of all paths, and why.", "due")
    moved: m.Labelled = m.counters("control_routes_moved_total", "Routes that changed, and why.", "cause")
    plans_refused: m.Count = m.counter(
        "control_plans_refused_total", "Plans that broke a rule and were not put into force."
    )


@dataclass(slots=True)
class PlacementMetrics:
    """Viewers."""

    placed: m.Count = m.counter("control_placed_total", "Viewers that were told where to go.")
    refused: m.Labelled = m.counters("control_place_refused_total", "Viewers that were not, and why.", "reason")
    panicked: m.Count = m.counter("control_placed_in_panic_total", "Placements that had to ignore the bounds on load.")
    moved: m.Count = m.counter("control_viewers_moved_total", "Viewers told to leave a relay that goes on.")
    rehomed: m.Count = m.counter("control_viewers_rehomed_total", "Viewers of dead relays that have another one.")
    stranded: m.Count = m.counter("control_viewers_stranded_total", "Viewers of dead relays that found no room.")


@dataclass(slots=True)
class OrderMetrics:
    """Operators and rooms."""

    open: m.Count = m.gauge("control_commands_open", "Commands that are not done yet.")
    ended: m.Labelled = m.counters("control_commands_total", "Commands that are over.", "result")
    sent: m.Count = m.counter("control_commands_sent_total", "Commands sent to relays, repeated ones too.")
    questions: m.Count = m.counter("control_questions_total", "Questions put to relays.")
    rooms: m.Count = m.gauge("control_rooms", "Rooms that have a home.")
    rooms_alone: m.Count = m.gauge("control_rooms_without_follower", "Rooms of which there is one copy.")
    rooms_stuck: m.Count = m.gauge("control_rooms_stuck", "Rooms of which nobody who is here may be the home.")
    promoted: m.Count = m.counter("control_rooms_promoted_total", "Rooms that were given another home.")
    alarms: m.Labelled = m.counters("control_events_total", "Events and alarms.", "kind")


@dataclass(slots=True)
class StoreMetrics:
    """What survives."""

    save_seconds: m.Histogram = m.histogram(
        "control_store_save_seconds", "Time a batch took to disk.", m.TURN_BUCKETS_S
    )
    unsaved: m.Count = m.gauge("control_store_unsaved", "Batches on their way to disk.")


@dataclass(slots=True)
class TurnMetrics:
    """Whether the controller keeps up."""

    duration: m.Histogram = m.histogram("control_turn_duration_seconds", "Time one turn took.", m.TURN_BUCKETS_S)
    lag: m.Histogram = m.histogram(
        "control_loop_lag_seconds", "How late the event loop woke a timer.", m.TURN_BUCKETS_S
    )


class Metrics:
    """One controller's numbers."""

    __slots__ = ("mesh", "orders", "placement", "store", "tables", "turns")

    def __init__(self) -> None:
        self.mesh = MeshMetrics()
        self.tables = TableMetrics()
        self.placement = PlacementMetrics()
        self.orders = OrderMetrics()
        self.store = StoreMetrics()
        self.turns = TurnMetrics()

    def observe(self, plane: Plane, links: list[LinksStatistics]) -> None:
        """Copy in what the plane and the links have counted."""
        counts, known, paths = plane.statistics(), plane.registry.statistics(), plane.topology.statistics()
        for condition in ("alive", "detached", "dead"):
            self.mesh.relays.of(condition).set(getattr(known, condition))
        self.mesh.links_troubled.set(known.links_troubled)
        self.mesh.overrides.set(plane.reports.overrides.count)
        self.mesh.control_links.set(counts.links)
        self.mesh.proven.set(sum(link.proven for link in links))
        self.mesh.faults.set(sum(link.faults for link in links))
        for reason in {reason for link in links for reason in link.refused}:
            self.mesh.unproven.of(reason).set(sum(link.refused.get(reason, 0) for link in links))
        self.mesh.two_boots.set(counts.refused)
        self.mesh.reports.set(counts.reports)
        self.mesh.reports_dropped.set(counts.reports_dropped)
        self.tables.term.set(plane.term)
        self.tables.generation.set(plane.topology.generation)
        self.tables.sent.of("whole").set(counts.tables)
        self.tables.sent.of("delta").set(counts.deltas)
        self.tables.made_bytes.set(counts.table_bytes)
        self.tables.computed.of("cycle").set(paths.cycles)
        self.tables.computed.of("event").set(paths.events)
        for cause in ("better", "bad", "gone"):
            self.tables.moved.of(cause).set(getattr(paths, f"moved_{cause}"))
        self.tables.plans_refused.set(paths.plans_refused)
        self._observe_people(plane)

    def snapshot(self) -> tuple[m.Sample, ...]:
        """All numbers now; what it returns no longer changes."""
        return m.snapshot((self.mesh, self.tables, self.placement, self.orders, self.store, self.turns))

    def _observe_people(self, plane: Plane) -> None:
        counts, placed = plane.statistics(), plane.placement.statistics()
        self.placement.placed.set(placed.placed)
        for reason, count in placed.refused.items():
            self.placement.refused.of(reason).set(count)
        self.placement.panicked.set(placed.panicked)
        self.placement.moved.set(placed.moved)
        self.placement.rehomed.set(counts.rehomed)
        self.placement.stranded.set(counts.stranded)
        orders, rooms = plane.commands.statistics(), plane.homes.statistics()
        self.orders.open.set(orders.open)
        for result in ("done", "failed", "superseded"):
            self.orders.ended.of(result).set(getattr(orders, result))
        self.orders.sent.set(orders.sent)
        self.orders.questions.set(counts.questions)
        self.orders.rooms.set(rooms.rooms)
        self.orders.rooms_alone.set(rooms.without_follower)
        self.orders.rooms_stuck.set(rooms.stuck)
        self.orders.promoted.set(rooms.promoted)
        for kind, count in plane.events.counts.items():
            self.orders.alarms.of(kind).set(count)
        self.store.unsaved.set(counts.unsaved)


def declarations() -> tuple[m.Declaration, ...]:
    """Every metric there is."""
    return tuple(sample.declaration for sample in Metrics().snapshot())
