"""Late joiners: fills, joining FETCH, and players that want the start of the group."""

from __future__ import annotations

from tests.relay.forwarding.fakes import World
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import CURRENT_GROUP, NEXT_OBJECT, Fill, Location, Parameters

FILLED = Parameters(filter=NEXT_OBJECT, fill=Fill(CURRENT_GROUP))


def test_late_joiner_with_fill_gets_the_current_group() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"one")
    world.join(3)
    request = world.subscribe(3, parameters=FILLED)
    world.settle()
    world.send(1, stream, 2, b"two")
    fill, live = world.sinks[3].streams
    assert fill.request == request
    assert fill.objects == [(0, b"key"), (1, b"one")]
    assert fill.fin
    assert fill.marks == []
    assert live.objects == [(2, b"two")]
    assert live.header is not None
    assert not live.header.first_object


def test_late_joiner_without_fill_starts_with_the_next_object() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 0, b"key")
    world.join(3)
    world.subscribe(3, parameters=Parameters(filter=NEXT_OBJECT))
    world.send(1, stream, 1, b"one")
    (live,) = world.sinks[3].streams
    assert live.objects == [(1, b"one")]


def test_quirk_joins_at_the_start_of_the_group() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3, first_object=True)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"one")
    world.join(3, joins_at_group_start=True)
    world.subscribe(3, parameters=Parameters(filter=NEXT_OBJECT))
    world.send(1, stream, 2, b"two")
    (live,) = world.sinks[3].streams
    assert live.objects == [(0, b"key"), (1, b"one"), (2, b"two")]


def test_quirk_fetches_the_start_of_the_group_where_the_publisher_does_not_bring_it() -> None:
    """A catalogue that was published once: without its first object such a player never starts."""
    world = World()
    world.serve(parameters=Parameters(filter=NEXT_OBJECT), largest=Location(7, 1), joins_at_group_start=True)
    world.wait(0.3)
    world.answer_fetch(1, [(Location(7, 0), b"catalogue"), (Location(7, 1), b"delta")])
    (live,) = world.sinks[2].streams
    assert live.objects == [(0, b"catalogue"), (1, b"delta")]


def test_joining_fetch_ends_where_the_subscription_began() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"one")
    world.join(3)
    joined = world.subscribe(3, parameters=Parameters(filter=NEXT_OBJECT))
    world.send(1, stream, 2, b"two")
    fetch = world.request(3)
    world.forwarder.receive_joining_fetch(3, fetch, joined, None, 0, Parameters(), world.now)
    world.settle()
    assert ("accept_fetch", fetch, Location(3, 1), False) in world.peers[3].said
    live, past = world.sinks[3].streams
    assert live.objects == [(2, b"two")]
    assert past.objects == [(0, b"key"), (1, b"one")]
    assert past.fin


def test_joining_fetch_of_nothing() -> None:
    world = World()
    peer = world.join(3)
    world.forwarder.receive_joining_fetch(3, 0, 44, None, 0, Parameters(), world.now)
    assert peer.said == [("reject", 0, RequestCode.INVALID_JOINING_REQUEST_ID)]


def test_fill_waits_for_what_the_new_upstream_subscription_brings() -> None:
    """The first viewer asks for the current group: the publisher sends it unasked, and no FETCH goes up."""
    world = World()
    ours, _ = world.serve(parameters=FILLED, largest=Location(5, 1))
    stream = world.open(1, ours, group=5)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"one")
    world.send(1, stream, 2, b"two")
    fill, live = sorted(world.sinks[2].streams, key=lambda out: out.request is None)
    assert fill.objects == [(0, b"key"), (1, b"one")]
    assert fill.fin
    assert live.objects == [(2, b"two")]
    world.wait(5.0)
    assert "fetch" not in world.peers[1].verbs()


def test_fill_is_fetched_where_the_publisher_brings_nothing() -> None:
    world = World()
    world.serve(parameters=FILLED, largest=Location(5, 1))
    world.wait(0.3)
    world.answer_fetch(1, [(Location(5, number), b"x") for number in (0, 1)])
    (fill,) = world.sinks[2].streams
    assert fill.objects == [(0, b"x"), (1, b"x")]
    assert fill.fin
