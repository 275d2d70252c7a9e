"""A publisher that goes, comes back, begins anew or is followed by another one."""

from __future__ import annotations

import pytest

from relay.forwarding.book import ForwardingSettings
from tests.relay.forwarding.fakes import World
from tradewind.moqt.errors import DoneCode, ResetCode
from tradewind.moqt.model import Location


def test_publisher_that_does_not_come_back() -> None:
    world = World(ForwardingSettings(linger_s=2.0))
    ours, request = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"x" * 10, upto=5)
    world.leave(1)
    world.wait(1.9)
    assert "publish_done" not in world.peers[2].verbs()
    world.wait(0.2)
    assert world.sinks[2].streams[0].code == ResetCode.CANCELLED
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 1) in world.peers[2].said
    world.wait(60)
    assert world.forwarder.statistics().tracks == 0
    assert world.forwarder.statistics().cache_bytes == 0


@pytest.mark.parametrize("old_is_known_dead", [True, False])
def test_publisher_that_begins_anew(old_is_known_dead: bool) -> None:
    """Group ids go back to 0 after a restart: a new life of the track, not a malformed one."""
    world = World()
    listener = world.join(9)
    interest = world.request(9)
    world.forwarder.receive_subscribe_namespace(9, interest, (), world.now)
    ours, request = world.serve()
    for group in range(3):
        stream = world.open(1, ours, group=group)
        world.send(1, stream, 0, b"old life")
        world.close(1, stream)
    if old_is_known_dead:
        world.leave(1)
    world.wait(1.0)
    again = world.join_publisher(3)
    stream = world.open(3, again, group=0)
    world.send(3, stream, 0, b"new life")
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 3) in world.peers[2].said
    assert listener.verbs() == ["accept", "namespace", "namespace_done", "namespace"]
    world.join(4)
    world.subscribe(4)
    world.send(3, stream, 1, b"goes on")
    assert world.sinks[4].streams[0].objects == [(1, b"goes on")]


def test_publisher_that_begins_anew_in_the_same_group() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"old life")
    world.leave(1)
    again = world.join_publisher(3)
    stream = world.open(3, again, group=0)
    world.send(3, stream, 0, b"new life")
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 1) in world.peers[2].said
    world.join(4)
    world.subscribe(4)
    stream = world.open(3, again, group=1)
    world.send(3, stream, 0, b"goes on")
    assert world.sinks[4].streams[0].objects == [(0, b"goes on")]


def test_publisher_that_withdrew_is_succeeded_by_another() -> None:
    """It keeps its session and its subscriptions open, silently: who subscribes now gets the new publisher's track."""
    world = World()
    world.join(1)
    announced = world.announce(1)
    world.join(2)
    former = world.subscribe(2)
    ours = world.agree(1)
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"old life")
    world.close(1, stream)
    world.forwarder.receive_cancel(1, announced, world.now)
    assert "publish_done" not in world.peers[2].verbs()
    world.join(3)
    world.announce(3)
    assert ("publish_done", former, DoneCode.TRACK_ENDED, 1) in world.peers[2].said
    assert ("cancel", ours) in world.peers[1].said
    world.subscribe(2)
    again = world.agree(3)
    stream = world.open(3, again, group=0)
    world.send(3, stream, 0, b"new life")
    assert world.sinks[2].streams[-1].objects == [(0, b"new life")]


@pytest.mark.parametrize("known_dead", [True, False])
def test_track_that_nobody_reads_follows_its_publisher_to_another_session(known_dead: bool) -> None:
    """The last viewer has left, the publisher dies and comes back: the next viewer gets what the new session sends."""
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"before")
    world.forwarder.receive_cancel(2, request, world.now)
    if known_dead:
        world.leave(1)
    world.wait(1.0)
    world.join(3)
    world.announce(3)
    assert "subscribe" not in world.peers[3].verbs()
    accepted = world.peers[2].verbs().count("accept_subscribe")
    viewer = world.subscribe(2)
    assert world.peers[2].verbs().count("accept_subscribe") == accepted
    again = world.agree(3, largest=Location(2, 0))
    assert ("accept_subscribe", viewer, Location(2, 0), ()) in world.peers[2].said
    stream = world.open(3, again, group=3)
    world.send(3, stream, 0, b"after")
    assert world.sinks[2].streams[-1].objects == [(0, b"after")]
