"""The rate controller: it fills a path with losses and leaves its queue alone, and in any history its sums hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.haul import Haul, Path, measure
from tests.quic.test_recovery import PACKET, One
from tradewind.quic.congestion import NAME, SMALLEST_WINDOW_PACKETS, Mode, RateController
from tradewind.quic.recovery import Recovery, Sent

FAST = Path(rtt_s=0.060, rate_bit_per_s=8e6, queue_s=0.060)


def controller_of(haul: Haul, flow: int = 0) -> RateController:
    controller = haul.flows[flow].connection._core.recovery._cc
    assert isinstance(controller, RateController)
    return controller


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02])
def test_a_lossy_path_is_filled_and_its_queue_is_not(loss: float) -> None:
    path = Path(FAST.rtt_s, FAST.rate_bit_per_s, FAST.queue_s, loss)
    (result,) = measure(path, [NAME], 2.0, 6.0, seed=3)
    assert result.part > 0.85
    waits = sorted(result.queue_s)
    assert waits[len(waits) // 2] < 0.25 * path.rtt_s


def test_cubic_gives_up_where_the_rate_goes_on() -> None:
    path = Path(FAST.rtt_s, FAST.rate_bit_per_s, FAST.queue_s, 0.02)
    (cubic,) = measure(path, ["cubic"], 2.0, 6.0, seed=3)
    assert cubic.part < 0.5


def test_two_flows_share() -> None:
    first, second = measure(FAST, [NAME, NAME], 4.0, 12.0, seed=1)
    assert first.part + second.part > 0.85
    assert min(first.part, second.part) > 0.25


def test_the_path_is_measured_anew_when_it_has_become_longer() -> None:
    haul = Haul(FAST, [NAME], seed=1)
    haul.run(3.0)
    controller = controller_of(haul)
    assert controller.path_s == pytest.approx(0.060, rel=0.1)
    haul.reshape(replace(FAST, rtt_s=0.110))
    haul.run(25.0)
    assert controller.path_s == pytest.approx(0.110, rel=0.2)


class Lone:
    """A controller and the packets it was told of."""

    def __init__(self) -> None:
        self.controller = RateController(max_datagram_size=PACKET)
        self.now = 1.0

    def send(self, size: int) -> Any:
        packet: Any = Sent(0, size, self.now, True, ())
        self.controller.on_packet_sent(packet=packet)
        return packet

    def ack(self, packet: Any, rtt_s: float) -> None:
        self.now = packet.sent_time + rtt_s
        self.controller.on_packet_acked(now=self.now, packet=packet)
        self.controller.on_rtt_measurement(now=self.now, rtt=rtt_s)
        self.controller.finish_ack(self.now)


def test_who_has_nothing_to_send_learns_nothing_worse() -> None:
    lone = Lone()
    for _ in range(30):
        lone.ack(lone.send(20 * PACKET), 0.050)
    known = lone.controller.rate
    assert known == pytest.approx(20 * PACKET / 0.050)
    for _ in range(300):
        packet = lone.send(PACKET)
        lone.controller.run_dry(lone.now)
        lone.ack(packet, 0.050)
        lone.now += 0.050
    assert lone.controller.rate == known
    assert lone.controller.mode is not Mode.PATH, "its window is not cut to look at the path"


histories = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 12)),
        st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
        st.tuples(st.just("ack"), st.tuples(st.integers(0, 40), st.integers(1, 30))),
        st.tuples(st.just("timer"), st.none()),
        st.tuples(st.just("dry"), st.none()),
        st.tuples(st.just("collapse"), st.none()),
    ),
    max_size=60,
)


@given(histories)
def test_any_history_leaves_a_window_and_a_rate(history: list[tuple[str, Any]]) -> None:
    recovery = Recovery(
        NAME,
        initial_rtt_s=0.1,
        packet_bytes=PACKET,
        others_lost=lambda: None,
        peer_completed_address_validation=True,
        send_probe=lambda: None,
    )
    one = One(recovery)
    controller = recovery._cc
    assert isinstance(controller, RateController)
    number, now = 0, 1.0
    for what, value in history:
        if what == "wait":
            now += value
        elif what == "send":
            recovery.note_sent([one.packet(each, now) for each in range(number, number + value)], one.space)
            number += value
        elif what == "ack" and number:
            back, size = value
            start = max(number - 1 - back, 0)
            recovery.receive_ack([(start, min(start + size, number))], 0.001, now, one.space)
        elif what == "timer" and one.space.sent_packets:
            recovery.on_loss_detection_timeout(now=now)
        elif what == "dry":
            recovery.run_dry(now)
        elif what == "collapse":
            controller.on_persistent_congestion()
        assert controller.bytes_in_flight == sum(packet.sent_bytes for packet in one.space.sent_packets.values())
        assert controller.congestion_window >= SMALLEST_WINDOW_PACKETS * PACKET
        controller.check_invariants()
