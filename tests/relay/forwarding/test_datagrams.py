"""Objects in datagrams: who has them when, and the bounds of what waits."""

from __future__ import annotations

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.egress_order import MOST_FANS
from relay.forwarding.peers import DropReason
from tests.relay.forwarding.fakes import ODD_IDS, World
from tradewind.moqt.model import FilterKind, Location, LocationFilter, Parameters


def test_datagrams() -> None:
    world = World()
    ours, _ = world.serve()
    for number in range(3):
        world.datagram(ours, 5, number, b"data")
    world.datagram(ours, 5, 3, b"d" * 5000)
    world.settle()
    assert world.sinks[2].datagrams == [(5, 0, b"data"), (5, 1, b"data"), (5, 2, b"data")]
    assert world.forwarder.statistics().drops[DropReason.DATAGRAM_TOO_LARGE] == 1


def audience(*, size: int) -> tuple[World, int]:
    """A track with so many subscribers, sessions from 2 on; returns our request to its publisher too."""
    world = World()
    ours, _ = world.serve()
    for session in range(3, 2 + size):
        world.join(session)
        world.subscribe(session)
    world.settle()
    return world, ours


def test_the_first_viewer_has_a_datagram_before_the_last_is_looked_at() -> None:
    world, ours = audience(size=4)
    for number in range(2):
        world.datagram(ours, 5, number, b"data")
    outbox = world.forwarder.ready.pop()
    assert outbox is not None and outbox.session == 2
    outbox.fill(world.now)
    assert world.sinks[2].datagrams == [(5, 0, b"data"), (5, 1, b"data")], "what came in one turn goes together"
    assert not any(world.forwarder._book.members[session].outbox.has_work for session in (3, 4, 5))
    world.leave(4)
    assert not world.sinks[4].datagrams
    assert world.sinks[3].datagrams == world.sinks[5].datagrams == world.sinks[2].datagrams


def test_a_storm_of_datagrams_waits_where_it_is_bounded() -> None:
    """Nobody sends for thousands of turns: what is handed out later is no way around each subscriber's bound."""
    world, ours = audience(size=2)
    for number in range(3000):
        world.datagram(ours, 5, number, b"data")
        outbox = world.forwarder.ready.pop()
        if outbox is not None:
            outbox.ready = False
    waiting = [world.forwarder._book.members[session].outbox.waiting_datagrams for session in (2, 3)]
    assert max(waiting) <= ForwardingSettings().max_datagrams
    assert len(world.forwarder.ready._fans) <= MOST_FANS


def test_datagram_queue_is_bounded_and_old_ones_expire() -> None:
    world = World(ForwardingSettings(max_datagrams=10))
    ours, _ = world.serve()
    world.sinks[2].session_bytes = 0
    for number in range(25):
        world.datagram(ours, 5, number, b"data")
    world.settle()
    world.now += 1.0
    world.sinks[2].session_bytes = 1 << 30
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    world.datagram(ours, 6, 0, b"data")
    world.settle()
    drops = world.forwarder.statistics().drops
    assert drops[DropReason.DATAGRAM_QUEUE_FULL] == 15
    assert drops[DropReason.DATAGRAM_EXPIRED] == 10
    assert world.sinks[2].datagrams == [(6, 0, b"data")]


def test_range_filters_of_datagrams_fetches_and_updates() -> None:
    world = World()
    ours, request = world.serve()
    world.forwarder.receive_update(2, request, 2, Parameters(range_filters=ODD_IDS), world.now)
    for number in range(4):
        world.datagram(ours, 5, number, b"data")
    world.settle()
    assert [number for _, number, _ in world.sinks[2].datagrams] == [1, 3]
    world.fetch(2, LocationFilter(FilterKind.ABSOLUTE, start=Location(5, 0)), range_filters=ODD_IDS)
    (out,) = world.sinks[2].streams
    assert out.locations == [Location(5, 1), Location(5, 3)]
    assert out.marks == []
