"""One relay's forwarding, told as short stories between publishers and viewers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CacheLimits
from relay.forwarding.egress_order import MOST_FANS
from relay.forwarding.peers import DropReason
from tests.relay.forwarding.fakes import NAMESPACE, TRACK, FakePeer, FakeSink, World
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_OBJECT,
    DatagramObject,
    FetchObject,
    Fill,
    FilterKind,
    FilterSubject,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    ObjectHeader,
    ObjectStatus,
    Parameters,
    RangeEnd,
    RangeFilter,
)


def test_one_upstream_subscription_however_many_viewers() -> None:
    world = World()
    ours, _ = world.serve()
    for viewer in range(3, 8):
        world.join(viewer)
        world.subscribe(viewer)
    assert world.peers[1].verbs().count("subscribe") == 1
    stream = world.open(1, ours, group=4)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"delta")
    world.close(1, stream)
    for viewer in range(2, 8):
        (out,) = world.sinks[viewer].streams
        assert out.objects == [(0, b"key"), (1, b"delta")]
        assert out.fin


def test_viewers_wait_for_subscribe_ok() -> None:
    world = World()
    world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    assert viewer.said == []
    world.agree(1, largest=Location(3, 9), properties=((0x0E, 7), (0x21, b"x")))
    assert viewer.said == [("accept_subscribe", request, Location(3, 9), ((0x0E, 7), (0x21, b"x")))]


def test_refusal_is_passed_on() -> None:
    world = World()
    world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    world.forwarder.receive_error(1, world.asked(1), RequestCode.DOES_NOT_EXIST, "no", world.now)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    assert world.forwarder.statistics().tracks == 0


def test_nobody_publishes() -> None:
    world = World()
    viewer = world.join(2)
    request = world.subscribe(2)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    assert world.forwarder.statistics().tracks == 0


def test_rendezvous_waits_for_a_publisher_and_gives_up_in_time() -> None:
    world = World()
    viewer = world.join(2)
    request = world.subscribe(2, parameters=Parameters(rendezvous_timeout_ms=3000))
    other = world.subscribe(2, FullTrackName(NAMESPACE, b"other"), Parameters(rendezvous_timeout_ms=1000))
    world.wait(1.5)
    assert viewer.said == [("reject", other, RequestCode.TIMEOUT)]
    world.join(1)
    world.announce(1)
    world.agree(1)
    assert viewer.said[-1][:2] == ("accept_subscribe", request)


def test_publisher_that_never_answers() -> None:
    world = World()
    publisher = world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    world.wait(10)
    assert viewer.said == [("reject", request, RequestCode.TIMEOUT)]
    assert "cancel" in publisher.verbs()


def test_pieces_go_out_as_they_come() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"0123456789", upto=4)
    assert world.sinks[2].streams[0].objects == [(0, b"0123")]
    world.more(1, stream, b"456789")
    assert world.sinks[2].streams[0].objects == [(0, b"0123456789")]
    assert not world.sinks[2].streams[0].fin


@pytest.mark.parametrize("cut", range(1, 31))
def test_upstream_cut_at_every_byte_of_three_objects(cut: int) -> None:
    """A publisher dies after `cut` bytes; another one, or itself come back, sends the subgroup again from its start."""
    world = World()
    ours, _ = world.serve()
    objects = [b"first-----", b"second----", b"third-----"]
    stream = world.open(1, ours, group=7, first_object=True)
    sent = 0
    for number, payload in enumerate(objects):
        if sent <= cut:
            world.send(1, stream, number, payload, upto=min(len(payload), cut - sent))
        sent += len(payload)
    world.leave(1)
    (out,) = world.sinks[2].streams
    assert b"".join(payload for _, payload in out.objects) == b"".join(objects)[:cut]
    assert not out.fin
    assert out.code is None

    world.wait(1.0)
    world.join(3)
    world.announce(3)
    again = world.agree(3)
    stream = world.open(3, again, group=7, first_object=True)
    for number, payload in enumerate(objects):
        world.send(3, stream, number, payload)
    world.close(3, stream)
    (out,) = world.sinks[2].streams
    assert out.objects == list(enumerate(objects))
    assert out.fin
    assert "publish_done" not in world.peers[2].verbs()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_sources_merge_by_byte_in_any_interleaving(data: st.DataObject) -> None:
    """Two publishers send the same subgroup, each cut into pieces anyhow: a viewer gets each byte once, in order."""
    world = World()
    ours, _ = world.serve()
    world.join(3)
    world.announce(3)
    theirs = world.agree(3)
    payloads = data.draw(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4))
    scripts = {}
    for session, request in ((1, ours), (3, theirs)):
        steps: list[tuple[int, bytes | None]] = []
        for number, payload in enumerate(payloads):
            steps.append((number, None))
            position = 0
            while position < len(payload):
                size = data.draw(st.integers(1, len(payload) - position))
                steps.append((number, payload[position : position + size]))
                position += size
        scripts[session] = (world.open(session, request, group=1), steps)
    while any(steps for _, steps in scripts.values()):
        session = data.draw(st.sampled_from([key for key, (_, steps) in scripts.items() if steps]))
        stream, steps = scripts[session]
        number, piece = steps.pop(0)
        if piece is None:
            header = ObjectHeader(number, len(payloads[number]))
            world.forwarder.receive_object(session, stream, header, world.now)
            world.settle()
        else:
            world.more(session, stream, piece, last=False)
        if not steps:
            world.close(session, stream)
    (out,) = world.sinks[2].streams
    assert out.objects == list(enumerate(payloads))
    assert out.fin


@pytest.mark.parametrize("change", ["payload", "length", "status"])
def test_sources_that_contradict_each_other_end_the_track(change: str) -> None:
    world = World()
    ours, request = world.serve()
    world.join(3)
    world.announce(3)
    theirs = world.agree(3)
    first = world.open(1, ours, group=1)
    world.send(1, first, 0, b"same")
    second = world.open(3, theirs, group=1)
    if change == "status":
        world.send(3, second, 0, b"", status=ObjectStatus.END_OF_GROUP)
    else:
        world.send(3, second, 0, b"diff" if change == "payload" else b"longer")
    assert ("publish_done", request, DoneCode.MALFORMED_TRACK, 1) in world.peers[2].said
    assert world.sinks[2].streams[0].code == ResetCode.MALFORMED_TRACK
    assert ("cancel", ours) in world.peers[1].said
    assert ("cancel", theirs) in world.peers[3].said


def test_object_after_the_end_of_its_group() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=1, end_of_group=True)
    world.send(1, stream, 0, b"only")
    world.close(1, stream)
    stream = world.open(1, ours, group=1, subgroup=5)
    world.send(1, stream, 5, b"impossible")
    assert ("publish_done", request, DoneCode.MALFORMED_TRACK, 1) in world.peers[2].said


def test_stream_is_broken_where_an_object_may_be_missing() -> None:
    """The draft's next-Object rule: ids 0 and 3 from different upstream streams cannot share one downstream stream."""
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"zero")
    world.leave(1)
    world.join(3)
    world.announce(3)
    again = world.agree(3)
    stream = world.open(3, again, group=1)
    world.send(3, stream, 3, b"three")
    world.send(3, stream, 5, b"five")
    first, second = world.sinks[2].streams
    assert first.objects == [(0, b"zero")]
    assert first.code == ResetCode.CANCELLED
    assert second.objects == [(3, b"three"), (5, b"five")]
    assert second.code is None


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


def test_publish_done_waits_for_the_streams_it_counts() -> None:
    world = World()
    ours, request = world.serve()
    world.forwarder.receive_publish_done(1, ours, DoneCode.TRACK_ENDED, 1, "", world.now)
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"late")
    assert "publish_done" not in world.peers[2].verbs()
    world.close(1, stream)
    assert world.sinks[2].streams[0].fin
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 1) in world.peers[2].said


def test_reset_upstream_is_reset_downstream_after_what_came() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"whole")
    world.send(1, stream, 1, b"half-", upto=2)
    world.close(1, stream, ResetCode.DELIVERY_TIMEOUT)
    (out,) = world.sinks[2].streams
    assert out.objects == [(0, b"whole"), (1, b"ha")]
    assert out.code == ResetCode.DELIVERY_TIMEOUT


def test_slow_viewer_skips_to_the_newest_group_and_stalls_nobody() -> None:
    world = World(ForwardingSettings(max_lag_s=2.0))
    ours, _ = world.serve()
    world.join(3)
    world.subscribe(3)
    slow = world.sinks[2]
    slow.session_bytes = 0
    for group in range(6):
        stream = world.open(1, ours, group=group)
        world.send(1, stream, 0, b"frame")
        world.close(1, stream)
        world.wait(1.0)
    assert [out.objects for out in world.sinks[3].streams] == [[(0, b"frame")]] * 6
    assert slow.streams == []
    slow.session_bytes = 1 << 30
    stream = world.open(1, ours, group=6)
    world.send(1, stream, 0, b"frame")
    assert [out.header.group for out in slow.streams if out.header] == [4, 5, 6]
    assert world.forwarder.statistics().drops[DropReason.TOO_FAR_BEHIND] == 4


def test_cache_is_bounded_and_a_reader_of_what_went_is_told() -> None:
    limits = CacheLimits(total_bytes=1 << 20, track_bytes=8_000, track_groups=4, age_s=1e9)
    world = World(ForwardingSettings(cache=limits, max_lag_s=1e9))
    ours, _ = world.serve()
    slow = world.sinks[2]
    slow.session_bytes = 0
    for group in range(50):
        stream = world.open(1, ours, group=group)
        world.send(1, stream, 0, b"x" * 1000)
        world.close(1, stream)
        assert world.forwarder.statistics().cache_bytes <= 8_000 + 2 * 1600
    assert len(world.forwarder._book.members[2].outbox._heap) <= 8
    slow.session_bytes = 1 << 30
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    assert world.forwarder.statistics().drops[DropReason.EVICTED] >= 44
    assert [out.header.group for out in slow.streams if out.header] == [46, 47, 48, 49]


def test_endless_group_is_trimmed() -> None:
    limits = CacheLimits(track_bytes=50_000)
    world = World(ForwardingSettings(cache=limits))
    ours, _ = world.serve()
    slow = world.sinks[2]
    slow.session_bytes = 0
    stream = world.open(1, ours, group=0)
    for number in range(1000):
        world.send(1, stream, number, b"x" * 500)
    assert world.forwarder.statistics().cache_bytes <= 52_000
    slow.session_bytes = 1 << 30
    world.settle()
    world.send(1, stream, 1000, b"end")
    assert slow.streams[-1].objects[-1] == (1000, b"end")
    ids = [number for number, _ in slow.streams[-1].objects]
    assert ids == list(range(ids[0], 1001))


def test_stopped_stream_is_not_opened_again() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"a")
    world.sinks[2].stopped.add(0)
    world.send(1, stream, 1, b"b")
    world.send(1, stream, 2, b"c")
    assert len(world.sinks[2].streams) == 1
    assert world.forwarder.statistics().drops[DropReason.STOPPED] == 1


def test_object_delivery_timeout() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(object_timeout_ms=500))
    ours = world.agree(1)
    sink = world.sinks[2]
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"fresh")
    sink.session_bytes = 0
    world.send(1, stream, 1, b"stale")
    world.wait(0.6)
    sink.session_bytes = 1 << 30
    world.send(1, stream, 2, b"next")
    (out,) = sink.streams
    assert out.objects == [(0, b"fresh")]
    assert out.code == ResetCode.DELIVERY_TIMEOUT


def test_subgroup_delivery_timeout_resets_what_is_not_acknowledged() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(subgroup_timeout_ms=300))
    ours = world.agree(1)
    sink = world.sinks[2]
    sink.session_bytes = 5_000
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"x" * 20_000)
    world.close(1, stream)
    world.wait(0.2)
    assert sink.streams[0].code is None
    world.wait(0.2)
    assert sink.streams[0].code == ResetCode.DELIVERY_TIMEOUT


def test_datagrams() -> None:
    world = World()
    ours, _ = world.serve()
    for number in range(3):
        found = DatagramObject(1, 5, ObjectHeader(number, 4), None, False, b"data")
        world.forwarder.receive_datagram(1, (ours,), found, world.now)
    found = DatagramObject(1, 5, ObjectHeader(3, 5000), None, False, b"d" * 5000)
    world.forwarder.receive_datagram(1, (ours,), found, world.now)
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
        found = DatagramObject(1, 5, ObjectHeader(number, 4), None, False, b"data")
        world.forwarder.receive_datagram(1, (ours,), found, world.now)
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
        found = DatagramObject(1, 5, ObjectHeader(number, 4), None, False, b"data")
        world.forwarder.receive_datagram(1, (ours,), found, world.now)
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
        found = DatagramObject(1, 5, ObjectHeader(number, 4), None, False, b"data")
        world.forwarder.receive_datagram(1, (ours,), found, world.now)
    world.settle()
    world.now += 1.0
    world.sinks[2].session_bytes = 1 << 30
    found = DatagramObject(1, 6, ObjectHeader(0, 4), None, False, b"data")
    for outbox in [world.forwarder._book.members[2].outbox]:
        outbox.mark()
    world.settle()
    world.forwarder.receive_datagram(1, (ours,), found, world.now)
    world.settle()
    drops = world.forwarder.statistics().drops
    assert drops[DropReason.DATAGRAM_QUEUE_FULL] == 15
    assert drops[DropReason.DATAGRAM_EXPIRED] == 10
    assert world.sinks[2].datagrams == [(6, 0, b"data")]


def test_draft_order_between_streams() -> None:
    """Subscriber priority, then publisher priority, then group order, then subgroup id."""
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    tracks = [FullTrackName(NAMESPACE, name) for name in (b"low", b"high")]
    world.subscribe(2, tracks[0], Parameters(priority=200))
    low = world.agree(1)
    world.subscribe(2, tracks[1], Parameters(priority=10, order=GroupOrder.DESCENDING))
    high = world.agree(1)
    sink = world.sinks[2]
    sink.session_bytes = 0
    for request, group, subgroup, priority in [
        (low, 1, 0, 0),
        (high, 1, 1, 50),
        (high, 1, 0, 50),
        (high, 2, 0, 50),
        (high, 0, 3, 40),
    ]:
        stream = world.open(1, request, group, subgroup, priority=priority)
        world.send(1, stream, subgroup, b"x" * 100)
    sink.session_bytes = 1 << 30
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    seen = [(out.header.alias, out.header.group, out.header.subgroup) for out in sink.streams if out.header]
    aliases = {track.name.name: track.alias for track in world.forwarder._book.tracks.values()}
    assert seen == [
        (aliases[b"high"], 0, 3),
        (aliases[b"high"], 2, 0),
        (aliases[b"high"], 1, 0),
        (aliases[b"high"], 1, 1),
        (aliases[b"low"], 1, 0),
    ]


def test_equal_subscriptions_share_the_link() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    requests = []
    for name in (b"a", b"b"):
        world.subscribe(2, FullTrackName(NAMESPACE, name))
        requests.append(world.agree(1))
    sink = world.sinks[2]
    sink.session_bytes = 0
    for request in requests:
        stream = world.open(1, request, group=1)
        world.send(1, stream, 0, b"x" * 200_000)
    outbox = world.forwarder._book.members[2].outbox
    for _ in range(6):
        sink.session_bytes = 16_384
        outbox.mark()
        world.settle()
    sizes = sorted(len(out.objects[0][1]) for out in sink.streams)
    assert len(sizes) == 2
    assert sizes[1] - sizes[0] <= 16_384 * 1.1


def test_blocked_stream_does_not_hold_up_another() -> None:
    world = World()
    ours, _ = world.serve()
    first = world.open(1, ours, group=1)
    world.send(1, first, 0, b"a")
    world.sinks[2].stuck.add(0)
    world.send(1, first, 1, b"b")
    second = world.open(1, ours, group=2)
    world.send(1, second, 0, b"c")
    assert world.sinks[2].streams[0].objects == [(0, b"a")]
    assert world.sinks[2].streams[1].objects == [(0, b"c")]


def test_no_stream_credit_waits() -> None:
    world = World()
    ours, _ = world.serve()
    sink = world.sinks[2]
    sink.credit = 0
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"a")
    assert sink.streams == []
    sink.credit = 1
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    assert sink.streams[0].objects == [(0, b"a")]


def test_late_joiner_with_fill_gets_the_current_group() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"one")
    world.join(3)
    request = world.subscribe(3, parameters=Parameters(filter=NEXT_OBJECT, fill=Fill(CURRENT_GROUP)))
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
    world.join(1)
    world.join(2, joins_at_group_start=True)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(filter=NEXT_OBJECT))
    world.agree(1, largest=Location(7, 1))
    world.wait(0.3)
    question = world.asked(1, "fetch")
    world.forwarder.receive_fetch_ok(1, question, Location(7, 1), False, (), world.now)
    world.forwarder.receive_fetch_stream(1, 900, question)
    for number, payload in enumerate((b"catalogue", b"delta")):
        found = FetchObject(7, 0, ObjectHeader(number, len(payload)), 128)
        world.forwarder.receive_fetched(1, 900, found, world.now)
        world.forwarder.receive_data(1, 900, payload, True, world.now)
    world.forwarder.receive_fetch_end(1, 900, question, None, world.now)
    world.settle()
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
    world.join(3)
    world.announce(3)
    again = world.agree(3)
    stream = world.open(3, again, group=0)
    world.send(3, stream, 0, b"new life")
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 3) in world.peers[2].said
    assert listener.verbs() == ["accept", "namespace", "namespace_done", "namespace"]
    world.join(4)
    world.subscribe(4)
    world.send(3, stream, 1, b"goes on")
    assert world.sinks[4].streams[0].objects == [(1, b"goes on")]


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


def test_publisher_that_begins_anew_in_the_same_group() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"old life")
    world.leave(1)
    world.join(3)
    world.announce(3)
    again = world.agree(3)
    stream = world.open(3, again, group=0)
    world.send(3, stream, 0, b"new life")
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 1) in world.peers[2].said
    world.join(4)
    world.subscribe(4)
    stream = world.open(3, again, group=1)
    world.send(3, stream, 0, b"goes on")
    assert world.sinks[4].streams[0].objects == [(0, b"goes on")]


def test_fill_waits_for_what_the_new_upstream_subscription_brings() -> None:
    """The first viewer asks for the current group: the publisher sends it unasked, and no FETCH goes up."""
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(filter=NEXT_OBJECT, fill=Fill(CURRENT_GROUP)))
    ours = world.agree(1, largest=Location(5, 1))
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
    world.join(1)
    world.join(2)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(filter=NEXT_OBJECT, fill=Fill(CURRENT_GROUP)))
    world.agree(1, largest=Location(5, 1))
    world.wait(0.3)
    question = world.asked(1, "fetch")
    world.forwarder.receive_fetch_ok(1, question, Location(5, 1), False, (), world.now)
    world.forwarder.receive_fetch_stream(1, 900, question)
    for number in (0, 1):
        world.forwarder.receive_fetched(1, 900, FetchObject(5, 0, ObjectHeader(number, 1), 128), world.now)
        world.forwarder.receive_data(1, 900, b"x", True, world.now)
    world.forwarder.receive_fetch_end(1, 900, question, None, world.now)
    world.settle()
    (fill,) = world.sinks[2].streams
    assert fill.objects == [(0, b"x"), (1, b"x")]
    assert fill.fin


ALL = LocationFilter(FilterKind.NONE)


def fetch(world: World, session: int, chosen: LocationFilter = ALL, **fields: object) -> int:
    number = world.request(session)
    parameters = Parameters(**fields)  # type: ignore[arg-type]
    world.forwarder.receive_fetch(session, number, TRACK, chosen, parameters, world.now)
    world.settle()
    return number


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
    request = fetch(world, 3, chosen)
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
    fetch(world, 3, LocationFilter(FilterKind.ABSOLUTE, start=Location(2, 0)))
    question = world.asked(1, "fetch")
    world.forwarder.receive_fetch_ok(1, question, Location(3, 2), False, (), world.now)
    world.forwarder.receive_fetch_stream(1, 900, question)
    for group, number, payload in ((2, 0, b"old"), (3, 1, b"one"), (3, 2, b"two")):
        found = FetchObject(group, 0, ObjectHeader(number, len(payload)), 128)
        world.forwarder.receive_fetched(1, 900, found, world.now)
        world.forwarder.receive_data(1, 900, payload, True, world.now)
        world.settle()
    world.forwarder.receive_fetch_end(1, 900, question, None, world.now)
    world.settle()
    (out,) = world.sinks[3].streams
    assert out.locations == [Location(2, 0), Location(3, 1), Location(3, 2)]
    assert [payload for _, payload in out.objects] == [b"old", b"one", b"two"]
    assert out.marks == []
    assert out.fin
    again = fetch(world, 3, LocationFilter(FilterKind.ABSOLUTE, start=Location(2, 0)))
    assert world.peers[1].verbs().count("fetch") == 1
    assert world.sinks[3].streams[1].request == again
    assert world.sinks[3].streams[1].locations == out.locations


def test_fetch_without_waiting_reports_timed_out_gaps() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=3)
    world.send(1, stream, 2, b"two")
    world.join(3)
    fetch(world, 3, LocationFilter(FilterKind.ABSOLUTE, start=Location(3, 0)), fill_timeout_ms=0)
    (out,) = world.sinks[3].streams
    assert out.marks == [(RangeEnd.TIMED_OUT, Location(3, 1))]
    assert out.objects == [(2, b"two")]
    assert out.fin


def test_fetch_of_a_track_nobody_reads_is_passed_on() -> None:
    world = World()
    world.join(1)
    viewer = world.join(3)
    world.announce(1)
    request = fetch(world, 3)
    question = world.asked(1, "fetch")
    world.forwarder.receive_fetch_ok(1, question, Location(0, 0), True, ((0x0E, 3),), world.now)
    world.forwarder.receive_fetch_stream(1, 900, question)
    world.forwarder.receive_fetched(1, 900, FetchObject(0, 0, ObjectHeader(0, 2), 128), world.now)
    world.forwarder.receive_data(1, 900, b"hi", True, world.now)
    world.forwarder.receive_fetch_end(1, 900, question, None, world.now)
    world.settle()
    assert ("accept_fetch", request, Location(0, 0), True) in viewer.said
    (out,) = world.sinks[3].streams
    assert out.objects == [(0, b"hi")]
    assert out.fin


def test_fetch_of_nothing() -> None:
    world = World()
    viewer = world.join(3)
    request = fetch(world, 3)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    world.serve()
    request = fetch(world, 3)
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
    fetch(world, 3, chosen, order=GroupOrder.DESCENDING)
    (out,) = world.sinks[3].streams
    assert out.locations == [Location(3, 0), Location(2, 0), Location(2, 1), Location(1, 1)]
    assert out.fin


ODD_IDS = tuple(RangeFilter(FilterSubject.OBJECT_ID, set_id, None, ((2 * set_id + 1,) * 2,)) for set_id in range(3))


def test_range_filters_thin_a_stream_without_breaking_it() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    world.subscribe(2, parameters=Parameters(range_filters=ODD_IDS))
    ours = world.agree(1)
    stream = world.open(1, ours, group=0)
    for number in range(6):
        world.send(1, stream, number, b"x" * 10, upto=5 if number == 4 else None)
        if number == 4:
            assert world.sinks[2].streams[0].objects == [(1, b"x" * 10), (3, b"x" * 10)]
            world.more(1, stream, b"x" * 5)
    world.close(1, stream)
    (out,) = world.sinks[2].streams
    assert out.objects == [(1, b"x" * 10), (3, b"x" * 10), (5, b"x" * 10)]
    assert out.fin


def test_range_filters_of_datagrams_fetches_and_updates() -> None:
    world = World()
    ours, request = world.serve()
    world.forwarder.receive_update(2, request, 2, Parameters(range_filters=ODD_IDS), world.now)
    for number in range(4):
        found = DatagramObject(1, 5, ObjectHeader(number, 4), None, False, b"data")
        world.forwarder.receive_datagram(1, (ours,), found, world.now)
    world.settle()
    assert [number for _, number, _ in world.sinks[2].datagrams] == [1, 3]
    fetch(world, 2, LocationFilter(FilterKind.ABSOLUTE, start=Location(5, 0)), range_filters=ODD_IDS)
    (out,) = world.sinks[2].streams
    assert out.locations == [Location(5, 1), Location(5, 3)]
    assert out.marks == []


def test_tracks_are_offered_by_their_properties() -> None:
    world = World()
    world.join(2)
    wanted = RangeFilter(FilterSubject.TRACK_PROPERTY, 0, 8, ((1, 1),))
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (), Parameters(range_filters=(wanted,)), world.now)
    world.join(1)
    for name, value in ((b"no", 0), (b"yes", 1)):
        track = FullTrackName(NAMESPACE, name)
        world.forwarder.receive_publish(1, world.request(1), track, Parameters(), ((8, value),), world.now)
    offered = [entry[2] for entry in world.peers[2].said if entry[0] == "publish"]
    assert offered == [FullTrackName(NAMESPACE, b"yes")]


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


def test_publish_reaches_who_subscribed_to_tracks() -> None:
    world = World()
    viewer = world.join(2)
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (b"live",), Parameters(), world.now)
    publisher = world.join(1)
    ours = world.publish(1)
    assert publisher.said[0][:2] == ("accept", ours)
    offered = world.asked(2, "publish")
    world.forwarder.receive_ok(2, offered, Parameters(), (), world.now)
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"hello")
    assert world.sinks[2].streams[0].objects == [(0, b"hello")]
    assert viewer.verbs().count("publish") == 1


def test_publish_answers_a_waiting_subscribe_and_is_not_offered_to_it() -> None:
    world = World()
    viewer = world.join(2)
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (b"live",), Parameters(), world.now)
    request = world.subscribe(2, parameters=Parameters(rendezvous_timeout_ms=5000))
    world.join(1)
    world.publish(1)
    assert ("accept_subscribe", request, None, ()) in viewer.said
    assert "publish" not in viewer.verbs()


def test_forward_is_asked_for_when_somebody_wants_objects() -> None:
    world = World()
    publisher = world.join(1)
    ours = world.publish(1, parameters=Parameters(forward=False))
    world.join(2)
    request = world.subscribe(2, parameters=Parameters(forward=False))
    assert "update" not in publisher.verbs()
    world.forwarder.receive_update(2, request, 2, Parameters(forward=True), world.now)
    assert ("update", ours, Parameters(forward=True)) in publisher.said
    assert ("accept_update", request, 2, None) in world.peers[2].said


def test_forward_zero_sends_nothing() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"a")
    world.forwarder.receive_update(2, request, 2, Parameters(forward=False), world.now)
    world.send(1, stream, 1, b"b")
    assert world.sinks[2].streams[0].objects == [(0, b"a")]
    assert world.sinks[2].streams[0].code == ResetCode.CANCELLED
    world.forwarder.receive_update(2, request, 4, Parameters(forward=True), world.now)
    world.send(1, stream, 2, b"c")
    assert world.sinks[2].streams[1].objects == [(2, b"c")]


def test_last_viewer_leaves_and_upstream_follows_after_a_while() -> None:
    world = World(ForwardingSettings(linger_s=2.0))
    ours, request = world.serve()
    world.forwarder.receive_cancel(2, request, world.now)
    world.wait(1.0)
    assert "cancel" not in world.peers[1].verbs()
    world.wait(1.5)
    assert ("cancel", ours) in world.peers[1].said
    assert world.forwarder.statistics().tracks == 0


def test_second_publisher_of_the_namespace_is_subscribed_as_well() -> None:
    world = World()
    world.serve()
    world.join(3)
    world.announce(3)
    assert world.asked(3) is not None


def test_duplicate_subscription_where_the_draft_forbids_it() -> None:
    world = World()
    world.serve(shares_subscriptions=False)
    request = world.subscribe(2)
    assert world.peers[2].said[-1] == ("reject", request, RequestCode.DUPLICATE_SUBSCRIPTION)


def test_new_group_request_goes_up_once() -> None:
    world = World()
    world.join(1)
    world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    ours = world.agree(1, largest=Location(4, 0), properties=((0x30, 1),))
    for update in (2, 4):
        world.forwarder.receive_update(2, request, update, Parameters(new_group=5), world.now)
    wishes = [entry for entry in world.peers[1].said if entry[0] == "update"]
    assert wishes == [("update", ours, Parameters(new_group=5))]


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


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_viewer_gets_whole_objects_in_order(data: st.DataObject) -> None:
    """Whatever room a viewer has and whenever: on each stream ids ascend, and each object but the last is whole."""
    world = World(ForwardingSettings(max_lag_s=0.3, cache=CacheLimits(track_groups=3, track_bytes=6000)))
    ours, _ = world.serve()
    sink: FakeSink = world.sinks[2]
    sent: dict[tuple[int, int], bytes] = {}
    for group in range(data.draw(st.integers(1, 6))):
        stream = world.open(1, ours, group=group)
        for number in range(data.draw(st.integers(0, 5))):
            payload = bytes([group, number]) * data.draw(st.integers(1, 600))
            sent[(group, number)] = payload
            sink.session_bytes = data.draw(st.sampled_from([0, 100, 700, 1 << 30]))
            world.send(1, stream, number, payload)
            world.wait(data.draw(st.sampled_from([0.0, 0.1, 0.4])))
        if data.draw(st.booleans()):
            world.close(1, stream)
    sink.session_bytes = 1 << 30
    world.forwarder._book.members[2].outbox.mark()
    world.settle()
    for out in sink.streams:
        assert out.header is not None
        ids = [number for number, _ in out.objects]
        assert ids == sorted(set(ids))
        whole = out.objects if out.fin else out.objects[:-1]
        for number, payload in whole:
            assert payload == sent[(out.header.group, number)]
