"""FETCH at one relay: from the cache, from upstream, gaps told truthfully, either order."""

from __future__ import annotations

from tests.relay.forwarding.fakes import World
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FilterKind, GroupOrder, Location, LocationFilter, RangeEnd


def test_fetch_tells_gaps_truthfully() -> None:
    """What the cache does not know is asked upstream; what upstream cannot tell either is marked unknown."""
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3, end_of_group=True)
    world.send(1, stream, 2, b"two")
    world.send(1, stream, 4, b"four", properties=((0x3E, 1),))
    world.close(1, stream)
    world.join(3)
    world.wait(1.0)
    chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(3, 0))
    request = world.fetch(3, chosen)
    assert ("accept_fetch", request, Location(3, 4), False) in world.peers[3].said
    question = world.asked(1, "fetch")
    assert world.sinks[3].streams[0].objects == []
    world.forwarder.receive_error(1, question, RequestCode.NOT_SUPPORTED, "no", world.now)
    world.settle()
    (out,) = world.sinks[3].streams
    assert out.objects == [(2, b"two"), (4, b"four")]
    assert out.marks == [(RangeEnd.UNKNOWN, Location(3, 1))]
    assert out.fin


def test_fetch_is_filled_from_upstream() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 2, b"two")
    world.join(3)
    world.wait(1.0)
    world.fetch(3, LocationFilter(FilterKind.ABSOLUTE, start=Location(2, 0)))
    world.answer_fetch(1, [(Location(2, 0), b"old"), (Location(3, 1), b"one"), (Location(3, 2), b"two")])
    (out,) = world.sinks[3].streams
    assert out.locations == [Location(2, 0), Location(3, 1), Location(3, 2)]
    assert [payload for _, payload in out.objects] == [b"old", b"one", b"two"]
    assert out.marks == []
    assert out.fin
    again = world.fetch(3, LocationFilter(FilterKind.ABSOLUTE, start=Location(2, 0)))
    assert world.peers[1].verbs().count("fetch") == 1
    assert world.sinks[3].streams[1].request == again
    assert world.sinks[3].streams[1].locations == out.locations


def test_fetch_without_waiting_reports_timed_out_gaps() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 2, b"two")
    world.join(3)
    world.fetch(3, LocationFilter(FilterKind.ABSOLUTE, start=Location(3, 0)), fill_timeout_ms=0)
    (out,) = world.sinks[3].streams
    assert out.marks == [(RangeEnd.TIMED_OUT, Location(3, 1))]
    assert out.objects == [(2, b"two")]
    assert out.fin


def test_fetch_of_a_track_nobody_reads_is_passed_on() -> None:
    world = World()
    world.join(1)
    viewer = world.join(3)
    world.announce(1)
    request = world.fetch(3)
    world.answer_fetch(1, [(Location(0, 0), b"hi")], end_of_track=True, properties=((0x0E, 3),))
    assert ("accept_fetch", request, Location(0, 0), True) in viewer.said
    (out,) = world.sinks[3].streams
    assert out.objects == [(0, b"hi")]
    assert out.fin


def test_fetch_of_nothing() -> None:
    world = World()
    viewer = world.join(3)
    request = world.fetch(3)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    world.serve()
    request = world.fetch(3)
    assert viewer.said[-1] == ("reject", request, RequestCode.INVALID_RANGE)


def test_fetch_descending() -> None:
    world = World()
    ours, _ = world.serve()
    for group in (1, 2, 3):
        stream = world.open(1, ours, group=group, end_of_group=True)
        world.send(1, stream, 0, b"a")
        world.send(1, stream, 1, b"b")
        world.close(1, stream)
    world.join(3)
    chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(1, 1), end_group=3, end_object=0)
    world.fetch(3, chosen, order=GroupOrder.DESCENDING)
    (out,) = world.sinks[3].streams
    assert out.locations == [Location(3, 0), Location(2, 0), Location(2, 1), Location(1, 1)]
    assert out.fin
