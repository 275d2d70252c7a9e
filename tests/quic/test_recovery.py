"""Recovery decides what aioquic's would: both hear the same history. And the pacer keeps to its rate."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from hypothesis import given
from hypothesis import strategies as st

from tests.quic.pair import make_pair
from tradewind.quic.recovery import BURST_PACKETS, LONGEST_BURST_BYTES, Pacer, Recovery, Sent

PACKET = 1232


class One:
    """One recovery, its packet number space, and what became of every packet."""

    def __init__(self, recovery: QuicPacketRecovery) -> None:
        self.recovery = recovery
        self.space = QuicPacketSpace(is_application_data=True)
        recovery.spaces = [QuicPacketSpace(), self.space]
        recovery.handshake_confirmed = True
        self.fates: list[tuple[QuicDeliveryState, int]] = []

    def packet(self, number: int, now: float) -> Sent:
        return Sent(number, PACKET, now, True, [(self._delivered, (number,))])

    def _delivered(self, state: QuicDeliveryState, number: int) -> None:
        self.fates.append((state, number))

    def now(self) -> tuple[Any, ...]:
        recovery, space = self.recovery, self.space
        return (
            self.fates,
            list(space.sent_packets),
            space.ack_eliciting_in_flight,
            space.largest_acked_packet,
            space.loss_time,
            recovery._pto_count,
            recovery.bytes_in_flight,
            recovery.congestion_window,
            recovery._rtt_smoothed,
            recovery._rtt_latest,
        )


def ours() -> Recovery:
    return Recovery(
        "cubic",
        initial_rtt_s=0.1,
        packet_bytes=PACKET,
        others_lost=lambda: None,
        peer_completed_address_validation=True,
        send_probe=lambda: None,
    )


def theirs() -> QuicPacketRecovery:
    return QuicPacketRecovery(
        congestion_control_algorithm="cubic", initial_rtt=0.1, max_datagram_size=PACKET,
        peer_completed_address_validation=True, send_probe=lambda: None,
    )  # fmt: skip


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 12)),
        st.tuples(st.just("wait"), st.floats(0.0005, 0.4)),
        st.tuples(st.just("ack"), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=4)),
        st.tuples(st.just("timer"), st.none()),
    ),
    max_size=40,
)


@given(steps)
def test_the_same_packets_are_acknowledged_and_lost_as_aioquic_says(history: list[tuple[str, Any]]) -> None:
    mine, other = One(ours()), One(theirs())
    number, now = 0, 1.0
    for what, value in history:
        if what == "wait":
            now += value
        elif what == "send":
            burst = range(number, number + value)
            mine.recovery.note_sent([mine.packet(each, now) for each in burst], mine.space)  # type: ignore[attr-defined]
            for each in burst:
                other.recovery.on_packet_sent(packet=other.packet(each, now), space=other.space)  # type: ignore[arg-type]
            number += value
        elif what == "ack" and number:
            ranges = RangeSet()
            for back, size in value:
                start = max(number - 1 - back, 0)
                ranges.add(start, min(start + size, number))
            for one in (mine, other):
                one.recovery.on_ack_received(ack_rangeset=ranges, ack_delay=0.001, now=now, space=one.space)
        elif what == "timer":
            for one in (mine, other):
                due = one.recovery.get_loss_detection_time(amplification_limited=False)
                if due is not None and one.space.loss_time is not None:
                    one.recovery.on_loss_detection_timeout(now=max(now, due))
        assert mine.now() == other.now()
        assert mine.recovery.next_deadline(mine.space) == mine.recovery.get_loss_detection_time(  # type: ignore[attr-defined]
            amplification_limited=False
        )


def test_a_bare_acknowledgement_is_not_remembered() -> None:
    """Whoever only sends is never asked to acknowledge them: an hour of video would leave a hundred thousand."""
    mine = One(ours())
    for number in range(100):
        assert mine.recovery.note_sent([Sent(number, 40, 1.0, False, [])], mine.space) == (0, 40)  # type: ignore[attr-defined]
    assert not mine.space.sent_packets
    assert mine.recovery.bytes_in_flight == 0


def test_a_range_far_beyond_what_is_in_flight_costs_nothing() -> None:
    mine = One(ours())
    mine.recovery.note_sent([mine.packet(number, 1.0) for number in range(10)], mine.space)  # type: ignore[attr-defined]
    mine.recovery.receive_ack([(0, 1 << 61)], 0.0, 1.1, mine.space)  # type: ignore[attr-defined]
    assert not mine.space.sent_packets
    assert len(mine.fates) == 10


def test_a_range_over_many_packets_that_are_not_kept_costs_nothing() -> None:
    mine = One(ours())
    for number in (1, 1 << 40):
        mine.recovery.note_sent([mine.packet(number, 1.0)], mine.space)  # type: ignore[attr-defined]
    mine.recovery.receive_ack([(0, 5), (7, 1 << 39), ((1 << 39) + 2, 1 << 40)], 0.0, 1.1, mine.space)  # type: ignore[attr-defined]
    assert list(mine.space.sent_packets) == [1 << 40]


@given(
    st.integers(2 * PACKET, 4_000_000),
    st.floats(0.0002, 0.5),
    st.lists(st.floats(0.0001, 0.05), min_size=1, max_size=200),
)
def test_the_pacer_keeps_to_its_rate_and_its_burst(window: int, rtt_s: float, waits: list[float]) -> None:
    pacer = Pacer(PACKET)
    assert pacer.next_send_time(0.0) is None
    pacer.update_rate(window, rtt_s)
    now, sent = 1.0, 0
    for wait in waits:
        burst = 0
        while pacer.next_send_time(now) is None:
            allowed = pacer.allowance(now)
            assert allowed >= 1
            pacer.update_after_send(now)
            burst += PACKET
        assert burst <= LONGEST_BURST_BYTES + PACKET
        due = pacer.next_send_time(now)
        assert due is not None and due > now
        sent += burst
        now += wait
        # A packet may leave for any part of itself that was saved up: one a visit at most.
        assert sent <= pacer.largest_bytes + (now - 1.0) * window / rtt_s + len(waits) * PACKET


def test_a_frame_leaves_at_once_on_a_short_path() -> None:
    """20 kB in 17 packets: a burst is what the rate gives in a millisecond, and never less than a quarter window."""
    pacer = Pacer(PACKET)
    pacer.update_rate(64 * 1024, 0.002)
    assert pacer.allowance(10.0) >= 20_000 // PACKET + 1 > BURST_PACKETS
    pacer.update_rate(64 * 1024, 0.150)
    assert pacer.allowance(20.0) <= BURST_PACKETS


def test_what_pacing_holds_back_leaves_when_pacing_allows_it() -> None:
    """Nothing else wakes the sender: no acknowledgement, no timer, nobody who looks again."""
    pair = make_pair()
    pair.run(1.0)
    core, link = pair.at_client._core, pair.link
    core.recovery._cc.congestion_window = 1 << 20
    core.recovery.pacer.set_rate(500_000.0)
    stream = pair.at_client.open_uni()
    assert stream is not None
    pair.at_client.offer(stream, [bytes(60_000)], True)
    sent, began = 0, link.now
    while True:
        sent += sum(len(datagrams) for _, datagrams in pair.client.endpoint.datagrams_to_send(link.now))
        if not core.queue:
            break
        due = pair.client.endpoint.next_deadline()
        assert due is not None and link.now < due < link.now + 0.01
        link.now = due
        pair.client.endpoint.handle_deadline(link.now)
    assert sent == pytest.approx(60_000 / 1200, abs=3)
    assert link.now - began == pytest.approx((60_000 - BURST_PACKETS * PACKET) / 500_000, abs=0.01)
