"""When a viewer takes its relay for gone: silence, pings, and what it makes of both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.client.choices import Patience
from tradewind.client.watching import CONFIRM_S, QUIET_PING_S, YOUNG_S, Verdict, Watch

PATIENCE = Patience()


def playing(between_s: float, seconds: float = 3.0) -> tuple[Watch, float]:
    """A watch that had an object every so often; and now."""
    watch, now = Watch(PATIENCE), 0.0
    while now < seconds:
        now += between_s
        watch.receive(now)
    return watch, now


def follow(
    watch: Watch, now: float, until: float, rtt_s: float | None, known_rtt_s: float = 0.0, heard: int = 1000
) -> list[tuple[float, Verdict]]:
    """Look at every deadline; a ping is answered after `rtt_s`, or never. Until something is to be done."""
    said: list[tuple[float, Verdict]] = []
    answer_at = float("inf")
    while now < until:
        if now >= answer_at:
            heard, answer_at = heard + 40, float("inf")
        verdict = watch.look(now, heard, known_rtt_s)
        if verdict is not Verdict.FINE:
            said.append((now, verdict))
        if verdict is Verdict.PING and rtt_s is not None:
            answer_at = now + rtt_s
        if verdict in (Verdict.SILENT, Verdict.STALLED):
            break
        following = watch.next_deadline(now)
        assert following > now, "or it would be asked for ever"
        now = min(following, answer_at)
    return said


@given(st.floats(0.005, 0.5), st.floats(0.0, 0.2))
def test_a_relay_that_is_gone(between_s: float, slept_s: float) -> None:
    watch, died_at = playing(between_s)
    said = follow(watch, died_at + slept_s, died_at + 60, None)
    assert [verdict for _, verdict in said] == [Verdict.PING, Verdict.SILENT]
    wanted_s = max(PATIENCE.stall_s, 12 * between_s)
    assert wanted_s <= said[-1][0] - died_at - CONFIRM_S + 1e-6 <= wanted_s + slept_s + 2e-6


@given(st.floats(0.005, 0.5), st.floats(0.001, 0.2))
def test_a_relay_that_answers_has_more_time(between_s: float, rtt_s: float) -> None:
    watch, still_from = playing(between_s)
    said = follow(watch, still_from, still_from + 60, rtt_s)
    assert [verdict for _, verdict in said] == [Verdict.PING, Verdict.STALLED]
    assert said[-1][0] - still_from >= PATIENCE.alive_ratio * max(PATIENCE.stall_s, 12 * between_s) - 1e-6


def test_a_far_relay_is_no_dead_one() -> None:
    watch, still_from = playing(0.04)
    assert follow(watch, still_from, still_from + 60, 0.4)[-1][1] is Verdict.SILENT
    watch, still_from = playing(0.04)
    assert follow(watch, still_from, still_from + 60, 0.4, 0.4)[-1][1] is Verdict.STALLED


@given(st.lists(st.floats(0.001, 0.08), min_size=1, max_size=300), st.floats(0.0, 1.0))
def test_nobody_is_blamed_while_objects_come(gaps: list[float], ratio: float) -> None:
    watch, now, pinged = Watch(PATIENCE), 0.0, 0
    for gap in gaps:
        verdict = watch.look(now + gap * ratio, 0)
        assert verdict in (Verdict.FINE, Verdict.PING), verdict
        pinged += verdict is Verdict.PING
        now += gap
        watch.receive(now)
    assert pinged <= 1, "once, while there is nothing yet"


def test_whoever_slept_itself_asks_first() -> None:
    watch, now = playing(0.04)
    now += 30.0
    assert watch.look(now, 1000) is Verdict.PING
    assert watch.look(now, 1000) is Verdict.FINE
    watch.receive(now)
    assert watch.look(now + 0.04, 1100) is Verdict.FINE


def test_what_waits_to_be_read_is_no_silence() -> None:
    """A process that was busy looks before it reads: the answer is seen at the second look."""
    watch, now = playing(0.04)
    assert watch.look(now + 0.3, 1000) is Verdict.PING
    assert watch.look(now + 0.7, 1000) is Verdict.FINE
    assert watch.look(watch.next_deadline(now + 0.7), 1040) is Verdict.FINE
    assert watch.look(now + 1.0, 1040) is Verdict.FINE


def test_what_was_there_already_says_nothing_of_the_rate() -> None:
    watch = Watch(PATIENCE)
    for number in range(100):
        watch.receive(1.0 + number / 1000)
    assert watch.patience_s() > 1.0
    for number in range(200):
        watch.receive(2.0 + number / 25)
    assert watch.last_at is not None and watch.last_at > 1.0 + YOUNG_S
    assert watch.patience_s() == PATIENCE.stall_s


def test_where_there_is_nothing_to_see_only_the_silent_are_left() -> None:
    watch = Watch(PATIENCE)
    watch.restart(quiet=True)
    assert follow(watch, 5.0, 65.0, 0.05)[-1][1] is Verdict.PING
    watch.restart(quiet=True)
    said = follow(watch, 5.0, 65.0, None)
    assert [verdict for _, verdict in said] == [Verdict.PING, Verdict.SILENT]
    assert said[-1][0] - said[0][0] == pytest.approx(QUIET_PING_S + CONFIRM_S)
