"""When paths are computed."""

from __future__ import annotations

from itertools import pairwise

from control.topology.schedule import Due, Schedule, ScheduleSettings


def test_the_first_event_starts_the_cycles() -> None:
    schedule = Schedule(ScheduleSettings())
    assert schedule.next_deadline() is None
    schedule.receive_event(5.0)
    assert schedule.next_deadline() == 5.01
    assert schedule.handle_deadline(5.0) is Due.NOTHING
    assert schedule.handle_deadline(5.01) is Due.CYCLE
    assert schedule.next_deadline() == 15.01
    assert schedule.handle_deadline(15.01) is Due.CYCLE


def test_a_single_event_waits_ten_milliseconds_and_a_storm_a_quarter_of_a_second() -> None:
    schedule = Schedule(ScheduleSettings(cycle_s=1e6))
    schedule.receive_event(0.0)
    schedule.handle_deadline(0.01)
    now, computed = 100.0, []
    while now < 110:
        schedule.receive_event(now)
        if (schedule.next_deadline() or 0.0) <= now:
            assert schedule.handle_deadline(now) is Due.EVENT
            computed.append(now)
        now += 0.001
    assert 0.009 <= computed[0] - 100.0 <= 0.012
    assert len(computed) <= 4 * 10 + 6
    assert all(later - earlier >= 0.019 for earlier, later in pairwise(computed))
    now += 1.0
    schedule.receive_event(now)
    assert (schedule.next_deadline() or 0.0) - now < 0.011


def test_an_event_within_a_cycle_is_part_of_it() -> None:
    schedule = Schedule(ScheduleSettings())
    schedule.receive_event(0.0)
    schedule.handle_deadline(0.01)
    schedule.receive_event(10.005)
    assert schedule.handle_deadline(10.02) is Due.CYCLE
    assert schedule.handle_deadline(10.02) is Due.NOTHING
    assert schedule.next_deadline() == 20.02


def test_relays_that_come_wait_for_each_other_and_no_fault_waits_for_them() -> None:
    schedule = Schedule(ScheduleSettings(cycle_s=1e6))
    schedule.receive_event(0.0, patient=True)
    assert schedule.next_deadline() == 0.01, "one alone does not wait"
    schedule.handle_deadline(0.01)
    now, computed = 0.01, 0
    while now < 20:
        schedule.receive_event(now, patient=True)
        computed += schedule.handle_deadline(now) is Due.EVENT
        now += 0.05
    assert computed <= 18
    schedule.receive_event(now, patient=True)
    waits = (schedule.next_deadline() or 0.0) - now
    schedule.receive_event(now)
    assert (schedule.next_deadline() or 0.0) - now <= 0.25 < waits
    schedule.receive_event(now, patient=True)
    assert (schedule.next_deadline() or 0.0) - now <= 0.25
