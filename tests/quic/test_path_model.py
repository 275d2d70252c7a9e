"""What is known of a path: each estimate against what it should be, in histories small enough to see."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.quic.path_model import PATH_S, Clumps, Delivery, FullPipe, Largest, PathLength, Rounds
from tradewind.quic.recovery import Sent

MEMORY = 10
RATE = 1000.0


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 1e9)), min_size=1, max_size=60))
def test_the_largest_is_the_largest_of_those_that_are_not_too_old(steps: list[tuple[int, float]]) -> None:
    largest, number = Largest(MEMORY), 0
    told: list[tuple[int, float]] = []
    for further, value in steps:
        number += further
        largest.add(value, number)
        told.append((number, value))
        largest.check_invariants()
        assert largest.value == max(each for at, each in told if at >= number - MEMORY)


def test_a_sample_is_the_slower_of_how_packets_left_and_how_they_came() -> None:
    delivery = Delivery()
    packets = []
    for number in range(3):
        packet = Sent(number, 100, 1.0 + number, True, ())
        packet.stamp = delivery.stamp(packet.sent_time, 100 * number)
        packets.append(packet)
    assert packets[2].stamp is not None
    delivery.receive(300)
    assert delivery.sample(packets[2], packets[2].stamp, 2.5, inf) is None, "shorter than any path is no interval"
    delivery = Delivery()
    stamp = delivery.stamp(1.0, 0)
    delivery.receive(300)
    assert delivery.sample(packets[2], stamp, 2.5, 0.5) == pytest.approx(300 / 2.0), "left in 2 s, came in 1.5 s"
    assert not stamp.limited


def test_who_ran_dry_is_limited_until_all_that_was_in_flight_arrived() -> None:
    delivery = Delivery()
    delivery.run_dry(1.0)
    assert not delivery.stamp(1.0, 500).limited, "no time passed"
    delivery.run_dry(1.0)
    assert delivery.stamp(1.1, 500).limited
    delivery.receive(500)
    assert delivery.stamp(1.2, 100).limited
    delivery.receive(1)
    assert not delivery.stamp(1.3, 100).limited


def test_a_clump_is_what_came_beyond_the_rate() -> None:
    clumps = Clumps()
    for number in range(50):
        clumps.receive(100, 1.0 + number * 0.1, RATE, 10_000, number)
    assert clumps.largest.value <= 100 + 1e-6, "even packets are no clump"
    for number in range(50, 60):
        clumps.receive(500, 6.0 + (number - 50) * 0.5, RATE, 10_000, number)
    assert clumps.largest.value == pytest.approx(500)
    clumps.receive(50_000, 20.0, RATE, 10_000, 60)
    assert clumps.largest.value == 10_000, "no more than was in flight"


def test_rounds_count_what_each_of_them_lost() -> None:
    rounds, delivery = Rounds(), Delivery()
    first = delivery.stamp(1.0, 0)
    assert first.delivered >= rounds.ends_at
    delivery.receive(1000)
    rounds.begin(delivery.total_bytes, 300)
    assert first.delivered < rounds.ends_at
    assert delivery.stamp(1.1, 300).delivered >= rounds.ends_at
    rounds.lost_bytes = 100
    assert rounds.lost_more_than(0.09, 2000)
    assert not rounds.lost_more_than(0.10, 2000)
    rounds.begin(2000, 0)
    assert not rounds.lost_more_than(0.0, 3000)


def test_a_pipe_is_full_when_three_rounds_brought_no_quarter_more() -> None:
    pipe = FullPipe()
    for rate in (100, 200, 240, 245, 250):
        pipe.look(rate)
        assert not pipe.reached
    for rate in (260, 270, 280):
        pipe.look(rate)
    assert pipe.reached


def test_the_old_length_counts_until_the_new_one_is_known() -> None:
    path = PathLength()
    path.receive(0.1, 1.0)
    path.receive(0.5, 2.0)
    assert (path.shortest_s, path.newest_s) == (0.1, 0.5)
    assert not path.is_stale(1.0 + PATH_S)
    assert path.is_stale(1.1 + PATH_S)
    path.begin_anew()
    path.receive(0.2, 12.0)
    path.receive(0.3, 12.1)
    assert path.shortest_s == 0.1
    path.end_anew(12.2)
    assert path.shortest_s == 0.2
    assert not path.is_stale(12.2)
    path.receive(0.4, 30.0)
    path.end_anew(30.0)
    assert path.shortest_s == 0.4, "whoever does not look believes the newest"
