"""Congestion control for long, lossy paths: how fast packets arrive decides how fast they leave, not that one was lost.

Built on BBR (draft-ietf-ccwg-bbr, "Design Overview"): the bottleneck's rate is the largest delivery rate of late, the
path's length the smallest round trip of late, and what is in flight stays near their product. Loss alone counts only
where it is more than random: then what is in flight is bounded by what the path last carried.

Live media makes two things different. A flow that has nothing to send says nothing about the path, and most of the
time it has nothing: such samples raise an estimate and never lower it. And its window is not cut to measure the path's
length, since it makes no queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from math import inf

from aioquic.quic.congestion.base import K_INITIAL_WINDOW, QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

from tradewind.quic.path_model import Clumps, Delivery, FullPipe, Largest, PathLength, Rounds, Stamped

NAME = "rate"

# What is quoted of reno and of shares is what `bench.longhaul` and `bench.rough_paths` said when one value was changed.
QUEUE_S = 0.075
QUEUE_PATHS = 0.5
"""What may be in flight beyond the product of rate and path, in time: it waits at the bottleneck where flows compete.

The same time for all: as a part of each one's path, a flow of 150 ms left 4 % to one of 30 ms; so they share evenly.
Paths longer than 150 ms need half of their length. Beside it reno keeps 60 % of 150 ms; 54 % with 0.1 s.
"""
PROBING_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""One round trip each: ask for more, let go of what piled up, cruise."""
DRAIN_PATHS = 3.0
"""Letting go lasts until what is in flight fits the path, at most so long. With one length of the path a queue was left
over each time, and stayed: half a round trip on 60 ms, where reno kept half of what it keeps now."""
MARGIN = 0.99
"""A cruising sender sends a little less than it measured: the largest of many samples is a little too large."""
LETTING_GO, CRUISING = 1, 2
"""Which of them is which; all from the second on cruise."""
STARTUP_GAIN = 2.77
"""Doubles the rate each round trip (4 ln 2; the draft, "Startup")."""
RATE_MEMORY = 10
"""How long the largest delivery rate is remembered: phases while cruising, else round trips. Phases last as long as the
path without its queue, so that a rate which is gone is forgotten before the queue that it makes can keep it."""
PATH_PROBE_S = 0.2
"""How long little is sent so that the queue is empty for once."""
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


GAINS = {Mode.STARTUP: STARTUP_GAIN, Mode.DRAIN: 0.5, Mode.PATH: 1.0}
"""What is sent, in parts of the rate; while cruising the cycle says."""


class Cycle:
    """Where a cruising controller is in `PROBING_GAINS`."""

    __slots__ = ("_began_at", "_phase", "gain", "phases")

    def __init__(self) -> None:
        self.phases = 0
        """How many there have been."""
        self.gain = PROBING_GAINS[CRUISING]
        """What is sent now, in parts of the rate."""
        self._phase = CRUISING
        self._began_at = 0.0

    def begin(self, now: float) -> None:
        """Start with cruising: what came before has either asked for more or let go."""
        self._phase, self._began_at = CRUISING, now
        self.gain = PROBING_GAINS[CRUISING]

    def may_go_on(self, now: float, path_s: float) -> bool:
        """Whether `advance` is worth asking: it is not for most acknowledgements."""
        return self._phase == LETTING_GO or now - self._began_at > path_s

    def advance(self, now: float, path_s: float, in_flight_bytes: int, product: float, most_bytes: float) -> None:
        """Go on where this phase did its work: what was asked for (or `most_bytes`) is in flight, or is let go."""
        gain = self.gain
        over = now - self._began_at > path_s
        if gain > 1.0:
            over = over and in_flight_bytes >= min(gain * product, most_bytes)
        elif gain < 1.0:
            over = in_flight_bytes <= product or now - self._began_at > DRAIN_PATHS * path_s
        if over:
            self._phase = (self._phase + 1) % len(PROBING_GAINS)
            self.gain = PROBING_GAINS[self._phase]
            self.phases += 1
            self._began_at = now


class RateController(QuicCongestionControl):
    """One connection's rate and window. `on_*` is aioquic's interface; `run_dry` and `finish_ack` it does not know."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.pacing_rate: float | None = None
        """Bytes a second; None before the first round trip."""
        self.mode = Mode.STARTUP
        self.delivery = Delivery()
        self.largest = Largest(RATE_MEMORY)
        self.clumps = Clumps()
        self.rounds = Rounds()
        self.pipe = FullPipe()
        self.path = PathLength()
        self.cycle = Cycle()
        self._packet = max_datagram_size
        self._smallest = SMALLEST_WINDOW_PACKETS * max_datagram_size
        self._newest: Stamped | None = None
        self._acked = 0
        """Bytes that the acknowledgement in hand says arrived."""
        self._epoch = 0
        """What the rate's memory is counted in."""
        self._bound = inf
        """What may be in flight after more than random loss."""
        self._is_silent = False
        """Nothing arrived for long, and nothing has since."""
        self._path_until = 0.0
        """When looking at the path ends; 0 while too much is in flight to begin."""

    @property
    def rate(self) -> float:
        """The bottleneck's rate as far as it is known, bytes a second."""
        return self.largest.value

    @property
    def path_s(self) -> float:
        """The smallest round trip of late."""
        return self.path.shortest_s

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """A packet, or a burst as one, leaves."""
        packet.stamp = self.delivery.stamp(packet.sent_time or 0.0, self.bytes_in_flight)  # type: ignore[attr-defined]
        self.bytes_in_flight = in_flight = self.bytes_in_flight + packet.sent_bytes
        rounds = self.rounds
        rounds.most_in_flight_bytes = max(rounds.most_in_flight_bytes, in_flight)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """One of the packets of an acknowledgement; `finish_ack` follows the last."""
        self.bytes_in_flight -= packet.sent_bytes
        self._acked += packet.sent_bytes
        self._newest = packet  # type: ignore[assignment]

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """These count no more, and nobody knows whether they arrived."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """These were lost. Of a sender that has nothing more to send they say nothing about how much is too much."""
        rounds = self.rounds
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            stamp = getattr(packet, "stamp", None)
            if stamp is None or not stamp.limited:
                rounds.lost_bytes += packet.sent_bytes
                rounds.lost_packets += 1

    def on_persistent_congestion(self) -> None:
        """Nothing arrived for long: until something does, little is sent."""
        self.congestion_window = self._smallest
        self._is_silent = True

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """One round trip was measured, the peer's delay included."""
        self.path.receive(rtt, now)

    def take_back_loss(self, packet: Stamped) -> None:
        """A packet that was taken for lost arrived; one of an earlier round as if it were of this one."""
        self.delivery.total_bytes += packet.sent_bytes
        if packet.stamp is None or not packet.stamp.limited:
            rounds = self.rounds
            rounds.lost_bytes = max(rounds.lost_bytes - packet.sent_bytes, 0)
            rounds.lost_packets = max(rounds.lost_packets - 1, 0)

    def run_dry(self, now: float) -> None:
        """There is nothing to send that may be sent, and the window would have allowed more."""
        self.delivery.run_dry(now)

    def finish_ack(self, now: float) -> None:
        """One acknowledgement is dealt with: look at what arrived, and choose rate and window."""
        newest, self._newest = self._newest, None
        acked, self._acked = self._acked, 0
        self.delivery.receive(acked)
        if newest is None or newest.stamp is None:
            return
        stamp = newest.stamp
        began = stamp.delivered >= self.rounds.ends_at
        if began:
            self._begin_round()
            if self.mode is not Mode.CRUISE:
                self._epoch += 1
        rate = self.delivery.sample(newest, stamp, now, self.path.shortest_s)
        if rate is not None and (rate >= self.largest.value or not stamp.limited):
            self.largest.add(rate, self._epoch)
        if not stamp.limited:
            # Who has nothing to send makes clumps of its own, and its window is large enough.
            self.clumps.receive(acked, now, self.largest.value, self.congestion_window, self.rounds.number)
            if began:
                self.pipe.look(self.largest.value)
        self._choose_mode(now, stamp.limited or self.delivery.limited_until > 0)
        self._choose_window(acked)
        self._choose_pacing()

    def check_invariants(self) -> None:
        """Raise AssertionError where the model or what follows from it cannot be."""
        self.largest.check_invariants()
        self.clumps.largest.check_invariants()
        assert self.bytes_in_flight >= 0
        assert self.congestion_window >= self._smallest
        assert self.pacing_rate is None or self.pacing_rate > 0

    def _begin_round(self) -> None:
        """Look at what the last one lost."""
        rounds, delivered = self.rounds, self.delivery.total_bytes
        if rounds.lost_packets >= LOSS_PACKETS and rounds.lost_more_than(LOSS_PART, delivered):
            self.pipe.reached = True
            self._bound = max(LOSS_CUT * rounds.most_in_flight_bytes, self._smallest)
        elif self._bound < inf and self.cycle.gain > 1.0:
            self._bound *= self.cycle.gain
            if self._bound > 2 * self._most():
                self._bound = inf
        rounds.begin(delivered, self.bytes_in_flight)

    def _choose_mode(self, now: float, limited: bool) -> None:
        if self.mode is Mode.STARTUP and self.pipe.reached:
            self.mode = Mode.DRAIN
        if self.mode is Mode.DRAIN and self.bytes_in_flight <= self._product():
            self._cruise(now)
        if self.mode is Mode.CRUISE and self.cycle.may_go_on(now, self.path.shortest_s):
            self._cruise_on(now, limited)
        if self.mode is not Mode.PATH and self.path.is_stale(now):
            if limited:
                # Who has nothing to send makes no queue: this round trip is as good as any.
                self.path.end_anew(now)
            else:
                self.mode = Mode.PATH
                self._path_until = 0.0
        if self.mode is Mode.PATH:
            self._look_at_path(now)

    def _cruise_on(self, now: float, limited: bool) -> None:
        phases = self.cycle.phases
        most = 0 if limited else self.congestion_window - self._packet
        self.cycle.advance(now, self.path.shortest_s, self.bytes_in_flight, self._product(), most)
        self._epoch += self.cycle.phases - phases

    def _look_at_path(self, now: float) -> None:
        if not self._path_until and self.bytes_in_flight <= self._little():
            self._path_until = now + max(PATH_PROBE_S, self.path.newest_s)
            self.path.begin_anew()
        elif self._path_until and now >= self._path_until:
            self.path.end_anew(now)
            if self.pipe.reached:
                self._cruise(now)
            else:
                self.mode = Mode.STARTUP

    def _cruise(self, now: float) -> None:
        self.mode = Mode.CRUISE
        self.cycle.begin(now)

    def _choose_window(self, acked_bytes: int) -> None:
        target = self._most() + max(self.clumps.largest.value, 3 * self._packet)
        window: float = self.congestion_window
        if self.pipe.reached:
            window = min(window + acked_bytes, target)
        elif window < target or self.delivery.total_bytes < K_INITIAL_WINDOW * self._packet:
            window += acked_bytes
        if self._is_silent:
            # A path that answers again is as good as one that has just been opened.
            self._is_silent = False
            window = max(window, K_INITIAL_WINDOW * self._packet)
        window = min(window, self._bound)
        if self.mode is Mode.PATH:
            window = min(window, self._little())
        self.congestion_window = int(max(window, self._smallest))

    def _choose_pacing(self) -> None:
        rate = self.largest.value * (MARGIN * self.cycle.gain if self.mode is Mode.CRUISE else GAINS[self.mode])
        path_s = self.path.shortest_s
        least = self._packet / max(path_s, 0.001)
        if not self.pipe.reached:
            rate = max(rate, STARTUP_GAIN * K_INITIAL_WINDOW * least, self.pacing_rate or 0.0)
        self.pacing_rate = max(rate, least)

    def _product(self) -> float:
        """What fills the path without a queue, bytes."""
        path_s = self.path.shortest_s
        return self.largest.value * path_s if path_s < inf else float(K_INITIAL_WINDOW * self._packet)

    def _most(self) -> float:
        """The same and what may wait."""
        path_s = self.path.shortest_s
        if path_s == inf:
            return self._product()
        return self.largest.value * (path_s + max(QUEUE_S, QUEUE_PATHS * path_s))

    def _little(self) -> float:
        return max(0.5 * self._product(), self._smallest)


register_congestion_control(NAME, RateController)
