"""One neighbour: what is sent to it and what is made of what comes, in both directions.

The node gives it `receive_datagram`, `receive_packets` and `note_lag`, sends `datagrams_to_send`, and acts on
`take_changes`. A `Link` outlives its connections, so that flaps are remembered: `restart` for each new one.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.links.datagrams import (
    LinkViolation,
    Probe,
    decode_datagram,
    encode_report,
)
from relay.links.estimators import RoundTrips, likely_apart
from relay.links.inbound import Inbound
from relay.links.outbound import Outbound
from relay.links.outgoing import Outgoing
from relay.links.settings import DEFAULTS, LinkSettings
from relay.links.states import Direction, LinkChange, State, Symptom
from tradewind.contract.messages import LinkHello, LinkReport, Received

MOST_CHANGES = 64
"""Kept for a node that does not ask; older ones are forgotten first."""
RTT_FRESH_S = 1.0
LARGEST_COUNT = 2**53
CARRIED_S = 1.0


class LinkStatistics(NamedTuple):
    """One link, for `/state` and metrics."""

    inbound: State
    outbound: State
    rtt_s: float
    rtt_min_s: float
    rtt_steps: int
    jitter_s: float
    loss_now_ratio: float
    loss_ratio: float
    loss_minute_ratio: float
    outbound_loss_ratio: float
    probes_sent: int
    arrived: int
    lost: int
    inbound_flaps: int
    outbound_flaps: int


class Link:
    """Both directions between us and one neighbour."""

    __slots__ = (
        "_boot",
        "_carried",
        "_changes",
        "_far",
        "_inbound",
        "_lag_us",
        "_leaving",
        "_neighbour",
        "_outbound",
        "_outgoing",
        "_round_trips",
        "_rtt_at",
        "_settings",
        "_shown",
        "_slow",
        "_ticket",
    )

    def __init__(
        self, neighbour: str, boot: bytes, ticket: bytes, settings: LinkSettings = DEFAULTS, now: float = 0.0
    ) -> None:
        """`boot` and `ticket` are what we say of ourselves: see `LinkHello`."""
        self._neighbour = neighbour
        self._boot = boot
        self._ticket = ticket
        self._settings = settings
        self._far: LinkHello | None = None
        self._outgoing = Outgoing(settings, _seed(neighbour), now)
        self._inbound = Inbound(settings, now)
        self._outbound = Outbound(settings, now)
        self._round_trips = RoundTrips(settings.rtt_window_s)
        self._rtt_at = now - RTT_FRESH_S
        self._slow: Direction | None = None
        """Which direction made round trips rise, while they are."""
        self._lag_us = 0
        self._leaving = False
        self._carried: deque[tuple[float, int]] = deque(maxlen=256)
        self._shown = dict.fromkeys(Direction, State.PROBATION)
        self._changes: deque[LinkChange] = deque(maxlen=MOST_CHANGES)

    # --- What the node asks ---

    @property
    def neighbour(self) -> str:
        return self._neighbour

    @property
    def inbound(self) -> State:
        """Towards us, as we measure it."""
        return self._shown[Direction.INBOUND]

    @property
    def inbound_cause(self) -> Symptom:
        """What brought the direction towards us to its state."""
        return self._inbound.judge.standing.cause

    @property
    def outbound(self) -> State:
        """Away from us: the worse of the far end's view and ours."""
        return self._shown[Direction.OUTBOUND]

    @property
    def is_unheard(self) -> bool:
        """Whether the neighbour, which we hear, hears nothing of us: it gets no acknowledgements, and so stops."""
        return self._outbound.silence is Symptom.DEAD and self.outbound is State.BAD

    @property
    def is_silent(self) -> bool:
        """Whether nothing comes from the neighbour any more: it is dead, or cut off from us."""
        return self.inbound is State.BAD and self._inbound.judge.standing.cause is Symptom.DEAD

    @property
    def far_leaves(self) -> bool:
        """Whether the neighbour says that it is being emptied."""
        return self._outbound.leaving

    @property
    def leaving(self) -> bool:
        """Whether we are being emptied; the node sets it."""
        return self._leaving

    @leaving.setter
    def leaving(self, value: bool) -> None:
        if value is not self._leaving:
            self._leaving = value
            self._outgoing.report_soon()

    @property
    def far(self) -> LinkHello | None:
        """What the neighbour said of itself on this connection."""
        return self._far

    @property
    def active(self) -> bool:
        """Whether the link carries media from us; the node sets it."""
        return self._outgoing.active

    @active.setter
    def active(self, value: bool) -> None:
        self._outgoing.active = value

    @property
    def rtt_steps(self) -> int:
        """How often the round trip's level has moved: a reason to tell the controller at once."""
        return self._round_trips.steps

    def report(self, now: float) -> LinkReport:
        """Both directions, for the controller."""
        return LinkReport(
            neighbour=self._neighbour,
            state=self.inbound.value,
            rtt_ms=self._round_trips.smoothed_s * 1000,
            jitter_ms=self._inbound.delay.p95_s * 1000,
            loss_ratio=self._inbound.judge.loss.ratio(now),
            carried_bytes_per_s=self._carried_bytes_per_s(now),
            away_state=self.outbound.value,
            away_loss_ratio=max(self._outbound.judge.loss.ratio(now), self._outbound.loss_ratio_reported),
        )

    def statistics(self, now: float) -> LinkStatistics:
        loss, trips = self._inbound.judge.loss, self._round_trips
        base_s = trips.base_s(now)
        return LinkStatistics(
            inbound=self.inbound,
            outbound=self.outbound,
            rtt_s=trips.smoothed_s,
            rtt_min_s=base_s if base_s < LARGEST_COUNT else 0.0,
            rtt_steps=trips.steps,
            jitter_s=self._inbound.delay.p95_s,
            loss_now_ratio=loss.ratio_now(now),
            loss_ratio=loss.ratio(now),
            loss_minute_ratio=loss.ratio_minute(now),
            outbound_loss_ratio=max(self._outbound.judge.loss.ratio(now), self._outbound.loss_ratio_reported),
            probes_sent=self._outgoing.number,
            arrived=self._inbound.arrived,
            lost=self._inbound.lost,
            inbound_flaps=self._inbound.judge.standing.flaps(now),
            outbound_flaps=self._outbound.judge.standing.flaps(now),
        )

    def take_changes(self) -> tuple[LinkChange, ...]:
        """Changes of state since the last call."""
        changes = tuple(self._changes)
        self._changes.clear()
        return changes

    # --- Connections ---

    def hello(self) -> LinkHello:
        """What to say once on a reliable stream of each new connection, after identities are proven."""
        return LinkHello(boot=self._boot, ticket=self._ticket)

    def receive_hello(self, message: LinkHello) -> None:
        """What the neighbour said there. Raises LinkViolation where it comes twice."""
        if self._far is not None:
            raise LinkViolation("more than one greeting")
        self._far = message

    def restart(self, ticket: bytes, now: float) -> None:
        """There is another connection: counts begin anew, with what is known of the link."""
        self._ticket = ticket
        self._far = None
        active = self._outgoing.active
        self._outgoing = Outgoing(self._settings, _seed(self._neighbour), now)
        self._outgoing.active = active
        self._inbound.restart(now)
        self._outbound.restart(now)
        self._show(now)

    # --- What comes in ---

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take a probe or a report. Raises LinkViolation."""
        found = decode_datagram(data)
        if isinstance(found, Probe):
            if self._inbound.receive_probe(found, now):
                self._outgoing.report_soon()
                self._judge(now)
            elif self._inbound.judge.standing.state is not State.UP:
                self._judge(now)
        else:
            self._receive_report(found, now)

    def receive_packets(
        self, arrived: int, lost: int, now: float, size_bytes: int = 0, apart: int | None = None
    ) -> None:
        """Packets of the neighbour's other connections since the last call; the link's own are not among them.

        `lost` are those now known not to have come, less those that came after all: it may be below 0. `lost` and
        `apart` as `PacketGaps.take` gives them; None: not known.
        """
        if size_bytes > 0:
            self._carry(size_bytes, now)
        apart = likely_apart(arrived, lost) if apart is None else min(apart, lost)
        if self._inbound.receive_packets(arrived, lost, apart, now):
            self._outgoing.report_soon()
            self._judge(now)

    def note_lag(self, lag_s: float, now: float) -> None:
        """Our event loop is so late. Call it before anything that came in that time is given in."""
        self._inbound.note_lag(lag_s, now)
        self._lag_us += int(lag_s * 1e6)

    # --- Time ---

    def next_deadline(self) -> float:
        """When `handle_deadline` and `datagrams_to_send` want to be called."""
        sending, hearing = self._outgoing.next_deadline(), self._inbound.next_deadline()
        return sending if hearing is None else min(sending, hearing)

    def handle_deadline(self, now: float) -> None:
        """Time has passed: look whether something is missing."""
        if self._inbound.settle(now):
            self._outgoing.report_soon()
        self._judge(now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """What is to be sent now, each in a packet of its own; what says most comes first."""
        out: list[bytes] = []
        if self._outgoing.report_is_due(now):
            self._judge(now)
            out.append(encode_report(self._report(now)))
            self._lag_us = 0
        out += self._outgoing.probes_to_send(now)
        return out

    def check_invariants(self) -> None:
        self._inbound.gaps.check_invariants()
        for direction in (self._inbound.judge, self._outbound.judge):
            direction.standing.check_invariants()
        assert self.inbound is self._inbound.judge.standing.state
        assert self.outbound is self._outbound.state

    # --- Private ---

    def _report(self, now: float) -> Received:
        inbound = self._inbound
        return Received(
            highest=inbound.gaps.highest,
            probes=inbound.gaps.arrived,
            lost=min(inbound.lost, LARGEST_COUNT),
            arrived=inbound.arrived,
            state=inbound.judge.standing.state.value,
            loss_ratio=inbound.judge.loss.ratio(now),
            echo=inbound.echo.number,
            waited_us=max(int((now - inbound.echo.at) * 1e6), 0),
            lag_us=self._lag_us,
            leaving=self._leaving,
        )

    def _receive_report(self, report: Received, now: float) -> None:
        inbound, outbound, trips = self._inbound, self._outbound, self._round_trips
        blame = inbound.is_to_be_blamed(now)
        rtt_s = max(trips.smoothed_s, trips.recent_s())
        if not outbound.receive_report(report, self._outgoing, rtt_s, blame, now):
            return
        if inbound.receive_report(report.lag_us / 1e6, now):
            self._outgoing.report_soon()
        if outbound.losses and outbound.reported is not State.BAD:
            self._outgoing.inspect(outbound.losses, now)
        sent_at = self._outgoing.sent_at(report.echo)
        late = report.lag_us >= self._settings.lag_floor_s * 1e6
        if sent_at is not None and sent_at > inbound.lag_noted_to and not late:
            trips.add(max(now - sent_at - report.waited_us / 1e6, 0.0), now)
            self._rtt_at = now
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Look at both directions."""
        inbound, outbound = self._inbound, self._outbound
        silence = inbound.silence(now)
        towards_us, away = self._look_at_round_trips(now)
        inbound.judge.judge(silence, towards_us, now)
        if silence is None:
            mute = Symptom.SILENT if outbound.is_mute(now) else None
            outbound.judge.judge(outbound.silence or mute, away, now)
        self._show(now)

    def _look_at_round_trips(self, now: float) -> tuple[Symptom | None, Symptom | None]:
        """What round trips say of the direction towards us and of the one away."""
        trips = self._round_trips
        recent_s = trips.recent_s()
        if now >= self._rtt_at + RTT_FRESH_S or not recent_s:
            self._slow = None
            return None, None
        if recent_s > self._settings.rtt_bad_s:
            return Symptom.FAR, Symptom.FAR
        rise_s = recent_s - trips.base_s(now)
        if rise_s <= self._settings.rtt_rise_s:
            self._slow = None
            return None, None
        if self._slow is None:
            ours = self._inbound.delay.rise_s() >= rise_s / 2
            self._slow = Direction.INBOUND if ours else Direction.OUTBOUND
        if self._slow is Direction.INBOUND:
            return Symptom.SLOW, None
        return None, Symptom.SLOW

    def _show(self, now: float) -> None:
        """Tell of the states that are others than before."""
        standing, outbound = self._inbound.judge.standing, self._outbound
        if standing.state is not self.inbound:
            self._outgoing.report_soon()
            self._change(Direction.INBOUND, standing.state, standing.cause, now)
        if outbound.state is not self.outbound:
            self._change(Direction.OUTBOUND, outbound.state, outbound.cause, now)
        self._outgoing.watched = outbound.state is not State.UP

    def _change(self, direction: Direction, new: State, cause: Symptom, now: float) -> None:
        self._changes.append(LinkChange(self._neighbour, direction, self._shown[direction], new, cause, now))
        self._shown[direction] = new

    def _carry(self, size_bytes: int, now: float) -> None:
        carried = self._carried
        if carried and now - carried[-1][0] < CARRIED_S / 20:
            at, before = carried[-1]
            carried[-1] = (at, before + size_bytes)
        else:
            carried.append((now, size_bytes))

    def _carried_bytes_per_s(self, now: float) -> float:
        carried = self._carried
        while carried and carried[0][0] <= now - CARRIED_S:
            carried.popleft()
        return sum(size for _, size in carried) / CARRIED_S


def _seed(neighbour: str) -> int:
    """Where the variation of a link's periods begins."""
    return int.from_bytes(neighbour.encode()[-4:], "big")
