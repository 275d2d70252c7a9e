"""Congestion control for long, lossy paths: how fast packets arrive decides how fast they leave, not that one was lost.

Built on BBR (draft-ietf-ccwg-bbr, "Design Overview"): the bottleneck's rate is the largest delivery rate of late, the
path's length the smallest round trip of late, and what is in flight stays near their product. Loss alone counts only
where it is more than random: then what is in flight is bounded by what the path last carried.

Live media makes two things different. A flow that has nothing to send says nothing about the path, and most of the
time it has nothing: such samples raise an estimate and never lower it. And its window is not cut to measure the path's
length, since it makes no queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from math import inf
from typing import NamedTuple, Protocol

from aioquic.quic.congestion.base import K_INITIAL_WINDOW, QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

NAME = "rate"

STARTUP_GAIN = 2.77
"""Doubles the rate each round trip (4 ln 2; the draft, "Startup")."""
DRAIN_GAIN = 0.5
WINDOW_GAIN = 1.75
"""What may be in flight, in products of rate and path. Beside reno on a queue of one round trip reno keeps 23 % of the
path at 2.0, 43 % at 1.75, 60 % at 1.5; alone the path is full with any of them."""
PROBING_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""One round trip each: ask for more, let go of what piled up, cruise."""
RATE_ROUNDS = 10
"""How long the largest delivery rate is remembered, in round trips."""
PATH_S = 10.0
"""How long the smallest round trip is believed before it is measured anew."""
PATH_PROBE_S = 0.2
FULL_GROWTH = 1.25
FULL_ROUNDS = 3
"""A pipe is full when the rate has not grown by a quarter in so many round trips."""
LOSS_PART = 0.06
"""More of a round lost than this is not random. Cross-border paths lose one or two per cent on a bad day."""
LOSS_PACKETS = 8
LOSS_CUT = 0.8
SMALLEST_WINDOW_PACKETS = 4


class Mode(Enum):
    """What the controller is about."""

    STARTUP = "startup"
    """Double the rate each round trip until it grows no more."""
    DRAIN = "drain"
    """Let go of the queue that this made."""
    CRUISE = "cruise"
    """Keep to the rate, and ask now and then for more."""
    PATH = "path"
    """Send little for a moment, to see how long the path is without a queue."""


class Stamp(NamedTuple):
    """What had been delivered when a packet left: the beginning of its delivery rate sample."""

    delivered: int
    delivered_at: float
    first_sent_at: float
    limited: bool
    """The sender had nothing more to send: the sample may say less than the path could do."""


class Stamped(Protocol):
    """A packet in flight, as recovery keeps it."""

    sent_bytes: int
    sent_time: float
    stamp: Stamp | None


class RateController(QuicCongestionControl):
    """One connection's rate and window. Calls but the last two are aioquic's."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.pacing_rate: float | None = None
        """Bytes a second; None before the first round trip."""
        self.mode = Mode.STARTUP
        self._packet = max_datagram_size
        self._smallest = SMALLEST_WINDOW_PACKETS * max_datagram_size
        self._delivered = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._dry_at: float | None = None
        self._limited_until = 0
        """While no more than this is delivered, samples come from a sender that had nothing to send."""
        self._newest: Stamped | None = None
        self._acked = 0
        self._lost = 0
        self._lost_packets = 0
        self._round = 0
        self._round_ends = 0
        self._round_began = (0, 0)
        """Bytes delivered and lost when the round began."""
        self._most_in_flight = 0
        self._rates: deque[tuple[int, float]] = deque()
        """Rounds and rates, each smaller than the one before it."""
        self._rtt_s = 0.0
        self._path_s = inf
        self._path_at = 0.0
        self._full = False
        self._full_rate = 0.0
        self._full_rounds = 0
        self._phase = 2
        self._phase_at = 0.0
        self._until = 0.0
        self._bound = inf
        """What may be in flight after more than random loss."""

    @property
    def rate(self) -> float:
        """The bottleneck's rate as far as it is known, bytes a second."""
        return self._rates[0][1] if self._rates else 0.0

    @property
    def path_s(self) -> float:
        """The smallest round trip of late."""
        return self._path_s

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """A packet, or a burst as one, leaves."""
        now: float = packet.sent_time or 0.0
        if self._dry_at is not None and now > self._dry_at:
            self._limited_until = max(self._delivered + self.bytes_in_flight, 1)
        self._dry_at = None
        if not self.bytes_in_flight:
            self._first_sent_at = self._delivered_at = now
        packet.stamp = Stamp(  # type: ignore[attr-defined]
            self._delivered, self._delivered_at, self._first_sent_at, self._limited_until > 0
        )
        self.bytes_in_flight += packet.sent_bytes
        self._most_in_flight = max(self._most_in_flight, self.bytes_in_flight)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self.bytes_in_flight -= packet.sent_bytes
        self._delivered += packet.sent_bytes
        self._acked += packet.sent_bytes
        self._newest = packet  # type: ignore[assignment]

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            self._lost += packet.sent_bytes
            self._lost_packets += 1

    def on_persistent_congestion(self) -> None:
        self.congestion_window = self._smallest

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self._rtt_s = rtt
        if rtt <= self._path_s:
            self._path_s = rtt
            self._path_at = now

    # What aioquic does not tell.

    def run_dry(self, now: float) -> None:
        """All that there was to send is sent, and the window would have allowed more; it counts if time passes so."""
        self._dry_at = now

    def finish_ack(self, now: float) -> None:
        """One acknowledgement is dealt with: look at what arrived, and choose rate and window."""
        newest, self._newest = self._newest, None
        if newest is None or newest.stamp is None:
            return
        stamp = newest.stamp
        began = stamp.delivered >= self._round_ends
        if began:
            self._begin_round(now)
        if self._limited_until and self._delivered > self._limited_until:
            self._limited_until = 0
        self._take_rate(newest, stamp, now)
        self._first_sent_at, self._delivered_at = newest.sent_time, now
        if began and not stamp.limited:
            self._look_whether_full()
        self._choose_mode(now)
        self._choose_window()
        self._choose_pacing()
        self._acked = 0

    def _begin_round(self, now: float) -> None:
        delivered, lost = self._round_began
        lost, all_ = self._lost - lost, self._delivered - delivered + self._lost - lost
        if self._lost_packets >= LOSS_PACKETS and lost > LOSS_PART * all_:
            self._full = True
            self._bound = max(LOSS_CUT * self._most_in_flight, self._smallest)
        elif self._bound < inf and PROBING_GAINS[self._phase] > 1.0:
            self._bound *= PROBING_GAINS[self._phase]
            if self._bound > 2 * WINDOW_GAIN * self._product():
                self._bound = inf
        self._round += 1
        self._round_ends = self._delivered
        self._round_began = (self._delivered, self._lost)
        self._lost_packets = 0
        self._most_in_flight = self.bytes_in_flight

    def _take_rate(self, newest: Stamped, stamp: Stamp, now: float) -> None:
        """The draft, "Delivery Rate Sampling": the slower of how it left and how it arrived."""
        interval = max(newest.sent_time - stamp.first_sent_at, now - stamp.delivered_at)
        if interval <= 0.0 or interval < self._path_s / 2:
            return
        rate = (self._delivered - stamp.delivered) / interval
        rates = self._rates
        if stamp.limited and rate < self.rate:
            return
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((self._round, rate))
        while len(rates) > 1 and rates[0][0] < self._round - RATE_ROUNDS:
            rates.popleft()

    def _look_whether_full(self) -> None:
        if self._full:
            return
        if self.rate >= self._full_rate * FULL_GROWTH:
            self._full_rate, self._full_rounds = self.rate, 0
        else:
            self._full_rounds += 1
            self._full = self._full_rounds >= FULL_ROUNDS

    def _choose_mode(self, now: float) -> None:
        if self.mode is Mode.STARTUP and self._full:
            self.mode = Mode.DRAIN
        if self.mode is Mode.DRAIN and self.bytes_in_flight <= self._product():
            self._cruise(now)
        if self.mode is Mode.CRUISE:
            self._choose_phase(now)
        if self.mode is not Mode.PATH and now - self._path_at > PATH_S:
            if self._limited_until:
                # Who has nothing to send makes no queue: this round trip is as good as any.
                self._path_s, self._path_at = self._rtt_s, now
            else:
                self.mode = Mode.PATH
                self._until = 0.0
        if self.mode is Mode.PATH:
            if not self._until and self.bytes_in_flight <= self._little():
                self._until = now + max(PATH_PROBE_S, self._rtt_s)
                self._path_s = self._rtt_s
            elif self._until and now >= self._until:
                self._path_at = now
                if self._full:
                    self._cruise(now)
                else:
                    self.mode = Mode.STARTUP

    def _cruise(self, now: float) -> None:
        self.mode = Mode.CRUISE
        self._phase, self._phase_at = 2, now

    def _choose_phase(self, now: float) -> None:
        gain = PROBING_GAINS[self._phase]
        over = now - self._phase_at > self._path_s
        if gain > 1.0:
            over = over and (self.bytes_in_flight >= gain * self._product() or self._limited_until > 0)
        elif gain < 1.0:
            over = over or self.bytes_in_flight <= self._product()
        if over:
            self._phase = (self._phase + 1) % len(PROBING_GAINS)
            self._phase_at = now

    def _choose_window(self) -> None:
        target = WINDOW_GAIN * self._product() + 3 * self._packet
        if self._full:
            window = min(self.congestion_window + self._acked, target)
        elif self.congestion_window < target or self._delivered < K_INITIAL_WINDOW * self._packet:
            window = self.congestion_window + self._acked
        else:
            window = self.congestion_window
        window = min(window, self._bound)
        if self.mode is Mode.PATH:
            window = min(window, self._little())
        self.congestion_window = int(max(window, self._smallest))

    def _choose_pacing(self) -> None:
        if self.mode is Mode.STARTUP:
            gain = STARTUP_GAIN
        elif self.mode is Mode.DRAIN:
            gain = DRAIN_GAIN
        elif self.mode is Mode.CRUISE:
            gain = PROBING_GAINS[self._phase]
        else:
            gain = 1.0
        rate = gain * self.rate
        if not self._full:
            first = STARTUP_GAIN * K_INITIAL_WINDOW * self._packet / max(self._path_s, 0.001)
            rate = max(rate, first, self.pacing_rate or 0.0)
        self.pacing_rate = max(rate, self._packet / max(self._path_s, 0.001))

    def _product(self) -> float:
        """What fills the path without a queue, bytes."""
        return self.rate * self._path_s if self._path_s < inf else float(K_INITIAL_WINDOW * self._packet)

    def _little(self) -> float:
        return max(0.5 * self._product(), self._smallest)


register_congestion_control(NAME, RateController)
