"""Packets that overtake each other: what came late is learnt from, what never comes is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.quic.test_recovery import PACKET, One
from tradewind.quic.congestion import NAME, RateController
from tradewind.quic.recovery import Recovery, Sent
from tradewind.quic.reordering import (
    FORGET_LOSSES,
    LEAST_PACKETS,
    LEAST_RTTS,
    MOST_PACKETS,
    MOST_RTTS,
    REMEMBERED,
    Reordering,
)

RTT_S = 0.1


def sent(number: int, now: float = 1.0) -> Sent:
    return Sent(number, PACKET, now, True, ())


def rate_recovery() -> Recovery:
    return Recovery(
        NAME,
        initial_rtt_s=RTT_S,
        packet_bytes=PACKET,
        others_lost=lambda: None,
        peer_completed_address_validation=True,
        send_probe=lambda: None,
    )


def test_one_that_came_late_raises_both_thresholds() -> None:
    learnt = Reordering()
    learnt.note_lost([sent(5), sent(6)])
    assert learnt.receive([(0, 3), (7, 30)], 29, RTT_S, 1.1) == []
    (late,) = learnt.receive([(5, 6), (7, 30)], 29, RTT_S, 1.15)
    assert late.packet_number == 5
    assert (learnt.packets, round(learnt.rtts, 3)) == (25, 1.5)


def test_it_comes_late_once() -> None:
    learnt = Reordering()
    learnt.note_lost([sent(5)])
    assert learnt.receive([(5, 30)], 29, RTT_S, 1.1)
    assert not learnt.receive([(5, 30)], 29, RTT_S, 1.1)


def test_losses_in_earnest_bring_the_thresholds_back() -> None:
    learnt = Reordering()
    learnt.note_lost([sent(5)])
    learnt.receive([(5, 30)], 29, RTT_S, 1.1)
    for number in range(FORGET_LOSSES):
        learnt.note_lost([sent(100 + number)])
        assert learnt.packets == 25
    learnt.note_lost([sent(999)])
    assert (learnt.packets, learnt.rtts) == (LEAST_PACKETS, LEAST_RTTS)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3000), st.integers(1, 3000), st.floats(0.0, 0.5)),
        max_size=30,
    )
)
def test_whatever_a_peer_says_it_stays_small(steps: list[tuple[bool, int, int, float]]) -> None:
    learnt, now = Reordering(), 1.0
    for lose, start, size, wait_s in steps:
        now += wait_s
        if lose:
            learnt.note_lost(sent(number, now) for number in range(start, start + size))
        else:
            for late in learnt.receive([(start, start + size)], 1 << 40, RTT_S, now):
                assert start <= late.packet_number < start + size
        assert len(learnt.gone) <= REMEMBERED
        assert LEAST_PACKETS <= learnt.packets <= MOST_PACKETS
        assert LEAST_RTTS <= learnt.rtts <= MOST_RTTS


def test_what_never_comes_is_forgotten() -> None:
    learnt = Reordering()
    learnt.note_lost([sent(5, 1.0)])
    assert not learnt.receive([(5, 30)], 29, RTT_S, 1.0 + 5 * RTT_S)
    assert not learnt.gone


def test_a_loss_is_taken_back_and_the_next_is_waited_for() -> None:
    recovery = rate_recovery()
    one = One(recovery)
    controller = recovery._cc
    assert isinstance(controller, RateController)
    recovery.note_sent([one.packet(number, 1.0) for number in range(20)], one.space)
    recovery.receive_ack([(0, 5), (8, 20)], 0.0, 1.1, one.space)
    assert controller.rounds.lost_packets == 3
    delivered, in_flight = controller.delivery.total_bytes, controller.bytes_in_flight
    recovery.receive_ack([(0, 6), (7, 20)], 0.0, 1.11, one.space)
    assert controller.delivery.total_bytes == delivered + 2 * PACKET
    assert (controller.rounds.lost_packets, controller.bytes_in_flight) == (1, in_flight)
    assert recovery._reordering.packets == 15
    recovery.note_sent([one.packet(number, 1.2) for number in range(20, 40)], one.space)
    recovery.receive_ack([(21, 35)], 0.0, 1.3, one.space)
    assert 20 in one.space.sent_packets, "14 overtook it, as many as before"
    recovery.receive_ack([(21, 36)], 0.0, 1.3, one.space)
    assert 20 not in one.space.sent_packets
    assert controller.bytes_in_flight == PACKET * len(one.space.sent_packets)
