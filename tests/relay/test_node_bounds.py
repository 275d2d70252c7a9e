"""What one peer may say and another cannot be told, and answers that come when nobody waits: the relay goes on."""

from __future__ import annotations

import pytest

from tests.sim.client import TRACK, Client
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_OBJECT,
    NO_FILTER,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    Parameters,
)

DRAFTS = (20, 22, 18, 16)
HUGE = 2**63 + 1
DEEP = (b"deep" * 60,) * 16


@pytest.fixture
def world() -> World:
    return World()


def alive(world: World, publisher: Client) -> None:
    """Nobody was closed, and a new track still passes."""
    assert not world.relay.ended
    track = FullTrackName((b"still",), b"alive")
    served = publisher.serve(track)
    publisher.announce(track.namespace)
    viewer = world.join()
    request = viewer.subscribe(track)
    world.run()
    served.group(0, [b"yes"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"yes")]


def test_a_draft_without_empty_namespaces(world: World) -> None:
    """A track whose namespace is the very path that a draft-16 session dialled has no name there."""
    track = FullTrackName((b"live",), b"cam")
    publisher = world.join(20, path="/")
    served = publisher.serve(track)
    old = world.join(16, path="/live")
    old.ask("subscribe_namespace", ())
    old.ask("subscribe_tracks", ())
    publisher.announce(track.namespace)
    publisher.ask("publish", FullTrackName((b"live",), b"pushed"), 9, Parameters(forward=True))
    world.run()
    assert not old.told(e.NamespaceFound)
    assert not old.told(e.PublishRequested)
    assert not served.feeds
    alive(world, publisher)


def test_a_draft_16_publisher_is_not_asked_for_what_it_cannot_name(world: World) -> None:
    publisher = world.join(16, path="/live")
    publisher.announce((b"inner",))
    other = world.join(20, path="/live")
    other.serve(FullTrackName((), b"cam"))
    other.announce(())
    viewer = world.join(20, path="/")
    request = viewer.subscribe(FullTrackName((b"live",), b"cam"))
    fetch = viewer.ask("fetch", FullTrackName((b"live",), b"nothing"), NO_FILTER)
    world.run()
    assert isinstance(viewer.answer(request), e.SubscribeAccepted)
    other.do("reject", other.told(e.FetchRequested)[0].request, RequestCode.DOES_NOT_EXIST, "")
    world.run()
    assert viewer.refusal(fetch) == RequestCode.DOES_NOT_EXIST
    assert not publisher.told(e.SubscribeRequested)
    alive(world, world.join())


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("chosen", [NO_FILTER, CURRENT_GROUP, NEXT_OBJECT], ids=lambda chosen: chosen.kind.value)
def test_a_fetch_that_the_publisher_s_draft_cannot_say(world: World, draft: int, chosen: LocationFilter) -> None:
    publisher, _ = world.publish(draft)
    reader = world.join(20)
    fetch = reader.ask("fetch", TRACK, chosen)
    world.run()
    if draft < 20 and chosen is not NO_FILTER:
        assert reader.refusal(fetch) == RequestCode.NOT_SUPPORTED
        alive(world, publisher)
        return
    (asked,) = publisher.told(e.FetchRequested)
    assert asked.filter.start == Location(0, 0)
    publisher.do("accept_fetch", asked.request, Location(4, 1), False)
    publisher.answer_fetch(asked.request, [(Location(group, n), b"%d" % n) for group in (3, 4) for n in range(2)])
    world.run()
    if chosen.kind is FilterKind.NONE:
        assert reader.locations(fetch) == [Location(3, 0), Location(3, 1), Location(4, 0), Location(4, 1)]
    elif chosen is CURRENT_GROUP:
        assert reader.locations(fetch) == [Location(4, 0), Location(4, 1)]
    else:
        assert reader.refusal(fetch) == RequestCode.INVALID_RANGE
    alive(world, publisher)


def test_numbers_that_draft_16_cannot_write(world: World) -> None:
    """Up to draft 16 an integer has 62 bits, later 64."""
    publisher, served = world.publish(20, properties=((0x3FA4, HUGE), (0x3FA6, 6)))
    served.largest = Location(HUGE, HUGE)
    publisher.ask(
        "publish", FullTrackName((b"demo",), b"pushed"), 9, Parameters(largest=Location(HUGE, 1)), ((2, HUGE),)
    )
    old, new = world.join(16), world.join(20)
    old.ask("subscribe_tracks", (b"demo",))
    requests = [viewer.subscribe() for viewer in (old, new)]
    world.run()
    for viewer, request, properties in zip((old, new), requests, [((0x3FA6, 6),), served.properties], strict=True):
        accepted = viewer.answer(request)
        assert isinstance(accepted, e.SubscribeAccepted)
        assert accepted.properties == properties
    stream = served.open(1)
    stream.object(0, b"x", properties=((0x3FA8, HUGE), (0x3FAA, 1)))
    served.datagram(2, 0, b"y", properties=((0x3FA8, HUGE),))
    world.run()
    kept = {found.location: found.properties for found in old.received(requests[0])}
    assert kept == {Location(1, 0): ((0x3FAA, 1),), Location(2, 0): ()}
    whole = {found.location: found.properties for found in new.received(requests[1])}
    assert whole == {Location(1, 0): ((0x3FA8, HUGE), (0x3FAA, 1)), Location(2, 0): ((0x3FA8, HUGE),)}
    fetch = old.ask(
        "fetch", TRACK, LocationFilter(FilterKind.ABSOLUTE, start=Location(1, 0), end_group=1, end_object=0)
    )
    world.run()
    assert old.locations(fetch) == [Location(1, 0)]
    alive(world, publisher)


def test_ranges_that_a_draft_16_publisher_cannot_be_asked_for(world: World) -> None:
    publisher, served = world.publish(16)
    viewer = world.join(20)
    viewer.subscribe()
    world.run()
    served.group(0, [b"x"])
    world.run(1.0)
    for chosen in (
        LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=HUGE, end_object=HUGE),
        LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=0, end_object=HUGE),
        LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0)),
    ):
        fetch = viewer.ask("fetch", TRACK, chosen)
        other = viewer.ask("fetch", FullTrackName((b"demo",), b"other"), chosen)
        world.run(0.5)
        assert viewer.locations(fetch) == [Location(0, 0)]
        asked = publisher.told(e.FetchRequested)[-1]
        publisher.do("reject", asked.request, RequestCode.DOES_NOT_EXIST, "")
        world.run()
        assert viewer.refusal(other) == RequestCode.DOES_NOT_EXIST
    far = viewer.ask(
        "fetch", FullTrackName((b"demo",), b"far"), LocationFilter(FilterKind.ABSOLUTE, start=Location(HUGE, 0))
    )
    viewer.subscribe(
        FullTrackName((b"demo",), b"far"), filter=LocationFilter(FilterKind.ABSOLUTE, start=Location(HUGE, 0))
    )
    world.run()
    assert viewer.refusal(far) is not None
    alive(world, publisher)


@pytest.mark.parametrize("there", DRAFTS)
def test_no_timeout_is_not_a_timeout_of_nothing(world: World, there: int) -> None:
    """Draft 20 says "none" with 0, and draft 16 forbids 0."""
    publisher, served = world.publish(20, properties=((0x02, 0), (0x06, 0)))
    viewer = world.join(there)
    request = viewer.subscribe()
    world.run()
    assert isinstance(viewer.answer(request), e.SubscribeAccepted)
    served.group(0, [b"x"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"x")]
    alive(world, publisher)


@pytest.mark.parametrize("there", DRAFTS)
@pytest.mark.parametrize("way", ["publish", "subscribe", "status", "fetch"])
def test_properties_that_fill_a_whole_message(world: World, there: int, way: str) -> None:
    """What just fits a message of one session need not fit one of another, whose names are longer."""
    properties = ((0x3FA5, bytes(60_000)), (0x3FA7, bytes(5_000)))
    publisher = world.join(20, path="/" + "/".join(field.decode() for field in DEEP))
    viewer = world.join(there, path="/")
    track = FullTrackName((*DEEP, b"demo"), b"video")
    viewer.ask("subscribe_tracks", ())
    publisher.announce()
    world.run()
    if way == "publish":
        request = publisher.ask("publish", TRACK, 9, Parameters(forward=True), properties)
        world.run()
        assert publisher.refusal(request) == RequestCode.EXCESSIVE_LOAD
    elif way == "subscribe":
        publisher.serve(properties=properties)
        request = viewer.subscribe(track)
        world.run()
        assert viewer.refusal(request) is not None
    elif way == "status":
        request = viewer.ask("track_status", track)
        world.run()
        publisher.do("accept", publisher.told(e.TrackStatusRequested)[0].request, Parameters(), properties)
        world.run()
        assert viewer.answer(request) is not None
    else:
        request = viewer.ask("fetch", track, LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=1))
        world.run()
        asked = publisher.told(e.FetchRequested)[0].request
        publisher.do("accept_fetch", asked, Location(0, 0), False, Parameters(), properties)
        world.run(6.0)
        assert viewer.refusal(request) is not None
    alive(world, world.join())


def test_a_name_that_is_too_long_for_another_session(world: World) -> None:
    fields = ("f" * 250,) * 16
    publisher = world.join(20, path="/" + "/".join(fields))
    viewer = world.join(20, path="/")
    viewer.ask("subscribe_tracks", ())
    publisher.ask("publish", FullTrackName((), b"n" * 1000), 9, Parameters(forward=True))
    world.run()
    assert not viewer.told(e.PublishRequested)
    alive(world, viewer)


# --- Answers that nobody waits for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("how", ["cancels", "leaves"])
@pytest.mark.parametrize("answer", ["accepted", "refused", "silence"])
def test_a_fetch_that_is_answered_too_late(world: World, draft: int, how: str, answer: str) -> None:
    publisher, _ = world.publish(draft)
    reader = world.join(draft)
    fetch = reader.ask("fetch", TRACK, LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=1))
    world.run()
    (asked,) = publisher.told(e.FetchRequested)
    if how == "cancels":
        reader.do("cancel", fetch)
    else:
        reader.close()
    world.run()
    if answer == "accepted":
        publisher.do("accept_fetch", asked.request, Location(0, 0), False)
        publisher.answer_fetch(asked.request, [(Location(0, 0), b"late")])
    elif answer == "refused":
        publisher.do("reject", asked.request, RequestCode.DOES_NOT_EXIST, "")
    world.run(6.0)
    assert not reader.arrivals
    assert not reader.told(e.FetchOpened)
    world.relay.ended.clear()
    world.run(60.0)
    assert world.node.forwarder.statistics().tracks == 0
    alive(world, world.join())


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_fetch_whose_objects_overtake_its_answer(world: World, draft: int) -> None:
    publisher, _ = world.publish(draft)
    reader = world.join(draft)
    fetch = reader.ask(
        "fetch", TRACK, LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=0, end_object=0)
    )
    world.run()
    (asked,) = publisher.told(e.FetchRequested)
    stream = publisher.open_fetch(asked.request)
    stream.object(Location(0, 0), b"early")
    stream.fin()
    world.run()
    publisher.do("accept_fetch", asked.request, Location(0, 0), False)
    publisher.do("finish", asked.request)
    world.run()
    assert reader.objects(fetch) == [(Location(0, 0), b"early")]
    assert [closed.code for closed in reader.told(e.FetchClosed)] == [None]
    assert world.node.surroundings.limits.statistics().sessions == 2


def test_a_long_answer_is_not_cut_off(world: World) -> None:
    """The publisher has its time to answer; how long the objects take is another thing."""
    publisher, _ = world.publish()
    reader = world.join()
    fetch = reader.ask(
        "fetch", TRACK, LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=0, end_object=9)
    )
    world.run()
    (asked,) = publisher.told(e.FetchRequested)
    publisher.do("accept_fetch", asked.request, Location(0, 9), False)
    stream = publisher.open_fetch(asked.request)
    for number in range(10):
        stream.object(Location(0, number), b"%d" % number)
        world.run(2.0)
    stream.fin()
    world.run()
    assert reader.locations(fetch) == [Location(0, number) for number in range(10)]
    assert [closed.code for closed in reader.told(e.FetchClosed)] == [None]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_subscriber_of_a_publish_that_is_already_over(world: World, draft: int) -> None:
    """PUBLISH_DONE came, streams that it counts did not: nobody may be asked to send more."""
    publisher = world.join(draft)
    offer = publisher.ask("publish", TRACK, 9, Parameters(forward=False))
    world.run()
    publisher.do("publish_done", offer, DoneCode.TRACK_ENDED, 3, "")
    world.run()
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run(5.0)
    assert viewer.answer(request) is not None
    world.run(60.0)
    alive(world, world.join())


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_subscriber_that_leaves_an_ending_subscription(world: World, draft: int) -> None:
    """The track has ended, its last stream is still on its way, and the subscriber has had enough."""
    _, served = world.publish(draft)
    viewer = world.join(draft)
    viewer.reading = True
    request = viewer.subscribe()
    world.run()
    viewer.reading = False  # Its windows fill up.
    served.group(0, [bytes(400_000)])
    world.run(1.0)
    served.done(DoneCode.TRACK_ENDED, 1)
    world.run(0.5)
    viewer.do("cancel", request)
    world.run(0.5)
    resets = [event for event in viewer.connection_events if type(event).__name__ == "StreamReset"]
    assert len(resets) >= 1, "what is left of the stream is not sent"
