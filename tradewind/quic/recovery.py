"""Loss recovery of one connection: aioquic's, with its dear parts done once a burst instead of once a packet.

aioquic lists and bisects everything in flight for each ACK frame, asks every packet number space for every timer, and
looks for lost packets where there can be none. What is decided here is what it decides (RFC 9002, Loss Detection);
`tests/quic/test_recovery.py` lets both hear the same history. Congestion control stays its; pacing is ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch

from tradewind.quic.congestion import RateController
from tradewind.quic.path_model import Stamp
from tradewind.quic.reordering import Reordering
from tradewind.quic.sending import Handler
from tradewind.quic.statistics import Counters
from tradewind.quic.unchanging import UnchangingWindow

ACKED = QuicDeliveryState.ACKED
GRANULARITY_S = 0.001
"""Timers are no finer (RFC 9002, kGranularity), so a burst may be what the rate gives in this time."""
BURST_PACKETS = 16
LONGEST_BURST_BYTES = 64 * 1024
FEW = 64


class Sent:
    """One 1-RTT packet in flight; the names are those of aioquic's `QuicSentPacket`, which stands beside it."""

    __slots__ = ("delivery_handlers", "in_flight", "packet_number", "sent_bytes", "sent_time", "stamp")

    epoch = Epoch.ONE_RTT
    packet_type = QuicPacketType.ONE_RTT
    is_crypto_packet = False

    def __init__(self, number: int, size: int, now: float, eliciting: bool, handlers: Sequence[Handler]) -> None:
        self.packet_number = number
        self.sent_bytes = size
        self.sent_time = now
        self.in_flight = eliciting
        self.delivery_handlers = handlers
        self.stamp: Stamp | None = None
        """The controller's, one for a burst."""

    @property
    def is_ack_eliciting(self) -> bool:
        """Ours are in flight exactly when they ask for an acknowledgement."""
        return self.in_flight


class Pacer:
    """Spreads packets over the round trip; a burst is 16 packets, or what a millisecond's rate gives.

    RFC 9002, "Pacing". The first four calls are aioquic's, which uses them for the handshake.
    """

    __slots__ = ("_packet_bytes", "bucket_bytes", "evaluated_at", "largest_bytes", "packet_time", "rate")

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self.rate = 0.0
        """Bytes a second."""
        self.packet_time: float | None = None
        """Seconds a packet; None before the first round trip: then nothing is paced, and nobody asks for more."""
        self.largest_bytes = 0.0
        self.bucket_bytes = 0.0
        self.evaluated_at = 0.0

    def next_send_time(self, now: float) -> float | None:
        """None where a packet may leave now, else when."""
        if self.packet_time is None or self.allowance(now):
            return None
        return now + self.wait_s()

    def update_after_send(self, now: float) -> None:
        """One packet has left."""
        self.spend(self._packet_bytes)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """The window, or the round trip, is another."""
        self.set_rate(congestion_window / max(smoothed_rtt, 1e-6))

    def set_rate(self, rate: float) -> None:
        """So many bytes a second from now on."""
        packet = self._packet_bytes
        self.rate = rate
        self.packet_time = packet / rate
        self.largest_bytes = largest = min(max(BURST_PACKETS * packet, rate * GRANULARITY_S), LONGEST_BURST_BYTES)
        self.bucket_bytes = min(self.bucket_bytes, largest)

    def allowance(self, now: float) -> int:
        """Packets that may leave now: one for any part of itself that was saved up, and the rest is owed."""
        saved = self.bucket_bytes
        if now > self.evaluated_at:
            saved += (now - self.evaluated_at) * self.rate
            saved = min(saved, self.largest_bytes)
            self.bucket_bytes = saved
            self.evaluated_at = now
        return max(0, -int(-saved // self._packet_bytes))

    def spend(self, size: int) -> None:
        """So many bytes have left."""
        self.bucket_bytes -= size

    def wait_s(self) -> float:
        """How long to wait where nothing is allowed: until nothing is owed, and for several where they come quickly."""
        return max(-self.bucket_bytes / self.rate, min(GRANULARITY_S, self.largest_bytes / self.rate))


class Recovery(QuicPacketRecovery):
    """What a connection has in flight, in all packet number spaces."""

    __slots__ = ("_others_lost", "_rates", "_reordering", "counters", "pacer", "probe_timeout_s")

    def __init__(
        self,
        algorithm: str,
        *,
        initial_rtt_s: float,
        packet_bytes: int,
        others_lost: Callable[[], None],
        **rest: Any,
    ) -> None:
        super().__init__(
            congestion_control_algorithm=algorithm, initial_rtt=initial_rtt_s, max_datagram_size=packet_bytes, **rest
        )
        self.pacer = Pacer(packet_bytes)
        self._pacer = self.pacer  # type: ignore[assignment]
        self._rates = self._cc if isinstance(self._cc, RateController) else None
        self._reordering = Reordering()
        """Learns only beside our own controller: reno and cubic stay whole as aioquic has them."""
        self.counters = Counters()
        self.probe_timeout_s: float = self.get_probe_timeout()
        """Without backoff, with the peer's `max_ack_delay`."""
        self._others_lost = others_lost
        """Told when a packet was lost that aioquic wrote: its frames are to be sent again, by aioquic."""

    # Sending.

    def stop_controlling(self, packet_bytes: int) -> None:
        """From now on no window changes: the connection measures its path, and its owner bounds what it sends."""
        window = UnchangingWindow(max_datagram_size=packet_bytes)
        window.bytes_in_flight = self._cc.bytes_in_flight
        self._cc, self._rates = window, None
        self._pace()

    def allowance(self, packet_bytes: int, now: float) -> int:
        """Whole packets of `packet_bytes` that congestion control and pacing let go now."""
        controller, pacer = self._cc, self.pacer
        most: int = (controller.congestion_window - controller.bytes_in_flight) // packet_bytes
        if most <= 0:
            return 0
        paced = most if pacer.packet_time is None else pacer.allowance(now)
        return min(most, paced)

    def paced_until(self, packet_bytes: int, now: float) -> float | None:
        """When pacing lets the next packet go, where it is pacing that keeps it back."""
        if self._cc.congestion_window - self._cc.bytes_in_flight < packet_bytes:
            return None
        return self.pacer.next_send_time(now)

    def note_sent(self, packets: Sequence[Sent], space: QuicPacketSpace) -> tuple[int, int]:
        """Packets with application data have left at once; returns how many ask to be acknowledged, and all bytes.

        Bare acknowledgements are not kept: whoever only sends is never asked to acknowledge them, so they would stay.
        """
        sent_packets = space.sent_packets
        eliciting = size = in_flight = 0
        for packet in packets:
            size += packet.sent_bytes
            if packet.in_flight:
                sent_packets[packet.packet_number] = packet  # type: ignore[assignment]
                eliciting += 1
                in_flight += packet.sent_bytes
        if eliciting:
            now = packets[0].sent_time
            space.ack_eliciting_in_flight += eliciting
            if self.handshake_confirmed:
                self._time_of_last_sent_ack_eliciting_packet = now
            # Controllers ask for the size and the time only: a burst is one packet to them.
            burst = Sent(0, in_flight, now, True, ())
            self._cc.on_packet_sent(packet=burst)  # type: ignore[arg-type]
            for packet in packets:
                packet.stamp = burst.stamp
            self.pacer.spend(in_flight)
        return eliciting, size

    def run_dry(self, now: float) -> None:
        """Everything that there was to send and that the peer takes has left."""
        if self._rates is not None and self._cc.bytes_in_flight < self._cc.congestion_window:
            self._rates.run_dry(now)

    # Acknowledgements and timers.

    def on_ack_received(self, *, ack_rangeset: Any, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """An ACK frame, by aioquic's way in: ranges in rising order."""
        self.receive_ack([(found.start, found.stop) for found in ack_rangeset], ack_delay, now, space)

    def receive_ack(
        self, ranges: Sequence[tuple[int, int]], ack_delay_s: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Packets in these half-open, rising ranges arrived. RFC 9002, "On Receiving an Acknowledgment"."""
        largest = ranges[-1][1] - 1
        if self._reordering.gone and self._rates is not None and space.is_application_data:
            for late in self._reordering.receive(ranges, space.largest_acked_packet, self._rtt_smoothed, now):
                self._rates.take_back_loss(late)
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        sent = space.sent_packets
        if not sent:
            return
        acked: list[Any] = [sent.pop(number) for number in _among(sent, ranges)]
        if not acked:
            return
        eliciting = 0
        for packet in acked:
            if packet.in_flight:
                self._cc.on_packet_acked(packet=packet, now=now)
            if packet.is_ack_eliciting:
                eliciting += 1
            for handler, arguments in packet.delivery_handlers:
                handler(ACKED, *arguments)
        space.ack_eliciting_in_flight -= eliciting
        last = acked[-1]
        if last.packet_number == largest and eliciting:
            self._take_sample(now - last.sent_time, ack_delay_s, now)
        if self._rates is not None:
            self._rates.finish_ack(now)
        self._pace()
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def next_deadline(self, space: QuicPacketSpace) -> float | None:
        """`get_loss_detection_time` of a connection whose handshake is confirmed: one space is left."""
        if space.loss_time is not None:
            return space.loss_time
        if not space.ack_eliciting_in_flight:
            return None
        return self._time_of_last_sent_ack_eliciting_packet + self.probe_timeout_s * (1 << self._pto_count)

    def _take_sample(self, rtt_s: float, ack_delay_s: float, now: float) -> None:
        """A round trip was measured. RFC 9002, "Estimating the Round-Trip Time"; less than 1 ms counts as 1 ms."""
        latest = max(rtt_s, GRANULARITY_S)
        self._rtt_min = min(self._rtt_min, latest)
        delay = min(ack_delay_s, self.max_ack_delay)
        if latest > self._rtt_min + delay:
            latest -= delay
        self._rtt_latest = latest
        if not self._rtt_initialized:
            self._rtt_initialized = True
            self._rtt_first_sample_time = now
            self._rtt_variance = rtt_s / 2
            self._rtt_smoothed = rtt_s
        else:
            self._rtt_variance = 0.75 * self._rtt_variance + 0.25 * abs(self._rtt_smoothed - latest)
            self._rtt_smoothed = 0.875 * self._rtt_smoothed + 0.125 * latest
        self.probe_timeout_s = self.get_probe_timeout()
        self._cc.on_rtt_measurement(now=now, rtt=rtt_s)

    def _pace(self) -> None:
        """The window, the rate or the round trip may be another."""
        rate = self._cc.congestion_window / max(self._rtt_smoothed, 1e-6)
        if self._rates is not None and self._rates.pacing_rate is not None:
            rate = self._rates.pacing_rate
        if self._rtt_initialized:
            self.pacer.set_rate(rate)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        """RFC 9002, "Determining When Packets Are Lost": only packets older than the newest acknowledged may be."""
        space.loss_time = None
        for number in space.sent_packets:
            if number < space.largest_acked_packet:
                if self._rates is None:
                    super()._detect_loss(now=now, space=space)
                else:
                    self._detect_late(now, space)
            return

    def _detect_late(self, now: float, space: QuicPacketSpace) -> None:
        """The same by the thresholds that were learnt."""
        learnt, newest = self._reordering, space.largest_acked_packet
        rtt_s = max(self._rtt_latest, self._rtt_smoothed) if self._rtt_initialized else self._rtt_initial
        patience_s = max(learnt.rtts * rtt_s, GRANULARITY_S)
        lost: list[Any] = []
        sent: Mapping[int, Any] = space.sent_packets
        for number, packet in sent.items():
            if number > newest:
                break
            if number <= newest - learnt.packets or packet.sent_time <= now - patience_s:
                lost.append(packet)
            elif space.loss_time is None or space.loss_time > packet.sent_time + patience_s:
                space.loss_time = packet.sent_time + patience_s
        if lost:
            learnt.note_lost(packet for packet in lost if isinstance(packet, Sent))
            persistent = self._in_persistent_congestion(packets=lost)
            self._on_packets_lost(now=now, packets=lost, persistent_congestion=persistent, space=space)

    def _on_packets_lost(self, *, packets: Any, **rest: Any) -> None:
        lost = tuple(packets)
        if not lost:
            return
        if rest.get("congestion_event", True):
            self.counters.packets_lost += len(lost)
        super()._on_packets_lost(packets=lost, **rest)
        self._pace()
        if not all(isinstance(packet, Sent) for packet in lost):
            self._others_lost()


def _among(sent: Mapping[int, object], ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The packet numbers of `sent`, which rise, that lie in the ranges; in time of both, whatever a peer claims."""
    oldest, newest = next(iter(sent)), next(reversed(sent.keys()))  # type: ignore[call-overload]
    inside = [(max(start, oldest), min(stop, newest + 1)) for start, stop in ranges]
    if sum(stop - start for start, stop in inside if stop > start) <= 2 * len(sent) + FEW:
        return [number for start, stop in inside for number in range(start, stop) if number in sent]
    numbers = list(sent)
    return [
        number
        for start, stop in inside
        if stop > start
        for number in numbers[bisect_left(numbers, start) : bisect_left(numbers, stop)]
    ]
