"""Who is told of which namespaces and published tracks."""

from __future__ import annotations

import pytest

from relay.forwarding.book import ForwardingSettings
from tests.relay.forwarding.fakes import TRACK, FakePeer, FakeSink, World
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import Parameters


def test_namespaces_are_discovered_and_withdrawn() -> None:
    world = World(ForwardingSettings(linger_s=2.0))
    listener = world.join(9)
    interest = world.request(9)
    world.forwarder.receive_subscribe_namespace(9, interest, (b"live",), world.now)
    world.join(1)
    first = world.announce(1, (b"live", b"a"))
    world.announce(1, (b"other",))
    world.join(2)
    world.announce(2, (b"live", b"b"))
    assert [entry for entry in listener.said if entry[0] == "namespace"] == [
        ("namespace", interest, (b"live", b"a")),
        ("namespace", interest, (b"live", b"b")),
    ]
    world.forwarder.receive_cancel(1, first, world.now)
    assert listener.said[-1] == ("namespace_done", interest, (b"live", b"a"))
    world.leave(2)
    assert listener.said[-1] == ("namespace_done", interest, (b"live", b"a"))
    world.wait(2.1)
    assert listener.said[-1] == ("namespace_done", interest, (b"live", b"b"))


def test_namespace_outlives_a_short_absence() -> None:
    world = World(ForwardingSettings(linger_s=2.0))
    listener = world.join(9)
    world.forwarder.receive_subscribe_namespace(9, world.request(9), (), world.now)
    world.join(1)
    world.announce(1)
    world.leave(1)
    world.wait(1.0)
    world.join(2)
    world.announce(2)
    world.wait(5.0)
    assert listener.verbs() == ["accept", "namespace"]


def test_own_namespaces_are_left_out_where_the_draft_says_so() -> None:
    world = World()
    peer = world.join(1, echoes_namespaces=False)
    world.announce(1)
    world.forwarder.receive_subscribe_namespace(1, world.request(1), (), world.now)
    assert "namespace" not in peer.verbs()


@pytest.mark.parametrize("private", [True, False])
def test_neighbours_hear_of_published_tracks_but_of_private_ones(private: bool) -> None:
    world = World()
    neighbour = FakePeer(1)
    world.forwarder.open_session(9, neighbour, FakeSink(), hop=99)
    world.join(1)
    number = world.request(1)
    world.forwarder.receive_publish(1, number, TRACK, Parameters(), (), world.now, private=private)
    told = [entry for entry in neighbour.said if entry[0] == "publish_namespace"]
    assert len(told) == (0 if private else 1)
    world.forwarder.receive_publish_done(1, number, DoneCode.TRACK_ENDED, 0, "", world.now)
    assert ("cancel" in neighbour.verbs()) is not private
    assert not world.forwarder.origins()
    world.forwarder.check_invariants()
