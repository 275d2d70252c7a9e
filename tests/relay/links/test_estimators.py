"""Loss, round trips, delay variation and steps: against twins that recompute from all they were told."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.links.estimators import (
    Cusum,
    DelayVariation,
    LossCounts,
    LossWatch,
    RoundTrips,
    SlidingMin,
    StepDetector,
    likely_apart,
)
from relay.links.settings import DEFAULTS


@given(st.lists(st.booleans(), max_size=200))
def test_cusum_is_the_best_of_all_beginnings(outcomes: list[bool]) -> None:
    """The score is the largest log-likelihood ratio over every moment at which the loss may have begun."""
    cusum = Cusum(0.005, 0.08, math.inf)
    terms = []
    for lost in outcomes:
        cusum.add(not lost, lost)
        terms.append(math.log(0.08 / 0.005) if lost else math.log(0.92 / 0.995))
        twin = max([0.0] + [sum(terms[start:]) for start in range(len(terms))])
        assert cusum.score == pytest.approx(twin, abs=1e-9)


def test_what_the_settings_say_of_the_thresholds() -> None:
    """So many losses, evenly spread over so many packets, reach the score; over one more packet they do not."""

    def reached(losses: int, packets: int, score: float) -> bool:
        cusum = Cusum(DEFAULTS.loss_good_ratio, DEFAULTS.loss_bad_ratio, math.inf)
        cusum.add(0, 1)
        for loss in range(1, losses):
            spread = (packets - losses) * loss // (losses - 1) - (packets - losses) * (loss - 1) // (losses - 1)
            cusum.add(spread, 1)
        return cusum.score >= score

    for losses, packets, score in (
        (2, 34, DEFAULTS.loss_suspect_score),
        (4, 11, DEFAULTS.loss_bad_score),
        (5, 47, DEFAULTS.loss_bad_score),
        (6, 84, DEFAULTS.loss_bad_score),
    ):
        assert reached(losses, packets, score)
        assert not reached(losses, packets + 1, score)
    assert not reached(1, 1, DEFAULTS.loss_suspect_score), "one loss is no suspicion"


@given(st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 50), st.integers(0, 5)), max_size=60))
def test_loss_counts_against_history(steps: list[tuple[float, int, int]]) -> None:
    counts, history, now = LossCounts(0.1, 30), [], 100.0
    for wait_s, arrived, lost in steps:
        now += wait_s
        counts.add(arrived, lost, now)
        history.append((int(now / 0.1), arrived, lost))
        for steps_back in (30, 3):
            recent = [entry for entry in history if entry[0] > int(now / 0.1) - steps_back]
            came, went = sum(entry[1] for entry in recent), sum(entry[2] for entry in recent)
            assert counts.ratio(now, steps_back) == pytest.approx(went / max(came + went, 1))
        assert counts.ratio(now) == pytest.approx(counts.ratio(now, 30))


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 1)), max_size=50))
def test_sliding_min_against_history(steps: list[tuple[float, float]]) -> None:
    sliding, history, now = SlidingMin(10.0), [], 0.0
    for wait_s, value in steps:
        now += wait_s
        sliding.add(value, now)
        history.append((now, value))
        assert sliding.get(now) == min(value for at, value in history if at > now - 10.0)


def test_more_packets_ask_for_more_proof() -> None:
    few, many = LossWatch(DEFAULTS), LossWatch(DEFAULTS)
    many.add(30_000, 0, 0, 1.0)
    for watch in (few, many):
        watch.add(0, 4, 4, 1.0)
        assert watch.is_suspect()
    assert few.is_bad(1.0)
    assert not many.is_bad(1.0)
    many.add(0, 1, 1, 1.0)
    assert many.is_bad(1.0)


def test_small_loss_that_stays_is_bad() -> None:
    watch, dice, packets = LossWatch(DEFAULTS), random.Random(1), 0
    while not watch.is_bad(packets / 200):
        lost = dice.random() < 0.02
        packets += 1
        watch.add(not lost, lost, lost, packets / 200)
        assert packets < 4000
    assert packets > 100


def test_runs_are_one_event() -> None:
    assert [likely_apart(0, 10), likely_apart(40, 10), likely_apart(8, 10), likely_apart(5, -3)] == [2, 10, 4, -3]


def test_round_trips() -> None:
    trips = RoundTrips(10.0)
    assert (trips.recent_s(), trips.base_s(0.0)) == (0.0, math.inf)
    for number in range(100):
        trips.add(0.1 if number != 50 else 0.5, number * 0.1)
    assert trips.base_s(9.9) == 0.1
    assert trips.recent_s() == 0.1, "one outlier is not what is true now"
    assert trips.smoothed_s == pytest.approx(0.1, abs=0.01)
    assert (trips.steps, trips.level_s) == (1, pytest.approx(0.1))


def test_steps_are_told_and_noise_is_not() -> None:
    dice, detector = random.Random(4), StepDetector()
    told = [detector.add(0.1 + dice.random() * 0.02) for _ in range(3000)]
    assert sum(told) <= 2
    assert detector.level_s == pytest.approx(0.11, abs=0.004)
    told = [detector.add(0.2 + dice.random() * 0.02) for _ in range(200)]
    assert 1 <= sum(told) <= 3
    assert told.index(True) < 10
    assert detector.level_s == pytest.approx(0.21, abs=0.01)


def test_variation_knows_no_zero() -> None:
    """Their clock may be hours away, and be set by five seconds: neither is jitter."""
    dice, varied = random.Random(2), DelayVariation()
    for offset_s in (0.0, -7200.0, 5.0, 5.0 + 0.3):
        for _ in range(60):
            varied.add(offset_s + 0.04 + dice.random() * 0.02)
        assert varied.p95_s == pytest.approx(0.019, abs=0.002)


def test_a_rise_is_seen_at_once() -> None:
    varied = DelayVariation()
    for _ in range(50):
        varied.add(0.04)
    assert varied.rise_s() == 0.0
    for _ in range(3):
        varied.add(0.12)
    assert varied.rise_s() == pytest.approx(0.08)
