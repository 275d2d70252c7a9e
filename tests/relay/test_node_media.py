"""Objects through one relay, from any draft to any other, over QUIC and WebTransport, in memory with real crypto."""

from __future__ import annotations

from itertools import product

import pytest

from tests.sim.client import TRACK, Client, Outflow, Served
from tests.sim.network import Network, Weather
from tests.sim.relay import Relay
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_OBJECT,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    ObjectStatus,
    Parameters,
    RangeEnd,
)
from tradewind.quic.config import Address

DRAFTS = (20, 22, 18, 16)
PAIRS = list(product(DRAFTS, DRAFTS))
WAYS = [(draft, webtransport) for draft in DRAFTS for webtransport in (False, True)]
KEY_FRAME = bytes(range(256)) * 160
"""40 kB: many packets, several quanta."""
PAYLOADS = [KEY_FRAME, b"", b"delta", b"x" * 5000]
WHOLE = [Location(3, number) for number in range(len(PAYLOADS))]


def way(value: tuple[int, bool]) -> str:
    return f"{value[0]}-{'webtransport' if value[1] else 'quic'}"


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("there", WAYS, ids=way)
def test_a_track_passes_unchanged(world: World, there: tuple[int, bool]) -> None:
    draft, webtransport = there
    _, served = world.publish(draft, webtransport=webtransport)
    viewers = [world.join(draft, webtransport=webtransport) for _ in range(2)]
    requests = [viewer.subscribe() for viewer in viewers]
    world.run()
    assert len(served.feeds) == 1, "one upstream subscription"
    served.group(3, PAYLOADS)
    world.run(1.0)
    for viewer, request in zip(viewers, requests, strict=True):
        assert viewer.objects(request) == list(zip(WHOLE, PAYLOADS, strict=True))
        assert [event.code for event in viewer.told(e.SubgroupClosed)] == [None]


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_from_any_draft_to_any_other(world: World, here: int, there: int) -> None:
    """Objects, unknown properties of track and object, priority, and the end of the group."""
    _, served = world.publish(here, properties=((0x3FA4, 77), (0x3FA5, b"unknown")))
    viewer = world.join(there)
    request = viewer.subscribe()
    world.run()
    accepted = viewer.answer(request)
    assert isinstance(accepted, e.SubscribeAccepted)
    assert dict(accepted.properties).items() >= {(0x3FA4, 77), (0x3FA5, b"unknown")}
    stream = served.open(9, subgroup=2, priority=7, end_of_group=True)
    stream.object(0, b"first", properties=((0x3FB2, 5), (0x3FB3, b"also unknown")))
    stream.object(4, b"fifth")
    stream.fin()
    world.run()
    assert viewer.objects(request) == [(Location(9, 0), b"first"), (Location(9, 4), b"fifth")]
    assert viewer.received(request)[0].properties == ((0x3FB2, 5), (0x3FB3, b"also unknown"))
    (opened,) = viewer.told(e.SubgroupOpened)
    assert (opened.header.subgroup, opened.header.priority, opened.header.end_of_group) == (2, 7, True)


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_datagrams_from_any_draft_to_any_other(world: World, here: int, there: int) -> None:
    _, served = world.publish(here)
    viewer = world.join(there, webtransport=True)
    request = viewer.subscribe()
    world.run()
    for number in range(3):
        served.datagram(1, number, b"%d" % number, priority=None if number else 3, properties=((0x3FB1, b"p"),))
    served.datagram(1, 3, b"", end_of_group=here > 16, status=ObjectStatus.NORMAL)
    world.run()
    assert viewer.objects(request) == [(Location(1, n), b"%d" % n if n < 3 else b"") for n in range(4)]
    arrived = [event.object for event in viewer.told(e.DatagramArrived)]
    assert [item.header.properties for item in arrived[:3]] == [((0x3FB1, b"p"),)] * 3
    assert [item.priority for item in arrived[:2]] == [3, None]


@pytest.mark.parametrize(("here", "there"), [(20, 20), (20, 16), (16, 20), (16, 16), (18, 22), (22, 18)])
@pytest.mark.parametrize("status", [ObjectStatus.END_OF_GROUP, ObjectStatus.END_OF_TRACK])
def test_object_status(world: World, here: int, there: int, status: ObjectStatus) -> None:
    _, served = world.publish(here)
    viewer = world.join(there)
    request = viewer.subscribe()
    world.run()
    stream = served.open(0)
    stream.object(0, b"only")
    stream.object(1, status=status)
    stream.fin()
    world.run()
    assert [(found.location, found.status) for found in viewer.received(request)] == [
        (Location(0, 0), ObjectStatus.NORMAL),
        (Location(0, 1), status),
    ]


@pytest.mark.parametrize("draft", DRAFTS)
def test_pieces_are_passed_on_as_they_come(world: World, draft: int) -> None:
    """A relay that waits for whole objects adds a frame's time at each hop."""
    _, served = world.publish(draft)
    viewer = world.join(draft)
    viewer.subscribe()
    world.run()
    stream = served.open(0)
    stream.object(0, b"a" * 3000, announced=10_000)
    world.run()
    assert sum(len(event.data) for event in viewer.told(e.ObjectData)) == 3000
    stream.raw(b"b" * 7000)
    world.run()
    assert viewer.objects(0) == [(Location(0, 0), b"a" * 3000 + b"b" * 7000)]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_reset_is_passed_on_after_what_came(world: World, draft: int) -> None:
    _, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    stream = served.open(0)
    stream.object(0, b"whole")
    stream.object(1, b"half", announced=8)
    world.run()
    stream.reset(0x2)
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"whole")]
    assert [event.code for event in viewer.told(e.SubgroupClosed)] == [0x2]


@pytest.mark.parametrize("draft", DRAFTS)
def test_subscriber_before_the_publisher(world: World, draft: int) -> None:
    viewer = world.join(draft)
    patient = viewer.subscribe(rendezvous_timeout_ms=2000)
    world.run(0.5)
    _, served = world.publish(draft)
    if draft == 16:  # It has no way to ask for patience.
        assert viewer.refusal(patient) == RequestCode.DOES_NOT_EXIST
        return
    assert isinstance(viewer.answer(patient), e.SubscribeAccepted)
    served.group(0, [b"at last"])
    world.run()
    assert viewer.objects(patient) == [(Location(0, 0), b"at last")]


def test_nobody_publishes(world: World) -> None:
    viewer = world.join()
    request = viewer.subscribe()
    world.run()
    assert viewer.refusal(request) == RequestCode.DOES_NOT_EXIST


def half_a_group(world: World, draft: int) -> tuple[Client, Served, Outflow]:
    """A publisher whose group 1 is over and whose group 2 goes on behind object 2, and its stream; somebody watches."""
    publisher, served = world.publish(draft)
    world.join(draft).subscribe()
    world.run()
    served.group(1, [b"old"], end_of_group=True)
    stream = served.open(2)
    for number in range(3):
        stream.object(number, b"%d" % number)
    world.run()
    return publisher, served, stream


@pytest.mark.parametrize("draft", [20, 22])
def test_late_joiner_gets_the_current_group_by_a_fill(world: World, draft: int) -> None:
    _, served, stream = half_a_group(world, draft)
    late = world.join(draft)
    request = late.subscribe(filter=NEXT_OBJECT, fill=Fill(filter=CURRENT_GROUP))
    world.run()
    assert late.objects(request) == [(Location(2, n), b"%d" % n) for n in range(3)]
    stream.object(3, b"3")
    world.run()
    assert late.locations(request) == [Location(2, n) for n in range(4)]
    assert isinstance(late.told(e.FetchClosed)[0], e.FetchClosed)
    assert len(served.feeds) == 1


@pytest.mark.parametrize("draft", [18, 16])
def test_late_joiner_gets_the_current_group_by_a_joining_fetch(world: World, draft: int) -> None:
    publisher, _, stream = half_a_group(world, draft)
    late = world.join(draft)
    request = late.subscribe(filter=NEXT_OBJECT)
    fetch = late.ask("fetch", TRACK, LocationFilter(FilterKind.NONE), joining=request, joining_groups=1)
    world.run()
    stream.object(3, b"3")
    world.run()
    assert isinstance(late.answer(fetch), e.FetchAccepted)
    assert late.objects(fetch) == [(Location(1, 0), b"old")] + [(Location(2, n), b"%d" % n) for n in range(3)]
    assert late.objects(request) == [(Location(2, 3), b"3")]
    assert not publisher.told(e.FetchRequested), "all of it was here"


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("order", GroupOrder)
def test_fetch_from_the_cache(world: World, draft: int, order: GroupOrder) -> None:
    _, served = world.publish(draft)
    viewer = world.join(draft)
    viewer.subscribe()
    world.run()
    for group in range(4):
        served.group(group, [b"%d.%d" % (group, number) for number in range(3)], end_of_group=True)
        world.run(0.1)
    reader = world.join(draft)
    wanted = LocationFilter(FilterKind.ABSOLUTE, start=Location(1, 1), end_group=2, end_object=1)
    fetch = reader.ask("fetch", TRACK, wanted, Parameters(order=order))
    world.run()
    groups = {1: [Location(1, 1), Location(1, 2)], 2: [Location(2, 0), Location(2, 1)]}
    rising = order is GroupOrder.ASCENDING
    assert reader.locations(fetch) == (groups[1] + groups[2] if rising else groups[2] + groups[1])
    assert [found.payload for found in reader.received(fetch)] == [b"%d.%d" % at for at in reader.locations(fetch)]
    answer = reader.answer(fetch)
    assert isinstance(answer, e.FetchAccepted) and answer.end == Location(2, 1)
    assert not reader.told(e.FetchRangeEnded)


@pytest.mark.parametrize(("here", "there"), [(20, 20), (18, 16), (16, 22), (22, 18)])
def test_fetch_of_what_only_the_publisher_has(world: World, here: int, there: int) -> None:
    publisher, _ = world.publish(here)
    reader = world.join(there)
    wanted = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=5, end_object=0)
    fetch = reader.ask("fetch", TRACK, wanted)
    world.until(lambda: publisher.told(e.FetchRequested))
    (asked,) = publisher.told(e.FetchRequested)
    publisher.do("accept_fetch", asked.request, Location(5, 0), False)
    stream = publisher.open_fetch(asked.request)
    stream.object(Location(0, 0), b"start")
    stream.gap(RangeEnd.UNKNOWN, Location(3, 9))
    stream.object(Location(5, 0), KEY_FRAME)
    stream.fin()
    publisher.do("finish", asked.request)
    world.run(1.0)
    answer = reader.answer(fetch)
    assert isinstance(answer, e.FetchAccepted) and answer.end == Location(5, 0)
    assert reader.objects(fetch) == [(Location(0, 0), b"start"), (Location(5, 0), KEY_FRAME)]
    assert [mark.kind for mark in reader.told(e.FetchRangeEnded)] == [RangeEnd.UNKNOWN]
    assert [closed.code for closed in reader.told(e.FetchClosed)] == [None]


@pytest.mark.parametrize("draft", DRAFTS)
def test_fetch_of_nothing_is_refused(world: World, draft: int) -> None:
    _, served = world.publish(draft)
    reader = world.join(draft)
    reader.subscribe()
    world.run()
    served.group(2, [b"x"])
    world.run()
    wanted = LocationFilter(FilterKind.ABSOLUTE, start=Location(7, 0))
    far = reader.ask("fetch", TRACK, wanted)
    nowhere = reader.ask("fetch", FullTrackName((b"no", b"where"), b"x"), wanted)
    world.run()
    assert reader.refusal(far) == RequestCode.INVALID_RANGE
    assert reader.refusal(nowhere) == RequestCode.DOES_NOT_EXIST


@pytest.mark.parametrize("draft", DRAFTS)
def test_track_status(world: World, draft: int) -> None:
    publisher, _ = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.ask("track_status", TRACK)
    world.until(lambda: publisher.told(e.TrackStatusRequested))
    (asked,) = publisher.told(e.TrackStatusRequested)
    publisher.do("accept", asked.request, Parameters(largest=Location(4, 2)))
    world.run()
    answer = viewer.answer(request)
    assert isinstance(answer, e.RequestAccepted)
    assert answer.parameters.largest == Location(4, 2)


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_end_of_a_track_is_passed_on(world: World, draft: int) -> None:
    _, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    served.group(0, [b"last"])
    served.done(DoneCode.TRACK_ENDED, 1)
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"last")]
    assert [(done.status, done.stream_count) for done in viewer.told(e.PublishDone)] == [(DoneCode.TRACK_ENDED, 1)]
    world.run(60.0)
    assert world.node.forwarder.statistics().tracks == 0


@pytest.mark.parametrize("draft", DRAFTS)
def test_last_viewer_leaves(world: World, draft: int) -> None:
    publisher, _ = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    viewer.do("cancel", request)
    world.run(10.0)
    assert [event.request for event in publisher.told(e.RequestCancelled)] == [1]
    assert world.node.forwarder.statistics().subscriptions == 0


@pytest.mark.parametrize("draft", DRAFTS)
def test_over_a_bad_network_nothing_is_lost_or_disordered(draft: int) -> None:
    world = World(weather=Weather(delay_s=0.02, jitter_s=0.01, loss=0.03, reorder=0.05, duplicate=0.02), seed=draft)
    _, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run(1.0)
    for group in range(5):
        served.group(group, [b"%d" % group * 4000, b"small"])
        world.run(0.3)
    world.run(5.0)
    by_group = {group: [b"%d" % group * 4000, b"small"] for group in range(5)}
    found: dict[int, list[bytes]] = {}
    for location, payload in viewer.objects(request):
        found.setdefault(location.group, []).append(payload)
    assert found == by_group


@pytest.mark.parametrize("draft", DRAFTS)
def test_updates_pause_and_resume(world: World, draft: int) -> None:
    """Forward State 0 stops everything at once; 1 goes on with what comes next."""
    _, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    served.group(0, [b"seen"])
    world.run()
    viewer.do("update", request, Parameters(forward=False))
    world.run()
    served.group(1, [b"missed"])
    world.run()
    viewer.do("update", request, Parameters(forward=True))
    world.run()
    served.group(2, [b"seen again"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"seen"), (Location(2, 0), b"seen again")]
    assert len(viewer.told(e.UpdateAccepted)) == 2


@pytest.mark.parametrize("draft", DRAFTS)
def test_an_update_narrows_what_is_wanted(world: World, draft: int) -> None:
    _, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    served.group(0, [b"x"])
    world.run()
    until_two = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=2)
    viewer.do("update", request, Parameters(filter=until_two))
    world.run()
    for group in (1, 2, 3):
        served.group(group, [b"x"])
        world.run(0.1)
    assert [at.group for at in viewer.locations(request)] == [0, 1, 2]


def test_a_relay_with_two_ports() -> None:
    """Two addresses, as IPv4 and IPv6 are: one relay behind both."""
    both: tuple[Address, Address] = (("198.51.100.1", 4443), ("2001:db8::1", 4443, 0, 0))
    network = Network()
    relay = Relay(addresses=both)
    network.add(relay)
    publisher = Client(network, ("203.0.113.1", 1), relay=both[0])
    viewer = Client(network, ("2001:db8::2", 2, 0, 0), relay=both[1])
    network.until(lambda: publisher.is_open and viewer.is_open)
    served = publisher.serve()
    publisher.announce()
    network.run(0.2)
    request = viewer.subscribe()
    network.run(0.2)
    served.group(0, [KEY_FRAME])
    network.run(1.0)
    assert viewer.objects(request) == [(Location(0, 0), KEY_FRAME)]
