"""A neighbour session that carries 2,000 tracks: all are delivered over it, and all move off it without a loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.forwarding.book import Standing
from relay.forwarding.moving import LOOKED_AT
from tests.sim.many import EDGE, FAIR, ORIGIN, OTHER, Many
from tests.sim.network import BLACKOUT, Weather
from tradewind.moqt.errors import RequestCode

TRACKS = 2000


def settled(world: Many) -> None:
    """Everything that was sent has come, once and in order, and no book is wrong."""
    world.run(2.0)
    world.collect()
    assert world.missing == 0
    edge = world.node(EDGE)
    assert not edge.forwarder.statistics().drops and not edge.tally.limits
    # Who is asked by one that stands no lower declines: nothing is lost by it.
    assert {code for _, code in edge.tally.rejected} <= {RequestCode.UNINTERESTED}
    for relay in world.relays.values():
        relay.node.check_invariants()
        assert not relay.ended, "nobody was closed"


def moves(world: Many, within_s: float) -> None:
    """Objects go on while all tracks leave the origin's session."""
    began = world.network.now
    while world.fed_by() != {OTHER: len(world.lines)}:
        assert world.network.now < began + within_s, world.fed_by()
        world.tick()


def test_tracks_are_looked_at_a_few_at_a_time() -> None:
    """Who has moved many in one call has forwarded nothing meanwhile."""
    world = Many(200)
    node = world.node(EDGE)
    session = world.session(EDGE, ORIGIN)

    def asked() -> int:
        return world.fed_by()[OTHER]

    node.forwarder.grade_neighbour(session, Standing.BAD, world.network.now)
    assert asked() == LOOKED_AT
    node.forwarder.grade_neighbour(session, Standing.SUSPECT, world.network.now)
    node.forwarder.grade_neighbour(session, Standing.BAD, world.network.now)
    assert asked() == LOOKED_AT, "what waits, waits once"
    moments = []
    while asked() < 200:
        world.network.touch(world.relays[EDGE])
        before = asked()
        world.network.step()
        moments.append(asked() - before)
    assert max(moments) <= LOOKED_AT
    world.stream(1.0)
    world.run(2.0)
    world.collect()
    assert world.fed_by() == {OTHER: 200} and world.missing == 0
    assert not node.forwarder._moving._unseen


@pytest.mark.slow
def test_two_thousand_tracks_over_one_session_and_all_of_them_move() -> None:
    """First all groups of all tracks begin and end at once: two streams a track for a moment."""
    world = Many(TRACKS)
    assert world.fed_by() == {ORIGIN: TRACKS}
    for _ in range(12):
        world.burst()
        world.run(0.2)
    settled(world)
    assert {line.seen for line in world.lines} == {12}
    world.stream(1.0)
    world.fail(BLACKOUT)
    moves(world, 3.0)
    world.stream(1.0)
    settled(world)


@pytest.mark.slow
def test_all_move_at_once_over_a_path_that_loses_packets() -> None:
    """Answers to 2,000 requests come late and out of order: streams wait for them, and none is refused for that."""
    world = Many(TRACKS)
    world.stream(1.0)
    world.weather(OTHER, EDGE, replace(FAIR, loss=0.02, jitter_s=0.005))
    world.weather(ORIGIN, OTHER, replace(FAIR, loss=0.02))
    world.fail(Weather(delay_s=0.02, loss=0.10))
    began = world.network.now
    while world.fed_by()[ORIGIN] and world.network.now < began + 3.0:
        world.tick()
    world.stream(1.0)
    settled(world)
