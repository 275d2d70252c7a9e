"""The rate controller: it fills a path with losses and leaves its queue alone, and in any history its sums hold."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.haul import Haul, Live, Path, measure, quantile, shares
from tests.quic.pair import Weather, make_pair
from tests.quic.test_recovery import PACKET, One
from tradewind.quic.config import Limits
from tradewind.quic.congestion import NAME, SMALLEST_WINDOW_PACKETS, Cycle, Mode, RateController
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
    assert lone.controller.path_s == 0.050
    assert known == pytest.approx(20 * PACKET / 0.050)
    for _ in range(300):
        packet = lone.send(PACKET)
        lone.controller.run_dry(lone.now)
        lone.ack(packet, 0.055)
        lone.now += 0.050
        assert lone.controller.rate == known
        assert lone.controller.mode is not Mode.PATH, "its window is not cut to look at the path"
    assert lone.controller.path_s == 0.055, "any round trip will do"


def test_what_is_lost_of_a_sender_with_little_to_send_does_not_bound_it() -> None:
    lone = Lone()
    for _ in range(30):
        packet = lone.send(PACKET)
        lone.controller.run_dry(lone.now)
        lone.ack(packet, 0.050)
        lone.now += 0.050
    window = lone.controller.congestion_window
    for _ in range(4):
        lost = [lone.send(PACKET) for _ in range(9)]
        lone.controller.on_packets_lost(now=lone.now, packets=lost)
        packet = lone.send(PACKET)
        lone.now += 0.001
        lone.controller.run_dry(lone.now)
        lone.ack(packet, 0.050)
        assert lone.controller.congestion_window >= window


def test_a_path_that_was_silent_and_answers_is_used_like_a_new_one() -> None:
    lone = Lone()
    for _ in range(30):
        packet = lone.send(PACKET)
        lone.controller.run_dry(lone.now)
        lone.ack(packet, 0.050)
        lone.now += 0.050
    lone.controller.on_packets_lost(now=lone.now, packets=[lone.send(PACKET) for _ in range(10)])
    lone.controller.on_persistent_congestion()
    assert lone.controller.congestion_window == SMALLEST_WINDOW_PACKETS * PACKET
    lone.now += 2.0
    packet = lone.send(PACKET)
    assert lone.controller.congestion_window == SMALLEST_WINDOW_PACKETS * PACKET
    lone.ack(packet, 0.050)
    assert lone.controller.congestion_window >= 10 * PACKET


def test_more_is_asked_for_until_it_is_in_flight_or_may_not_be() -> None:
    cycle = Cycle()
    cycle.begin(1.0)
    now = 1.0
    while cycle.gain <= 1.0:
        now += 0.011
        assert cycle.may_go_on(now, 0.010)
        cycle.advance(now, 0.010, 1000, 1000, 2000)
    asked = cycle.phases
    for most, in_flight, further in ((2000, 1249, 0), (2000, 1250, 1), (1100, 1100, 1)):
        other = deepcopy(cycle)
        other.advance(now + 0.011, 0.010, in_flight, 1000, most)
        assert other.phases - asked == further
    cycle.advance(now + 0.011, 0.010, 1250, 1000, 2000)
    assert cycle.gain < 1.0
    cycle.advance(now + 0.030, 0.010, 1001, 1000, 2000)
    assert cycle.gain < 1.0
    assert cycle.may_go_on(now + 0.012, 0.010), "as soon as the queue is gone"
    cycle.advance(now + 0.0305, 0.010, 1000, 1000, 2000)
    assert cycle.gain == 1.0


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


def test_packets_that_overtake_each_other_are_not_lost() -> None:
    path = replace(FAST, jitter_s=0.015)
    (result,) = measure(path, [NAME], 3.0, 5.0, seed=1)
    assert result.part > 0.8
    assert result.lost < 0.02 * result.sent


@pytest.mark.parametrize(("rtt_s", "every_s"), [(0.020, 0.1), (0.060, 0.05)])
def test_acknowledgements_that_come_in_clumps_do_not_halt_it(rtt_s: float, every_s: float) -> None:
    path = Path(rtt_s, 20e6, max(rtt_s, 0.05), acks_every_s=every_s)
    (result,) = measure(path, [NAME], 4.0, 3.0, seed=1)
    assert result.part > 0.8


def test_flows_of_different_lengths_share() -> None:
    haul = Haul(replace(FAST, rtt_s=0.030, queue_s=0.2), [NAME], seed=1)
    haul.add(NAME, further_s=0.090)
    near, far = shares(haul, 8.0, 12.0)
    assert min(near.part, far.part) > 0.3


def test_a_path_that_gets_narrow_is_fitted_soon() -> None:
    deep = replace(FAST, queue_s=0.4)
    haul = Haul(deep, [NAME], seed=1)
    haul.run(3.0)
    haul.reshape(replace(deep, rate_bit_per_s=2e6))
    haul.run(2.5)
    haul.queue_s.clear()
    haul.run(2.0)
    assert quantile(haul.queue_s, 0.5) < 1.25 * deep.rtt_s


def test_a_shallow_queue_is_enough() -> None:
    (result,) = measure(replace(FAST, queue_s=0.012), [NAME], 2.0, 4.0, seed=1)
    assert result.part > 0.75
    assert result.lost < 0.06 * result.sent


def test_reno_is_left_room_where_the_queue_is_full() -> None:
    _, reno = measure(FAST, [NAME, "reno"], 4.0, 12.0, seed=1)
    assert reno.part > 0.12


def test_live_media_is_in_time_on_a_lossy_path_and_its_window_is_never_cut() -> None:
    haul = Haul(Path(loss_ratio=0.01), [], seed=1)
    show = Live(starts_at=haul.now + 1.0)
    haul.add(NAME, show)
    for _ in range(150):
        haul.run(0.1)
        assert controller_of(haul).mode is not Mode.PATH
    assert len(show.delays_s) > 400
    assert quantile(show.delays_s, 0.5) < 0.085
    assert quantile(show.delays_s, 0.95) < 0.400


def test_a_first_group_is_there_soon() -> None:
    haul = Haul(Path(loss_ratio=0.01), [NAME], seed=1)
    haul.run(2.0, lambda: haul.flows[0].bytes >= 250_000)
    assert haul.flows[0].opened_at is not None
    assert haul.now - haul.flows[0].opened_at < 6.5 * 0.150


def test_it_is_as_fast_as_before_when_nothing_passed_for_a_while() -> None:
    haul = Haul(FAST, [NAME], seed=1)
    haul.run(3.0)
    haul.reshape(replace(FAST, loss_ratio=1.0))
    haul.run(2.0)
    haul.reshape(FAST)
    haul.run(2.5)
    before = haul.flows[0].bytes
    haul.run(1.0)
    assert (haul.flows[0].bytes - before) * 8 > 0.8 * FAST.rate_bit_per_s


def test_many_small_shows_fit_through_one_place() -> None:
    haul = Haul(Path(0.060, 1.3e6, 0.25), [], seed=1)
    shows = [Live(200e3, 12_000, starts_at=haul.now + 1.0 + 0.4 * number) for number in range(5)]
    for show in shows:
        haul.add(NAME, show)
    haul.run(9.0)
    delays = [delay for show in shows for delay in show.delays_s]
    assert len(delays) > 0.95 * 30 * sum(9.0 - 1.0 - 0.4 * number for number in range(5))
    assert quantile(delays, 0.95) < 0.2


def test_what_a_peer_does_not_take_says_nothing_about_the_path() -> None:
    """A reader with little credit: its sender measures what it reads, not what the path carries."""
    pair = make_pair(
        server_limits=Limits(stream_window_bytes=64 * 1024, session_window_bytes=64 * 1024), weather=Weather(0.05)
    )
    pair.run(1.0)
    controller = pair.at_client._core.recovery._cc
    assert isinstance(controller, RateController)
    first, stream = pair.at_client.open_uni(), pair.at_client.open_uni()
    assert first is not None and stream is not None
    for each in (first, stream):
        pair.at_client.offer(each, [bytes(48 * 1024)], False)
        pair.run(1.0)
    assert pair.at_client.unsent(stream) > 0, "it waits for credit"
    assert controller.bytes_in_flight == 0
    controller.delivery.stamp(pair.link.now, 0)
    assert controller.delivery.limited_until > 0
