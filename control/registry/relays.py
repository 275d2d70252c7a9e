"""What is known of every relay and of every link between two: who is there, who is not, and what each end measured.

The plane hands in what relays say (`receive_hello`, `receive_report`), when a control link closes, and the time;
`topology`, `placement` and the others read values. Nothing here decides where traffic goes.

A relay is dead when its control link has been silent and no neighbour says that it hears it; sooner where several say
that they do not. One whose neighbours do is detached: it serves on, only we do not reach it. Silence that nobody else
confirms may be ours, so that on our word alone never more than half of a region is dead, and after we ourselves were
late nobody is for a while.

A directed link has two ends, and each says what it sees of it. The worse view wins: a relay that reports a perfect
link hides nothing. A link that has been bad is held down for longer each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from control.registry.flaps import UNUSABLE, Flaps
from control.registry.values import (
    NEVER,
    WITNESSES,
    Alarm,
    AlarmKind,
    Condition,
    Event,
    EventKind,
    Evidence,
    Finding,
    Place,
    RegistrySettings,
    RegistryStatistics,
    RelayView,
)
from tradewind.contract.messages import Hello, LinkReport, Report, StageName

REEXAMINE_S = 0.25
"""How often a relay is looked at that is silent, but heard by its neighbours."""
OVERDUE_S = 0.1
"""How often one is whose report is overdue."""
DEAD_KEPT_S = 600.0
"""So long a dead relay is shown to operators."""
MAX_RELAYS = 2047
"""A route table has room for 2,048."""


@dataclass(slots=True)
class _Relay:
    id: str
    region: str
    hello: Hello
    heard_at: float
    connected: bool = True
    closed_at: float = NEVER
    condition: Condition = Condition.ALIVE
    report: Report | None = None
    reported_at: float = NEVER
    last_stage: StageName | None = None
    """What a controller before us heard."""
    awaited_until: float = NEVER
    """A controller before us knew it: so long nobody misses it."""
    unconfirmed: bool = False
    """Dead, and nobody but us says so."""
    troubled: set[str] = field(default_factory=set)
    """Neighbours to whom or from whom it last reported a link that is not usable."""


class Registry:
    """All relays of a mesh. `places` gives coordinates of relays or regions by id."""

    __slots__ = ("_due", "_excused_at", "_flaps", "_places", "_relays", "_settings")

    def __init__(self, settings: RegistrySettings, places: Mapping[str, Place] | None = None) -> None:
        self._settings = settings
        self._places = dict(places or {})
        self._relays: dict[str, _Relay] = {}
        self._flaps = Flaps(settings)
        self._due: float | None = None
        self._excused_at = NEVER

    # --- What relays say ---

    def restore(self, relay: str, region: str, hello: Hello, stage: StageName, now: float, until: float) -> None:
        """A relay that a controller before us knew: it is there for all that we know, and has so long to come back."""
        self._relays[relay] = _Relay(
            relay, region, hello, now, False, condition=Condition.DETACHED, last_stage=stage, awaited_until=until
        )
        self._wake_at(until)

    def receive_hello(
        self, relay: str, region: str, hello: Hello, now: float, *, succeeds: bool = False
    ) -> tuple[Finding, ...]:
        """A relay whose certificate gives it this id and region has connected.

        An alarm among the findings refuses it: close its control link and tell nobody. A second boot of one id is
        refused while the first is alive: two relays with one name would take each other's traffic. `succeeds`: the
        first was asked, and did not answer.
        """
        known = self._relays.get(relay)
        if known is None and sum(r.condition is not Condition.DEAD for r in self._relays.values()) >= MAX_RELAYS:
            return (Alarm(AlarmKind.MESH_FULL, relay, f"{MAX_RELAYS} relays are here"),)
        if known is not None and not succeeds and self.has_other_life(relay, hello, now):
            return (Alarm(AlarmKind.TWO_BOOTS, relay, f"{hello.address[0]} beside {known.hello.address[0]}"),)
        self._wake_at(now + self._settings.confirmed_s)
        if known is not None and known.hello.boot == hello.boot and known.region == region:
            known.hello, known.connected = hello, True
            return self._heard(known, now)
        self._forget_links(relay)
        self._relays[relay] = _Relay(relay, region, hello, now)
        return (Event(EventKind.JOINED, relay),)

    def has_other_life(self, relay: str, hello: Hello, now: float) -> bool:
        """Whether another boot of this relay seems to be here: whoever can, asks it."""
        known = self._relays.get(relay)
        return known is not None and known.hello.boot != hello.boot and self._still_alive(known, now)

    def receive_report(self, relay: str, report: Report, now: float) -> tuple[Finding, ...]:
        """A relay that said hello tells how it is; returns what that changes."""
        known = self._relays[relay]
        before = known.report.stage if known.report else known.last_stage
        findings = list(self._heard(known, now))
        known.report, known.reported_at = report, now
        if before is not None and before != report.stage:
            findings.append(Event(EventKind.STAGE, relay))
        findings += self._compare_links(known, report.links, now)
        return tuple(findings)

    def receive_closed(self, relay: str, now: float) -> tuple[Finding, ...]:
        """Its control link is gone: it has its silence to come back, or its neighbours to speak for it.

        One that had said that it is empty has left.
        """
        known = self._relays[relay]
        known.connected, known.closed_at = False, now
        if known.report is None or known.report.stage != "empty":
            return ()
        return (self._bury(known),)

    # --- Time ---

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nothing can change by time alone."""
        return self._due

    def handle_deadline(self, now: float) -> tuple[Finding, ...]:
        """Who died or was left alone, and which links may be used again."""
        if self._due is not None and now - self._due > self._settings.late_s:
            self._excused_at = now
        findings: list[Finding] = [*self._flaps.release(now), *self._examine_silent(now)]
        for relay in [r for r in self._relays.values() if self._may_be_forgotten(r, now)]:
            self._forget_links(relay.id)
            del self._relays[relay.id]
        self._due = self._next_due(now)
        return tuple(findings)

    # --- What is known ---

    def relay(self, relay: str, now: float) -> RelayView | None:
        """One relay, dead ones too."""
        known = self._relays.get(relay)
        return self._view(known, now) if known else None

    def members(self, now: float) -> tuple[RelayView, ...]:
        """Everybody who is not dead, by region and id."""
        there = (relay for relay in self._relays.values() if relay.condition is not Condition.DEAD)
        return tuple(self._view(relay, now) for relay in sorted(there, key=lambda r: (r.region, r.id)))

    def everybody(self, now: float) -> tuple[RelayView, ...]:
        """All that are known, also those that died not long ago, by region and id."""
        return tuple(self._view(relay, now) for relay in sorted(self._relays.values(), key=lambda r: (r.region, r.id)))

    def evidence(self, now: float) -> Iterator[Evidence]:
        """Every directed link between two who are not dead, of which there is evidence, in no order."""
        told = {
            relay.id: {link.neighbour: link for link in relay.report.links}
            for relay in self._relays.values()
            if relay.condition is not Condition.DEAD and relay.report is not None
        }
        for receiver, links in told.items():
            for sender, seen in links.items():
                other = self._relays.get(sender)
                if other is None or other.condition is Condition.DEAD:
                    continue
                away = told[sender].get(receiver) if sender in told else None
                if (found := self._weigh(sender, receiver, seen, away, now)) is not None:
                    yield found
                if away is None and (found := self._weigh(receiver, sender, None, seen, now)) is not None:
                    yield found

    def evidence_of(self, sender: str, receiver: str, now: float) -> Evidence | None:
        """What is known of one directed link; None: nothing, or an end of it is dead."""
        if any(end not in self._relays or self._relays[end].condition is Condition.DEAD for end in (sender, receiver)):
            return None
        return self._weigh(sender, receiver, self._told(receiver, sender), self._told(sender, receiver), now)

    def statistics(self) -> RegistryStatistics:
        """How many of each."""
        count = Counter(relay.condition for relay in self._relays.values())
        alive, detached, dead = (count[condition] for condition in Condition)
        return RegistryStatistics(alive, detached, dead, len(self._flaps))

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self._flaps.check_invariants()
        for sender, receiver in self._flaps.links():
            assert sender in self._relays and receiver in self._relays, (sender, receiver)
        for relay in self._relays.values():
            assert relay.condition is not Condition.DEAD or not relay.troubled

    # --- Relays ---

    def _still_alive(self, relay: _Relay, now: float) -> bool:
        """Whether a newcomer with this one's name has to be an impostor."""
        if relay.condition is Condition.DEAD:
            return False
        silent_s = now - (relay.heard_at if relay.connected else relay.closed_at)
        if relay.connected and silent_s < self._settings.silence_s:
            return True
        # For longer nobody may speak for it: neighbours may well hear the newcomer, and reports name no boots.
        return silent_s < self._settings.impostor_s and self._witnesses(now)[0][relay.id] > 0

    def _heard(self, relay: _Relay, now: float) -> tuple[Finding, ...]:
        relay.heard_at = now
        before, relay.condition = relay.condition, Condition.ALIVE
        relay.unconfirmed, relay.awaited_until = False, NEVER
        if before is Condition.ALIVE:
            return ()
        return (Event(EventKind.JOINED if before is Condition.DEAD else EventKind.ATTACHED, relay.id),)

    def _examine_silent(self, now: float) -> Iterator[Finding]:
        """Judge those who have been silent, the longest first."""
        silent = [
            relay
            for relay in self._relays.values()
            if relay.condition is not Condition.DEAD and now >= self._overdue_at(relay)
        ]
        if not silent:
            return
        heard, missed = self._witnesses(now)
        sizes = Counter(relay.region for relay in self._relays.values())
        given_up = Counter(relay.region for relay in self._relays.values() if relay.unconfirmed)
        for relay in sorted(silent, key=lambda r: (r.heard_at, r.id)):
            witnesses = heard[relay.id] + missed[relay.id]
            if now < self._patient_until(relay):
                if missed[relay.id] == witnesses >= WITNESSES:
                    yield self._bury(relay)
                continue
            if heard[relay.id] >= min(2, witnesses) > 0:
                yield from self._detach(relay)
            elif missed[relay.id]:
                yield self._bury(relay)
            elif given_up[relay.region] < int(self._settings.dead_region_ratio * sizes[relay.region]):
                given_up[relay.region] += 1
                relay.unconfirmed = True
                yield self._bury(relay)
            else:
                fresh = relay.condition is Condition.ALIVE
                yield from self._detach(relay)
                if fresh:
                    detail = f"{given_up[relay.region]} of {sizes[relay.region]} given up; nobody else saw {relay.id}"
                    yield Alarm(AlarmKind.REGION_SILENT, relay.region, detail)

    def _patient_until(self, relay: _Relay) -> float:
        """When its silence says something."""
        # The deadline and what is due by it are one sum: a last bit of difference would have us look again for ever.
        return max(max(relay.heard_at, self._excused_at) + self._settings.silence_s, relay.awaited_until)

    def _bury(self, relay: _Relay) -> Event:
        relay.condition = Condition.DEAD
        self._forget_links(relay.id)
        return Event(EventKind.DIED, relay.id)

    @staticmethod
    def _may_be_forgotten(relay: _Relay, now: float) -> bool:
        """Not those whom we alone believe dead: without them their region would look smaller."""
        gone = relay.condition is Condition.DEAD and not relay.connected and not relay.unconfirmed
        return gone and now - relay.heard_at >= DEAD_KEPT_S

    @staticmethod
    def _detach(relay: _Relay) -> Iterator[Finding]:
        if relay.condition is Condition.ALIVE:
            relay.condition = Condition.DETACHED
            yield Event(EventKind.DETACHED, relay.id)

    def _witnesses(self, now: float) -> tuple[Counter[str], Counter[str]]:
        """How many fresh reports say of each relay that it is heard, and how many that it is not."""
        heard: Counter[str] = Counter()
        missed: Counter[str] = Counter()
        for relay in self._relays.values():
            if relay.report is None or now - relay.reported_at >= self._settings.silence_s:
                continue
            heard.update(link.neighbour for link in relay.report.links if link.state == "up")
            missed.update(link.neighbour for link in relay.report.links if link.state == "bad")
        return heard, missed

    def _view(self, relay: _Relay, now: float) -> RelayView:
        place = self._places.get(relay.id) or self._places.get(relay.region)
        age_s = now - relay.heard_at
        stage = relay.last_stage or "serving"
        return RelayView(relay.id, relay.region, place, relay.hello, relay.report, relay.condition, age_s, stage)

    def _wake_at(self, moment: float) -> None:
        self._due = moment if self._due is None else min(self._due, moment)

    def _next_due(self, now: float) -> float | None:
        moments = [
            max(now + REEXAMINE_S, relay.awaited_until)
            if relay.condition is Condition.DETACHED
            else self._silent_at(relay, now)
            for relay in self._relays.values()
            if relay.condition is not Condition.DEAD
        ]
        if (released := self._flaps.next_release(now)) is not None:
            moments.append(released)
        return min(moments, default=None)

    def _silent_at(self, relay: _Relay, now: float) -> float:
        """When to look again at one who may have fallen silent; while it is overdue neighbours may say so any time."""
        overdue = self._overdue_at(relay)
        return overdue if now < overdue else min(self._patient_until(relay), now + OVERDUE_S)

    def _overdue_at(self, relay: _Relay) -> float:
        """When its silence is worth asking its neighbours about."""
        return max(max(relay.heard_at, self._excused_at) + self._settings.confirmed_s, relay.awaited_until)

    # --- Links ---

    def _compare_links(self, relay: _Relay, links: tuple[LinkReport, ...], now: float) -> Iterator[Finding]:
        """Take over one end's view of all its links, and tell which may no longer be used."""
        troubled = {
            link.neighbour
            for link in links
            if (link.state in UNUSABLE or link.away_state in UNUSABLE) and link.neighbour in self._relays
        }
        if not troubled and not relay.troubled:
            return
        states = {link.neighbour: (link.state, link.away_state) for link in links}
        for neighbour in sorted(troubled | relay.troubled):
            towards, away = states.get(neighbour, ("up", "up"))
            yield from self._flaps.receive((neighbour, relay.id), relay.id, towards, now)
            yield from self._flaps.receive((relay.id, neighbour), relay.id, away, now)
        relay.troubled = troubled
        if (released := self._flaps.next_release(now)) is not None:
            self._wake_at(released)

    def _forget_links(self, relay: str) -> None:
        """Nobody's word on links of a relay that is gone counts for the one that comes after it."""
        self._flaps.forget(relay)
        for other in self._relays.values():
            other.troubled.discard(relay)
        if relay in self._relays:
            self._relays[relay].troubled.clear()

    def _told(self, relay: str, neighbour: str) -> LinkReport | None:
        known = self._relays.get(relay)
        if known is None or known.report is None or known.condition is Condition.DEAD:
            return None
        return next((link for link in known.report.links if link.neighbour == neighbour), None)

    def _weigh(
        self, sender: str, receiver: str, seen: LinkReport | None, away: LinkReport | None, now: float
    ) -> Evidence | None:
        """Both ends' views of one direction, the worse of each figure; a stale view beside a fresh one does not count.

        `seen` is what the receiving end says of the sender, `away` what the sending end says of the receiver.
        """
        seen_age_s = now - self._relays[receiver].reported_at if seen else float("inf")
        away_age_s = now - self._relays[sender].reported_at if away else float("inf")
        age_s = min(seen_age_s, away_age_s)
        if age_s >= self._settings.forget_s:
            return None
        limit_s = max(age_s, self._settings.stale_s)
        rtt_ms = jitter_ms = loss_ratio = 0.0
        if away is not None and away_age_s <= limit_s:
            rtt_ms, jitter_ms, loss_ratio = away.rtt_ms, away.jitter_ms, away.away_loss_ratio
        if seen is not None and seen_age_s <= limit_s:
            # Jitter has a direction: only the receiving end has seen this one's.
            rtt_ms, jitter_ms = max(rtt_ms, seen.rtt_ms), seen.jitter_ms
            loss_ratio = max(loss_ratio, seen.loss_ratio)
        usable = self._flaps.usable((sender, receiver))
        return Evidence(sender, receiver, rtt_ms, jitter_ms, loss_ratio, usable, age_s)
