"""The control plane without I/O: what proven relays and operators say goes in, with the time; an `Output` comes out.

`control.run` hands in links (`receive_proven`, `receive_message`, `receive_closed`) and what operators want (`order`,
`ask`), calls `handle_deadline` when `next_deadline` says so, and takes an `Output` after each call: batches to persist,
messages to send, links to close, replies to operators. What may only be said once it is on disk is in no output before
`receive_saved`: an order acts, and a room's new home is published, when a controller that starts now knows of it.

A controller that starts waits for the relays that its store knows before it changes anything (`settling`). A second
relay with one id is refused where the first answers (`rivals`), and operators hear of it. Relays are told in signed
tables what to do; what is known of them is `registry`'s, where media goes `topology`'s, where viewers go `placement`'s,
rooms `homes`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from control.commands import Commands, Verdict
from control.events import EventLog
from control.homes import Homes, HomeSettings, shown
from control.members import Members
from control.outgoing import Outgoing, Output, Reply
from control.overrides import KINDS as OVERRIDE_KINDS
from control.overrides import Overrides
from control.placement import Placement
from control.publishing import Publishing, Signing, publish
from control.questions import Questions
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
from control.rivals import Rival, Rivals
from control.settling import SETTLE_S, Settling
from control.state import Batch, Order, State
from control.streams import Streams
from control.topology.planner import Topology, TopologySettings
from control.topology.schedule import Due
from control.topology.tables import Shared
from control.topology.weights import Priors
from tradewind.contract.identity import NodeIdentity
from tradewind.contract.messages import (
    Answer,
    Done,
    Hello,
    MarketEntry,
    Question,
    Report,
    TableDelta,
    ToController,
    Welcome,
)
from tradewind.placing.answering import Edition

PLACING_S = 1.0
"""How often placement is told of loads."""
MAX_REPORTS_PER_S = 20
"""Of one relay: one a second, and one at each change; more are not looked at."""


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


@dataclass(slots=True)
class _Link:
    """One proven connection."""

    peer: NodeIdentity
    hello: Hello | None = None
    sent: tuple[int, int] | None = None
    """Term and generation of the table that went out last."""
    second: float = 0.0
    reports: int = 0
    """In this second."""


class Plane:
    """One controller's state. `state` is what its store had when this term began."""

    __slots__ = (
        *("_by_relay", "_carried", "_counts", "_links", "_members", "_out", "_place_at", "_publishing", "_questions"),
        *("_rivals", "_settings", "_settling", "_shared", "_signing"),
        *("commands", "events", "homes", "overrides", "placement", "registry", "streams", "term", "topology"),
    )

    def __init__(
        self, settings: PlaneSettings, state: State, signing: Signing, placement: Placement, now: float, wall_now: float
    ) -> None:
        self.term = state.term
        self.registry = Registry(settings.registry, settings.places)
        self.topology = Topology(settings.mesh, settings.topology, settings.priors)
        self.placement = placement
        self.commands = Commands(state)
        self.homes = Homes(settings.homes, state.rooms, settings.rooms, now)
        self.events = EventLog(wall_now)
        self.streams = Streams()
        self.overrides = Overrides()
        self._settings = settings
        self._signing = signing
        self._publishing = Publishing(settings.topology.schedule.cycle_s)
        self._shared = Shared(state.term, self.homes.entries(), settings.placement_keys, settings.markets)
        self._links: dict[int, _Link] = {}
        self._by_relay: dict[str, int] = {}
        self._carried: dict[str, Report] = {}
        self._place_at = now
        self._questions = Questions()
        self._out = Outgoing()
        self._counts = dict.fromkeys(PlaneStatistics._fields[3:], 0)
        self._rivals = Rivals()
        self._members = Members(state.members)
        self._settling = Settling((member.relay for member in state.members), now, settings.settle_s)
        for known in state.members:
            self.registry.restore(known.relay, known.region, known.hello, known.stage, now, self._settling.until)
            self.topology.receive_change(now)
        self.events.add(wall_now, "started", detail=f"term {state.term}")

    # --- Relays ---

    def receive_proven(self, link: int, peer: NodeIdentity) -> None:
        """A relay has proven on a new link who it is. `link` is a number that was never used before."""
        assert link not in self._links
        self._links[link] = _Link(peer)

    def receive_message(self, link: int, message: ToController, now: float, wall_now: float) -> None:
        """A message came on a link. On one that is closed, or about to be, it says nothing any more."""
        known = self._links.get(link)
        if known is None:
            return
        if self._by_relay.get(known.peer.id) == link and (rival := self._rivals.receive_word(known.peer.id)):
            self._refuse_second(rival, now, wall_now)
        if known.hello is None and not isinstance(message, Hello):
            self._drop(link, "the first message is not Hello", wall_now)
            return
        match message:
            case Hello():
                self._receive_hello(link, known, message, now, wall_now)
            case Report():
                self._receive_report(known, message, now, wall_now)
            case Done():
                self._receive_done(known.peer.id, message, wall_now)
            case Answer():
                self._out.reply(*self._questions.receive_answer(known.peer.id, message))

    def receive_closed(self, link: int, detail: str, now: float, wall_now: float) -> None:
        """A link is gone."""
        known = self._links.pop(link, None)
        self._rivals.receive_closed(link)
        if known is None or self._by_relay.get(known.peer.id) != link:
            return
        relay = known.peer.id
        del self._by_relay[relay]
        self.events.add(wall_now, "closed", relay, detail=detail)
        self._out.reply(*self._questions.receive_gone(relay, f"{relay} has gone"))
        if self.registry.relay(relay, now) is not None:
            self._take(self.registry.receive_closed(relay, now), now, wall_now)

    def receive_saved(self, number: int, now: float, wall_now: float) -> None:
        """A batch is on disk: what waited for it happens."""
        batch = self._out.receive_saved(number)
        for order in batch.orders:
            self.commands.receive_saved(order.id, now)
        if batch.rooms:
            self.homes.receive_saved(batch.rooms)
            self._shared = self._shared._replace(rooms=self.homes.entries())
            self.topology.receive_change(now)
            for entry in batch.rooms:
                detail = f"{shown(entry.room)} epoch {entry.epoch}"
                self.events.add(wall_now, "room", entry.home, entry.follower, detail)
        self._send_commands(now)

    # --- Operators ---

    def order(self, order: Order, now: float, wall_now: float) -> int:
        """An operator wants something done; returns the ticket of the reply, which comes once it is journaled."""
        ticket, out = self._out.ticket(), self._out
        known = self.registry.relay(order.relay, now)
        if known is None and self.commands.order(order.id) is None:
            out.reply(Reply(ticket, 404, {"error": f"there is no relay {order.relay}"}))
            return ticket
        if order.action == "kick" and known is not None:
            # Sessions are numbered anew in every life of a relay.
            order = replace(order, boot=known.hello.boot.hex())
        taken = self.commands.receive(order, wall_now)
        match taken.verdict:
            case Verdict.CONFLICT:
                out.reply(Reply(ticket, 409, {"error": f"{order.id} is the id of another command"}))
            case Verdict.FULL:
                out.reply(Reply(ticket, 503, {"error": "too many commands are open"}))
            case Verdict.KNOWN:
                out.reply_saved(taken.order, Reply(ticket, 200, taken.order))
            case Verdict.NEW:
                out.save(taken.batch, Reply(ticket, 202, taken.order))
                self.events.add(wall_now, "command", order.relay, order.by, f"{order.action} {order.id}")
        return ticket

    def ask(self, relay: str, question: Question, now: float) -> int:
        """An operator wants to see something of a relay; returns the ticket of the reply, the question's id too."""
        ticket = self._out.ticket()
        link = self._by_relay.get(relay)
        if link is None:
            status = 404 if self.registry.relay(relay, now) is None else 502
            self._out.reply(Reply(ticket, status, {"error": f"{relay} is not connected"}))
        elif (refused := self._questions.ask(ticket, relay, now)) is not None:
            self._out.reply(refused)
        else:
            self._out.send(link, replace(question, id=ticket))
        return ticket

    def receive_unsent(self, question: Question) -> tuple[Reply, ...]:
        """A question has no bytes in the version that its relay speaks; returns what to tell who asked."""
        return self._questions.refuse(question.id, "the relay is of a release that cannot answer that")

    # --- Time ---

    def next_deadline(self, now: float) -> float | None:
        """When to call `handle_deadline`; in the past: at once."""
        changes = (self.topology.next_deadline(), self._publishing.next_deadline(now), self.homes.next_deadline())
        moments = (
            self.registry.next_deadline(),
            *(changes if self._settling.is_over(now) else (self._settling.until,)),
            self.commands.next_deadline(set(self._by_relay)),
            self._rivals.next_deadline(),
            self._place_at,
            self._questions.next_deadline(),
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Do what is due. A few tables at most: while more wait, `next_deadline` is now."""
        due = self.registry.next_deadline()
        if due is not None and due <= now:
            self._take(self.registry.handle_deadline(now), now, wall_now)
        self._out.reply(*self._questions.handle_deadline(now))
        for rival in self._rivals.take_due(now):
            self._succeed(rival, now, wall_now)
        if self._place_at <= now:
            self._tell_placement(now)
        self._send_commands(now)
        if not self._settling.is_over(now):
            return
        self._decide_homes(now, wall_now)
        self._compute(now, wall_now)
        for relay, whole in self._publishing.take(now):
            self._publish(relay, whole=whole)

    def output(self) -> Output:
        """What has to be done since the last call."""
        return self._out.take()

    # --- What is known ---

    def is_connected(self, relay: str) -> bool:
        """Whether a relay has a control link to here."""
        return relay in self._by_relay

    def relays(self, now: float) -> dict[str, RelayView]:
        """Everybody who is known, dead ones too, by id."""
        return {view.id: view for view in self.registry.everybody(now)}

    def missing(self, now: float) -> frozenset[str]:
        """Relays that are waited for since the start: until they are here nothing is changed."""
        return frozenset() if self._settling.is_over(now) else self._settling.missing

    def statistics(self) -> PlaneStatistics:
        """Now, and since the start."""
        return PlaneStatistics(len(self._by_relay), self._out.unsaved, self._questions.asked, **self._counts)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self.registry.check_invariants()
        self.commands.check_invariants()
        self.homes.check_invariants()
        self.placement.check_invariants()
        self.overrides.check_invariants()
        for relay, link in self._by_relay.items():
            assert self._links[link].peer.id == relay
            assert self._links[link].hello is not None
        self._questions.check_invariants(set(self._by_relay))
        self._out.check_invariants()

    # --- Messages ---

    def _receive_hello(self, link: int, known: _Link, hello: Hello, now: float, wall_now: float) -> None:
        if known.hello is not None:
            self._drop(link, "a second Hello", wall_now)
            return
        relay = known.peer.id
        if self.registry.has_other_life(relay, hello, now) and self._rivals.hold(link, relay, hello, now):
            first = self._by_relay.get(relay)
            if first is not None:
                self._out.send(first, Question(0, "links", 1))
            return
        self._take_in(link, known, hello, now, wall_now)

    def _refuse_second(self, rival: Rival, now: float, wall_now: float) -> None:
        """The one that is here lives: there are two with one id."""
        first = self.registry.relay(rival.relay, now)
        where = first.hello.address[0] if first is not None else "one that is here"
        self._refuse(
            rival.link, Alarm(AlarmKind.TWO_BOOTS, rival.relay, f"{rival.hello.address[0]} beside {where}"), wall_now
        )

    def _succeed(self, rival: Rival, now: float, wall_now: float) -> None:
        """The one that was here has not answered: the newcomer takes its place."""
        first = self._by_relay.get(rival.relay)
        if first is not None:
            self._out.close(first, "another life took its place")
            self.receive_closed(first, "it did not answer when another life of it came", now, wall_now)
        self._take_in(rival.link, self._links[rival.link], rival.hello, now, wall_now, succeeds=True)

    def _take_in(
        self, link: int, known: _Link, hello: Hello, now: float, wall_now: float, *, succeeds: bool = False
    ) -> None:
        """Welcome a relay, or refuse it."""
        relay = known.peer.id
        before = self.registry.relay(relay, now)
        findings = self.registry.receive_hello(relay, known.peer.region, hello, now, succeeds=succeeds)
        refused = next((found for found in findings if isinstance(found, Alarm)), None)
        if refused is not None:
            self._refuse(link, refused, wall_now)
            return
        self._settling.receive_hello(hello.generation, self.topology.generation)
        known.hello = hello
        if relay in self._by_relay:
            # The same life of the same relay dialled again: the old link is one that it has given up.
            older = self._by_relay.pop(relay)
            del self._links[older]
            self._out.close(older, "replaced by a newer link")
        self._by_relay[relay] = link
        self._out.send(link, Welcome(self._settings.id, report_every_ms=self._settings.report_every_ms))
        self._publishing.receive_new(relay)
        anew = before is None or before.hello.boot != hello.boot or before.condition is Condition.DEAD
        if before is not None and before.hello.boot != hello.boot:
            self.streams.forget(relay)
        ended = self.commands.receive_life(relay, hello.boot.hex(), wall_now)
        if ended.orders:
            self._out.save(ended)
        self.commands.receive_connected(relay, now, anew=anew)
        self._take(findings, now, wall_now)
        self.homes.receive_change(relay)
        self._send_commands(now)

    def _refuse(self, link: int, why: Alarm, wall_now: float) -> None:
        self._counts["refused"] += 1
        self._alarm(why, wall_now)
        self._out.send(link, Welcome(self._settings.id, f"{why.kind.value}: {why.detail}"[:512]))
        self._out.close(link, why.kind.value)
        self._rivals.receive_closed(link)
        del self._links[link]

    def _receive_report(self, known: _Link, report: Report, now: float, wall_now: float) -> None:
        if now - known.second >= 1.0:
            known.second, known.reports = now, 0
        known.reports += 1
        if known.reports > MAX_REPORTS_PER_S:
            self._counts["reports_dropped"] += 1
            return
        self._counts["reports"] += 1
        relay = known.peer.id
        before = self._carried.get(relay)
        self._carried[relay] = report
        self.streams.apply(relay, report)
        if before is not None and report.overstayed > before.overstayed:
            detail = f"{report.overstayed - before.overstayed} did not move and were closed"
            self.events.add(wall_now, "overstayed", relay, detail=detail)
        self._take(self.registry.receive_report(relay, report, now), now, wall_now)
        self._settling.receive_report(relay)
        if before is None or (before.origins, before.carried) != (report.origins, report.carried):
            self.placement.apply_carried(relay, [*(o.namespace for o in report.origins), *report.carried])
        if before is None or before.rooms != report.rooms:
            self.homes.receive_report(relay, report.rooms)
        if before is None or before.stage != report.stage:
            self.homes.receive_change(relay)
        for line in self.overrides.receive(relay, report.overrides, now):
            self.events.add(wall_now, line.kind, relay, line.origin, line.detail)

    def _receive_done(self, relay: str, done: Done, wall_now: float) -> None:
        batch = self.commands.receive_done(relay, done, wall_now)
        if batch.orders:
            (order,) = batch.orders
            self.events.add(wall_now, f"command_{order.progress}", relay, order.by, f"{order.action} {order.id}")
            self._out.save(batch)

    def _drop(self, link: int, why: str, wall_now: float) -> None:
        """End a link on which something came that no relay of ours says."""
        known = self._links[link]
        self.events.add(wall_now, "violation", known.peer.id, detail=why)
        self._out.close(link, why)
        if self._by_relay.get(known.peer.id) == link:
            del self._by_relay[known.peer.id]
            self._out.reply(*self._questions.receive_gone(known.peer.id, why))
        self._rivals.receive_closed(link)
        del self._links[link]

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
        if any(not isinstance(found, Alarm) and found.kind in _ABOUT_RELAYS for found in listed):
            self._tell_placement(now)
        for found in listed:
            if not isinstance(found, Alarm) and found.kind is EventKind.DIED:
                self._carried.pop(found.relay, None)
                self.overrides.forget(found.relay)
                self.streams.forget(found.relay)
                moves, stranded = self.placement.rehome(found.relay)
                self._counts["rehomed"] += len(moves)
                self._counts["stranded"] += stranded

    def _alarm(self, alarm: Alarm, wall_now: float) -> None:
        self.events.add(wall_now, alarm.kind.value, alarm.who, detail=alarm.detail, alarm=True)

    def _compute(self, now: float, wall_now: float) -> None:
        outcome = self.topology.handle_deadline(self.registry, self._shared, now, wall_now)
        for alarm in outcome.alarms:
            self._alarm(alarm, wall_now)
        if outcome.due is Due.CYCLE:
            self._publishing.receive_cycle(outcome.changed, now)
        elif outcome.due is Due.EVENT:
            self._publishing.receive_changed(outcome.changed)

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

    def _send_commands(self, now: float) -> None:
        for relay, link in self._by_relay.items():
            self._out.send(link, *self.commands.commands_to_send(relay, now))

    def _publish(self, relay: str, *, whole: bool) -> None:
        """Send a relay its table, or what changed since the one that it was sent last."""
        link = self._by_relay.get(relay)
        pair = self.topology.tables(relay) if link is not None else None
        if link is None or pair is None:
            return
        known = self._links[link]
        made = publish(pair, known.sent, self._signing, whole=whole)
        known.sent = (pair.now.term, pair.now.generation)
        if made is None:
            return
        self._counts["table_bytes"] += made.size_bytes
        self._counts["deltas" if isinstance(made.message, TableDelta) else "tables"] += 1
        self._out.send(link, made.message)


_ABOUT_RELAYS = (EventKind.JOINED, EventKind.DIED, EventKind.STAGE, EventKind.ATTACHED, EventKind.DETACHED)
EVENT_KINDS = (
    *("started", "closed", "violation", "room", "command", "command_done", "command_failed", "overstayed"),
    *OVERRIDE_KINDS,
    *(kind.value for kind in EventKind),
    *(kind.value for kind in AlarmKind),
)
"""Everything that an event may be."""
