"""Emptying a relay: everybody is asked once, in waves, in time; and on a node, with an end and with an undo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.drain import LOOK_S, SHARE_OF_DEADLINE, WAVE_S, WHOLE_S, Emptying
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import SessionCode


@given(st.sets(st.integers(1, 10_000), max_size=300), st.floats(1.0, 600.0))
def test_everybody_is_asked_once_and_in_time(sessions: set[int], deadline_s: float) -> None:
    emptying = Emptying(sessions, 100.0, deadline_s)
    now, last, asked, waves = 100.0, 100.0, [], []
    while len(asked) < len(sessions):
        due = emptying.take_due(now)
        emptying.is_time_to_look(now)
        asked += due
        waves.append(len(due))
        last = now
        assert not emptying.is_over(now)
        now = emptying.next_deadline()
    assert sorted(asked) == sorted(sessions)
    assert emptying.asked == sessions
    span_s = min(WHOLE_S, deadline_s * SHARE_OF_DEADLINE)
    assert last - 100.0 <= span_s + 1e-6
    assert max(waves, default=0) <= len(sessions) * WAVE_S / span_s + 1
    assert emptying.is_over(100.0 + deadline_s)


@given(
    st.sets(st.integers(1, 500), max_size=60), st.sets(st.integers(501, 600), max_size=20), st.floats(1.0, 600.0),
    st.floats(0.0, 1.0), st.floats(1.0, 600.0),
)  # fmt: skip
def test_publishers_come_last_and_a_sooner_deadline_counts(
    others: set[int], publishers: set[int], deadline_s: float, after: float, again_s: float
) -> None:
    emptying = Emptying(others, 100.0, deadline_s, publishers)
    now, asked, hastened, looked = 100.0, list[int](), False, 0.0
    while not emptying.is_over(now):
        if not hastened and now >= 100.0 + after * deadline_s:
            hastened, before = True, emptying.ends_at
            emptying.hasten(now, again_s)
            assert emptying.ends_at == min(before, now + again_s)
        asked += emptying.take_due(now)
        assert emptying.is_time_to_look(now) is (now >= looked + LOOK_S)
        looked = now if now >= looked + LOOK_S else looked
        assert now < emptying.next_deadline() <= emptying.ends_at or emptying.is_over(now)
        now = emptying.next_deadline()
    assert sorted(asked[: len(others)]) == sorted(others)
    assert sorted(asked[len(others) :]) == sorted(publishers)
    assert all(emptying.knows(one) for one in others | publishers) and not emptying.knows(999)
    emptying.add(999)
    assert emptying.knows(999) and not emptying.was_over
    emptying.go_on(now + 1.0)
    assert emptying.was_over and not emptying.is_over(now)


def test_those_who_stay_are_ended_at_the_deadline() -> None:
    world = World()
    viewers = [world.join() for _ in range(4)]
    world.node.begin_emptying(world.network.now, 10.0)
    world.network.touch(world.relay)
    assert world.node.stage_name == "draining"
    world.run(8.0)
    assert all(len(viewer.told(e.GoawayReceived)) == 1 for viewer in viewers)
    assert world.node.stage_name == "draining"
    viewers[0].close()
    world.run(3.0)
    assert world.node.stage_name == "empty"
    ended = [viewer.closed.code for viewer in viewers[1:] if viewer.closed is not None]
    assert ended == [SessionCode.GOAWAY_TIMEOUT] * 3
    assert world.node.tally.overstayed == 3


@pytest.mark.parametrize("undone_s", [0.5, 3.0])
def test_undone_half_way_it_serves_on(undone_s: float) -> None:
    world = World()
    viewers = [world.join() for _ in range(20)]
    world.node.begin_emptying(world.network.now, 10.0)
    world.network.touch(world.relay)
    world.run(undone_s)
    world.node.stop_emptying(world.network.now)
    asked = sum(len(viewer.told(e.GoawayReceived)) for viewer in viewers)
    assert 0 < asked < 20
    world.run(15.0)
    assert sum(len(viewer.told(e.GoawayReceived)) for viewer in viewers) <= asked + 1
    assert world.node.stage_name == "serving"
    assert all(viewer.closed is None for viewer in viewers)
