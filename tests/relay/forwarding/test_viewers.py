"""What one viewer gets when it is slow, out of credit or not alone: skipped groups, time-outs, the draft's order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CacheLimits
from relay.forwarding.peers import DropReason
from tests.relay.forwarding.fakes import NAMESPACE, ODD_IDS, FakeSink, World
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import FullTrackName, GroupOrder, Parameters


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
    ours, _ = world.serve(parameters=Parameters(object_timeout_ms=500))
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
    ours, _ = world.serve(parameters=Parameters(subgroup_timeout_ms=300))
    sink = world.sinks[2]
    sink.session_bytes = 5_000
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"x" * 20_000)
    world.close(1, stream)
    world.wait(0.2)
    assert sink.streams[0].code is None
    world.wait(0.2)
    assert sink.streams[0].code == ResetCode.DELIVERY_TIMEOUT


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


def test_range_filters_thin_a_stream_without_breaking_it() -> None:
    world = World()
    ours, _ = world.serve(parameters=Parameters(range_filters=ODD_IDS))
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
