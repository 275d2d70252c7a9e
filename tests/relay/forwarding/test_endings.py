"""How requests end when somebody does not answer, goes away or says too much; and that nothing of them stays."""

from __future__ import annotations

import pytest

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.discovery import NAMESPACES_AT_ONCE
from relay.forwarding.intake import LONGEST_TIMEOUT_S
from tests.relay.forwarding.fakes import NAMESPACE, TRACK, World
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import FetchObject, FilterKind, GroupOrder, Location, LocationFilter, ObjectHeader, Parameters


def absolute(start: Location, end: Location) -> LocationFilter:
    return LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end.group, end_object=end.object)


def ask_status(world: World) -> tuple[int, int]:
    """TRACK_STATUS of session 2, passed on to session 1; returns both numbers."""
    world.join(1)
    world.join(2)
    world.announce(1)
    theirs = world.request(2)
    world.forwarder.receive_track_status(2, theirs, TRACK, Parameters(), world.now)
    return theirs, world.asked(1, "track_status")


def test_track_status_that_nobody_answers() -> None:
    world = World(ForwardingSettings(answer_timeout_s=2.0))
    theirs, ours = ask_status(world)
    world.wait(3.0)
    assert world.peers[2].said == [("reject", theirs, RequestCode.TIMEOUT)]
    assert ("cancel", ours) in world.peers[1].said
    assert not world.forwarder.requests(1) - {0}
    assert not world.forwarder.requests(2)


def test_track_status_that_nobody_wants_any_more() -> None:
    world = World()
    theirs, ours = ask_status(world)
    world.forwarder.receive_cancel(2, theirs, world.now)
    assert ("cancel", ours) in world.peers[1].said
    world.forwarder.receive_ok(1, ours, Parameters(), (), world.now)
    world.wait(10.0)
    assert world.peers[2].said == []


@pytest.mark.parametrize("leaver", [1, 2])
def test_track_status_and_a_session_that_leaves(leaver: int) -> None:
    world = World()
    theirs, _ = ask_status(world)
    world.leave(leaver)
    world.wait(10.0)
    if leaver == 1:
        assert world.peers[2].said == [("reject", theirs, RequestCode.INTERNAL_ERROR)]


def fetch_two(world: World) -> None:
    """FETCH of session 2, answered by session 1 with two objects."""
    world.fetch(2, absolute(Location(0, 0), Location(0, 1)))
    world.answer_fetch(1, [(Location(0, 0), b"a"), (Location(0, 1), b"b")])


def test_a_track_that_was_only_fetched_is_forgotten() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    fetch_two(world)
    assert world.sinks[2].streams[0].objects == [(0, b"a"), (1, b"b")]
    world.wait(10.0)
    statistics = world.forwarder.statistics()
    assert (statistics.tracks, statistics.cache_bytes) == (0, 0)


def test_a_slow_reader_of_a_fetched_track_gets_all_of_it() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    world.sinks[2].session_bytes = 0
    fetch_two(world)
    world.wait(20.0)
    world.sinks[2].session_bytes = 1 << 30
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    assert world.sinks[2].streams[0].objects == [(0, b"a"), (1, b"b")]
    world.wait(20.0)
    assert world.forwarder.statistics().tracks == 0


def test_the_same_range_is_asked_for_once() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=9)
    world.send(1, stream, 0, b"now")
    world.wait(1.0)
    for viewer in range(3, 8):
        world.join(viewer)
        world.fetch(viewer, absolute(Location(2, 0), Location(4, 0)))
    assert world.peers[1].verbs().count("fetch") == 1
    for viewer in range(3, 7):
        world.leave(viewer)
    assert "cancel" not in world.peers[1].verbs()
    world.leave(7)
    assert ("cancel", world.asked(1, "fetch")) in world.peers[1].said, "the last one has gone"


def test_half_a_fetched_object_does_not_wait_for_ever() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=9)
    world.send(1, stream, 0, b"now")
    world.wait(1.0)
    world.join(3)
    number = world.fetch(3, absolute(Location(2, 0), Location(2, 0)))
    fetch = world.asked(1, "fetch")
    world.forwarder.intake.receive_fetch_stream(1, 900, fetch)
    world.forwarder.intake.receive_fetched(1, 900, FetchObject(2, 0, ObjectHeader(0, 10), 9), world.now)
    world.forwarder.intake.receive_data(1, 900, b"half", False, world.now)
    world.settle()
    assert world.sinks[3].streams[0].objects == [(0, b"half")]
    world.forwarder.intake.receive_fetch_end(1, 900, fetch, ResetCode.INTERNAL_ERROR, world.now)
    world.settle()
    assert world.sinks[3].streams[0].code is not None
    assert ("finish", number) in world.peers[3].said


def test_an_offer_that_nobody_answers_is_taken_back() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.forwarder.receive_subscribe_tracks(2, world.request(2), NAMESPACE, Parameters(), world.now)
    published = world.publish(1)
    offered = world.asked(2, "publish")
    world.forwarder.receive_publish_done(1, published, DoneCode.TRACK_ENDED, 0, "", world.now)
    assert ("publish_done", offered, DoneCode.TRACK_ENDED, 0) in world.peers[2].said
    assert offered not in world.forwarder.requests(2)


def test_what_is_here_when_a_descending_fetch_gets_there() -> None:
    """Groups 3 and 8: while 8 is sent nothing is known of 3, and then it is here."""
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=8)
    world.send(1, stream, 0, b"eight")
    world.wait(1.0)
    world.join(3)
    world.sinks[3].session_bytes = 30
    world.fetch(3, absolute(Location(3, 0), Location(8, 0)), order=GroupOrder.DESCENDING, fill_timeout_ms=0)
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 0, b"three")
    world.sinks[3].session_bytes = 1 << 30
    world.forwarder._book.members[3].outbox.mark()
    world.settle()
    (out,) = world.sinks[3].streams
    marks = [location for _, location in out.marks]
    assert Location(3, 0) not in marks or Location(3, 0) not in out.locations, "either it is here or it is unknown"
    assert out.fin


def test_a_timeout_of_a_thousand_years_keeps_nothing() -> None:
    world = World()
    ours, _ = world.serve()
    viewer = world.subscribe(2, parameters=Parameters(subgroup_timeout_ms=10**15))
    assert viewer
    for group in range(5):
        stream = world.open(1, ours, group=group)
        world.send(1, stream, 0, b"x")
        world.close(1, stream)
    world.wait(LONGEST_TIMEOUT_S)
    assert world.forwarder.next_deadline() is None


def test_streams_of_a_cancelled_subscription_are_forgotten() -> None:
    """The session stops them without a word: nobody will tell that they ended."""
    world = World(ForwardingSettings(linger_s=1.0))
    ours, theirs = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"x")
    world.forwarder.receive_cancel(2, theirs, world.now)
    world.wait(2.0)
    assert ("cancel", ours) in world.peers[1].said
    assert world.forwarder._book.members[1].inlets == {}
    assert world.forwarder.statistics().tracks == 0


def test_ten_thousand_namespaces_are_told_in_slices() -> None:
    """Whoever asks for all of them holds nobody up, and hears of none that has gone meanwhile."""
    world = World()
    world.join(1)
    world.join(2)
    requests = {number: world.announce(1, (b"n", b"%d" % number)) for number in range(1000)}
    interest = world.request(2)
    world.forwarder.receive_subscribe_namespace(2, interest, (), world.now)
    told = [entry for entry in world.peers[2].said if entry[0] == "namespace"]
    assert len(told) == NAMESPACES_AT_ONCE
    world.forwarder.receive_cancel(1, requests[999], world.now)
    world.wait(1.0)
    names = [entry[2] for entry in world.peers[2].said if entry[0] == "namespace"]
    assert len(names) == len(set(names)) == 999
    assert world.forwarder.next_deadline() is None


def test_who_stops_asking_is_told_no_more() -> None:
    world = World()
    world.join(1)
    world.join(2)
    for number in range(1000):
        world.announce(1, (b"n", b"%d" % number))
    interest = world.request(2)
    world.forwarder.receive_subscribe_namespace(2, interest, (), world.now)
    world.forwarder.receive_cancel(2, interest, world.now)
    world.wait(1.0)
    assert len([entry for entry in world.peers[2].said if entry[0] == "namespace"]) == NAMESPACES_AT_ONCE
