"""The control plane without I/O: what proven relays and operators say goes in, with the time; an `Output` comes out.

`control.run` hands in links (`receive_proven`, `receive_message`, `receive_closed`) and what operators want (`order`,
`ask`), calls `handle_deadline` when `next_deadline` says so, and takes an `Output` after each call: batches to persist,
messages to send, links to close, replies to operators. What may only be said once it is on disk is in no output before
`receive_saved`: an order acts, and a room's new home is published, when a controller that starts now knows of it.

A controller that starts waits for the relays that its store knows before it changes anything (`settling`). A second
relay with one id is refused where the first answers (`rivals`), and operators hear of it. Relays are told in signed
tables what to do (`publisher`); what is known of them is `registry`'s, what they told last `reports`', where media goes
`topology`'s, where viewers go `placement`'s, rooms `homes`', what operators want `operators`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from control.commands import Commands
from control.connected import Connected, Link
from control.events import EventLog
from control.homes import Homes, HomeSettings, shown
from control.members import Members
from control.operators import Operators
from control.outgoing import Outgoing, Output, Reply
from control.overrides import KINDS as OVERRIDE_KINDS
from control.placement import Placement
from control.publisher import Publisher
from control.publishing import Signing
from control.registry.relays import Registry
from control.registry.values import (
    Alarm,
    AlarmKind,
    Condition,
    EventKind,
    Finding,
    Place,
    RegistrySettings,
    RelayView,
)
from control.reports import Reports
from control.rivals import Rival
from control.settling import SETTLE_S, Settling
from control.state import Batch, Order, State
from control.streams import Streams
from control.topology.planner import Topology, TopologySettings
from control.topology.tables import Shared
from control.topology.weights import Priors
from tradewind.contract.codec import VERSION
from tradewind.contract.identity import NodeIdentity
from tradewind.contract.messages import Answer, Done, Hello, MarketEntry, Question, Report, ToController, Welcome
from tradewind.placing.answering import Edition

PLACING_S = 1.0
"""How often placement is told of loads."""
PLACING_SOON_S = 0.1
"""How soon it is told of a relay that came, or was left alone; of one that died or changes its stage at once."""


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """Of one controller."""

    mesh: str
    id: str
    report_every_ms: int = 1000
    settle_s: float = SETTLE_S
    """After the start nothing is changed for so long, or until everybody is back whom the store knows."""
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    topology: TopologySettings = field(default_factory=TopologySettings)
    homes: HomeSettings = field(default_factory=HomeSettings)
    rooms: tuple[tuple[bytes, ...], ...] = ()
    """Rooms that have a home before anybody writes in them."""
    placement_keys: tuple[str, ...] = ()
    markets: tuple[MarketEntry, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    priors: Priors = field(default_factory=Priors)


class PlaneStatistics(NamedTuple):
    """Since the start; the first two are now. What metrics show beside the rooms' own."""

    links: int
    unsaved: int
    questions: int
    refused: int
    reports: int
    reports_dropped: int
    tables: int
    deltas: int
    table_bytes: int
    rehomed: int
    stranded: int


class Plane:
    """One controller's state. `state` is what its store had when this term began."""

    __slots__ = (
        *("_connected", "_members", "_out", "_place_at", "_publisher", "_refused", "_rehomed", "_settings"),
        *("_settling", "events", "homes", "operators", "placement", "registry", "reports", "term", "topology"),
    )

    def __init__(
        self, settings: PlaneSettings, state: State, signing: Signing, placement: Placement, now: float, wall_now: float
    ) -> None:
        self.term = state.term
        self.registry = Registry(settings.registry, settings.places)
        self.topology = Topology(settings.mesh, settings.topology, settings.priors)
        self.placement = placement
        self.homes = Homes(settings.homes, state.rooms, settings.rooms, now)
        self.events = EventLog(wall_now)
        self.reports = Reports()
        self._settings = settings
        self._connected = Connected()
        self._out = Outgoing()
        self.operators = Operators(state, self._connected, self.events, self._out)
        shared = Shared(state.term, self.homes.entries(), settings.placement_keys, settings.markets)
        cycle_s = settings.topology.schedule.cycle_s
        self._publisher = Publisher(self.topology, self._connected, shared, signing, cycle_s)
        self._place_at = now
        self._refused = 0
        self._rehomed = (0, 0)
        """Viewers of dead relays: with another one, and without."""
        self._members = Members(state.members)
        self._settling = Settling((member.relay for member in state.members), now, settings.settle_s)
        for known in state.members:
            self.registry.restore(known.relay, known.region, known.hello, known.stage, now, self._settling.until)
            self.topology.receive_change(now)
        self.events.add(wall_now, "started", detail=f"term {state.term}")

    # --- Relays ---

    def receive_proven(self, link: int, peer: NodeIdentity, version: int = VERSION) -> None:
        """A relay has proven on a new link who it is. `link` is a number that was never used before."""
        self._connected.open(link, peer, version)

    def receive_message(self, link: int, message: ToController, now: float, wall_now: float) -> None:
        """A message came on a link. On one that is closed, or about to be, it says nothing any more."""
        known = self._connected.link(link)
        if known is None:
            return
        relay = known.peer.id
        if self._connected.speaks(known) and (rival := self._connected.rivals.receive_word(relay)):
            self._refuse_second(rival, now, wall_now)
        if known.hello is None and not isinstance(message, Hello):
            self._drop(known, "the first message is not Hello", wall_now)
            return
        match message:
            case Hello():
                self._receive_hello(known, message, now, wall_now)
            case Report():
                self._receive_report(relay, message, now, wall_now)
            case Done():
                self.operators.receive_done(relay, message, wall_now)
            case Answer():
                self.operators.receive_answer(relay, message)

    def receive_closed(self, link: int, detail: str, now: float, wall_now: float) -> None:
        """A link is gone."""
        known = self._connected.remove(link)
        if known is None:
            return
        relay = known.peer.id
        self.events.add(wall_now, "closed", relay, detail=detail)
        self.operators.receive_gone(relay, f"{relay} has gone")
        if self.registry.relay(relay, now) is not None:
            self._take(self.registry.receive_closed(relay, now), now, wall_now)

    def receive_saved(self, number: int, now: float, wall_now: float) -> None:
        """A batch is on disk: what waited for it happens."""
        batch = self._out.receive_saved(number)
        for order in batch.orders:
            self.operators.commands.receive_saved(order.id, now)
        if batch.rooms:
            self.homes.receive_saved(batch.rooms)
            self._publisher.receive_rooms(self.homes.entries(), now)
            for entry in batch.rooms:
                detail = f"{shown(entry.room)} epoch {entry.epoch}"
                self.events.add(wall_now, "room", entry.home, entry.follower, detail)
        self.operators.send_commands(now)

    # --- Operators ---

    def order(self, order: Order, now: float, wall_now: float) -> int:
        """An operator wants something done; returns the ticket of the reply, which comes once it is journaled."""
        return self.operators.order(order, self.registry.relay(order.relay, now), wall_now)

    def ask(self, relay: str, question: Question, now: float) -> int:
        """An operator wants to see something of a relay; returns the ticket of the reply, the question's id too."""
        return self.operators.ask(relay, question, self.registry.relay(relay, now), now)

    def receive_unsent(self, question: Question) -> tuple[Reply, ...]:
        """A question has no bytes in the version that its relay speaks; returns what to tell who asked."""
        return self.operators.receive_unsent(question)

    # --- Time ---

    def next_deadline(self, now: float) -> float | None:
        """When to call `handle_deadline`; in the past: at once."""
        changes = (self._publisher.next_deadline(now), self.homes.next_deadline())
        moments = (
            self.registry.next_deadline(),
            *(changes if self._settling.is_over(now) else (self._settling.until,)),
            self.operators.next_deadline(),
            self._connected.rivals.next_deadline(),
            self._place_at,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Do what is due. A few tables at most: while more wait, `next_deadline` is now."""
        due = self.registry.next_deadline()
        if due is not None and due <= now:
            self._take(self.registry.handle_deadline(now), now, wall_now)
        for rival in self._connected.rivals.take_due(now):
            self._succeed(rival, now, wall_now)
        if self._place_at <= now:
            self._tell_placement(now)
        self.operators.handle_deadline(now)
        if not self._settling.is_over(now):
            return
        self._decide_homes(now, wall_now)
        for alarm in self._publisher.compute(self.registry, now, wall_now):
            self._alarm(alarm, wall_now)
        for link, table in self._publisher.take(now):
            self._out.send(link, table)

    def output(self) -> Output:
        """What has to be done since the last call."""
        return self._out.take()

    # --- What is known ---

    def is_connected(self, relay: str) -> bool:
        """Whether a relay has a control link to here."""
        return relay in self._connected

    def link_of(self, relay: str) -> int | None:
        """The number of that link."""
        link = self._connected.of(relay)
        return None if link is None else link.number

    @property
    def commands(self) -> Commands:
        """What operators ordered."""
        return self.operators.commands

    @property
    def streams(self) -> Streams:
        """What is published where."""
        return self.reports.streams

    def relays(self, now: float) -> dict[str, RelayView]:
        """Everybody who is known, dead ones too, by id."""
        return {view.id: view for view in self.registry.everybody(now)}

    def missing(self, now: float) -> frozenset[str]:
        """Relays that are waited for since the start: until they are here nothing is changed."""
        return frozenset() if self._settling.is_over(now) else self._settling.missing

    def statistics(self) -> PlaneStatistics:
        """Now, and since the start."""
        made, asked = self._publisher.statistics(), self.operators.asked
        reports = (self.reports.taken, self.reports.dropped)
        links, unsaved = len(self._connected), self._out.unsaved
        return PlaneStatistics(links, unsaved, asked, self._refused, *reports, *made, *self._rehomed)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self.registry.check_invariants()
        self.homes.check_invariants()
        self.placement.check_invariants()
        self.reports.check_invariants()
        self.operators.check_invariants()
        self._connected.check_invariants()
        self._out.check_invariants()

    # --- Messages ---

    def _receive_hello(self, link: Link, hello: Hello, now: float, wall_now: float) -> None:
        if link.hello is not None:
            self._drop(link, "a second Hello", wall_now)
            return
        relay = link.peer.id
        if self.registry.has_other_life(relay, hello, now) and self._connected.rivals.hold(
            link.number, relay, hello, now
        ):
            first = self._connected.of(relay)
            if first is not None:
                self._out.send(first.number, Question(0, "links", 1))
            return
        self._take_in(link, hello, now, wall_now)

    def _refuse_second(self, rival: Rival, now: float, wall_now: float) -> None:
        """The one that is here lives: there are two with one id."""
        first = self.registry.relay(rival.relay, now)
        where = first.hello.address[0] if first is not None else "one that is here"
        self._refuse(
            rival.link, Alarm(AlarmKind.TWO_BOOTS, rival.relay, f"{rival.hello.address[0]} beside {where}"), wall_now
        )

    def _succeed(self, rival: Rival, now: float, wall_now: float) -> None:
        """The one that was here has not answered: the newcomer takes its place."""
        first, second = self._connected.of(rival.relay), self._connected.link(rival.link)
        assert second is not None
        if first is not None:
            self._out.close(first.number, "another life took its place")
            self.receive_closed(first.number, "it did not answer when another life of it came", now, wall_now)
        self._take_in(second, rival.hello, now, wall_now, succeeds=True)

    def _take_in(self, link: Link, hello: Hello, now: float, wall_now: float, *, succeeds: bool = False) -> None:
        """Welcome a relay, or refuse it."""
        relay = link.peer.id
        before = self.registry.relay(relay, now)
        findings = self.registry.receive_hello(relay, link.peer.region, hello, now, succeeds=succeeds)
        refused = next((found for found in findings if isinstance(found, Alarm)), None)
        if refused is not None:
            self._refuse(link.number, refused, wall_now)
            return
        self._settling.receive_hello(hello.generation, self.topology.generation)
        if (older := self._connected.welcome(link, hello)) is not None:
            # The same life of the same relay dialled again: the old link is one that it has given up.
            self._out.close(older.number, "replaced by a newer link")
        self._out.send(link.number, Welcome(self._settings.id, report_every_ms=self._settings.report_every_ms))
        self._publisher.receive_new(relay)
        another = before is not None and before.hello.boot != hello.boot
        if another:
            self.reports.begin_anew(relay)
        anew = before is None or another or before.condition is Condition.DEAD
        self.operators.receive_life(relay, hello.boot, now, wall_now, anew=anew)
        self._take(findings, now, wall_now)
        self.homes.receive_change(relay)
        self.operators.send_commands(now)

    def _refuse(self, link: int, why: Alarm, wall_now: float) -> None:
        self._refused += 1
        self._alarm(why, wall_now)
        self._out.send(link, Welcome(self._settings.id, f"{why.kind.value}: {why.detail}"[:512]))
        self._out.close(link, why.kind.value)
        self._connected.remove(link)

    def _receive_report(self, relay: str, report: Report, now: float, wall_now: float) -> None:
        heard = self.reports.receive(relay, report, now)
        if heard is None:
            return
        for kind, other, detail in heard.news:
            self.events.add(wall_now, kind, relay, other, detail)
        self._take(self.registry.receive_report(relay, report, now), now, wall_now)
        self._settling.receive_report(relay)
        if heard.carried is not None:
            self.placement.apply_carried(relay, heard.carried)
        if heard.rooms is not None:
            self.homes.receive_report(relay, heard.rooms)
        if heard.stage:
            self.homes.receive_change(relay)

    def _drop(self, link: Link, why: str, wall_now: float) -> None:
        """End a link on which something came that no relay of ours says."""
        self.events.add(wall_now, "violation", link.peer.id, detail=why)
        self._out.close(link.number, why)
        if self._connected.remove(link.number) is not None:
            self.operators.receive_gone(link.peer.id, why)

    # --- What follows ---

    def _take(self, findings: Iterable[Finding], now: float, wall_now: float) -> None:
        """Pass on what the registry found."""
        listed = tuple(findings)
        for found in listed:
            if isinstance(found, Alarm):
                self._alarm(found, wall_now)
                continue
            detail = ""
            if found.kind is EventKind.STAGE and (view := self.registry.relay(found.relay, now)) is not None:
                detail = view.stage
            self.events.add(wall_now, found.kind.value, found.relay, found.other, detail)
            if found.kind in _ABOUT_RELAYS:
                self.homes.receive_change(found.relay)
                if members := self._members.follow(found.relay, self.registry.relay(found.relay, now)):
                    self._out.save(Batch(members=members))
        self.topology.receive(listed, now)
        kinds = {found.kind for found in listed if not isinstance(found, Alarm)}
        if kinds & _AT_ONCE:
            self._tell_placement(now)
        elif kinds & _SOON:
            self._place_at = min(self._place_at, now + PLACING_SOON_S)
        for found in listed:
            if not isinstance(found, Alarm) and found.kind is EventKind.DIED:
                self.reports.forget(found.relay)
                self._publisher.forget(found.relay)
                moves, stranded = self.placement.rehome(found.relay)
                self._rehomed = self._rehomed[0] + len(moves), self._rehomed[1] + stranded

    def _alarm(self, alarm: Alarm, wall_now: float) -> None:
        self.events.add(wall_now, alarm.kind.value, alarm.who, detail=alarm.detail, alarm=True)

    def _decide_homes(self, now: float, wall_now: float) -> None:
        due = self.homes.next_deadline()
        if due is None or now < due:
            return
        decision = self.homes.decide(self.relays(now), now)
        for alarm in decision.alarms:
            self._alarm(alarm, wall_now)
        if decision.entries:
            self._out.save(Batch(rooms=decision.entries))

    def _tell_placement(self, now: float) -> None:
        members = self.registry.members(now)
        self._place_at = now + PLACING_S
        self.placement.apply(
            [view.entry() for view in members],
            now,
            [view.id for view in members if view.condition is Condition.DETACHED],
            {view.id: now - view.heard_age_s for view in members},
            Edition(self.term, self.topology.generation),
        )


_AT_ONCE = frozenset((EventKind.DIED, EventKind.STAGE))
_SOON = frozenset((EventKind.JOINED, EventKind.ATTACHED, EventKind.DETACHED))
_ABOUT_RELAYS = _AT_ONCE | _SOON
EVENT_KINDS = (
    *("started", "closed", "violation", "room", "command", "command_done", "command_failed", "overstayed"),
    "table_refused",
    *OVERRIDE_KINDS,
    *(kind.value for kind in EventKind),
    *(kind.value for kind in AlarmKind),
)
"""Everything that an event may be."""
