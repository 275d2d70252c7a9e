"""Who hears of which namespace and track, under which name: discovery, PUBLISH, and the path as a root."""

from __future__ import annotations

import pytest

from tests.sim.client import TRACK, Client
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import FullTrackName, Location, Namespace, Parameters

DRAFTS = (20, 22, 18, 16)
PAIRS = [(here, there) for here in DRAFTS for there in DRAFTS]


@pytest.fixture
def world() -> World:
    return World()


def found(client: Client) -> list[Namespace]:
    return [event.namespace for event in client.told(e.NamespaceFound)]


def gone(client: Client) -> list[Namespace]:
    return [event.namespace for event in client.told(e.NamespaceGone)]


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_namespaces_under_a_prefix_come_and_go(world: World, here: int, there: int) -> None:
    publisher = world.join(here)
    early = publisher.announce((b"live", b"one"))
    publisher.announce((b"other",))
    viewer = world.join(there, webtransport=True)
    viewer.ask("subscribe_namespace", (b"live",))
    world.run()
    assert found(viewer) == [(b"live", b"one")]
    publisher.announce((b"live", b"two", b"deep"))
    world.run()
    assert found(viewer) == [(b"live", b"one"), (b"live", b"two", b"deep")]
    publisher.do("cancel", early)
    world.run()
    assert gone(viewer) == [(b"live", b"one")]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_prefix_itself_and_the_empty_prefix(world: World, draft: int) -> None:
    publisher = world.join(draft)
    publisher.announce((b"live",))
    publisher.announce((b"radio", b"one"))
    exact, everything = world.join(draft), world.join(draft)
    exact.ask("subscribe_namespace", (b"live",))
    everything.ask("subscribe_namespace", ())
    world.run()
    assert found(exact) == [(b"live",)]
    assert sorted(found(everything)) == [(b"live",), (b"radio", b"one")]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_session_that_ends_takes_its_namespaces_along(world: World, draft: int) -> None:
    publisher, viewer = world.join(draft), world.join(draft)
    publisher.announce((b"live", b"one"))
    viewer.ask("subscribe_namespace", (b"live",))
    world.run()
    publisher.close()
    world.run(4.0)
    assert gone(viewer) == [], "it may come back"
    world.run(2.0)
    assert gone(viewer) == [(b"live", b"one")]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_end_of_a_namespace_subscription(world: World, draft: int) -> None:
    publisher, viewer = world.join(draft), world.join(draft)
    request = viewer.ask("subscribe_namespace", (b"live",))
    world.run()
    viewer.do("cancel", request)
    world.run()
    publisher.announce((b"live", b"one"))
    world.run()
    assert found(viewer) == []
    again = viewer.ask("subscribe_namespace", (b"live",))
    world.run()
    assert isinstance(viewer.answer(again), e.RequestAccepted)
    assert found(viewer) == [(b"live", b"one")]


@pytest.mark.parametrize("draft", [20, 22])
def test_a_namespace_subscription_moves_to_another_prefix(world: World, draft: int) -> None:
    publisher, viewer = world.join(draft), world.join(draft)
    publisher.announce((b"live", b"one"))
    publisher.announce((b"radio", b"two"))
    request = viewer.ask("subscribe_namespace", (b"live",))
    world.run()
    viewer.do("update", request, Parameters(prefix=(b"radio",)))
    world.run()
    assert len(viewer.told(e.UpdateAccepted)) == 1
    assert (b"radio", b"two") in found(viewer)
    publisher.announce((b"live", b"three"))
    publisher.announce((b"radio", b"four"))
    world.run()
    assert (b"live", b"three") not in found(viewer)
    assert (b"radio", b"four") in found(viewer)


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_publish_reaches_who_subscribed_to_tracks(world: World, here: int, there: int) -> None:
    viewer = world.join(there)
    viewer.ask("subscribe_tracks", (b"demo",))
    world.run()
    publisher = world.join(here, webtransport=True)
    offer = publisher.ask("publish", TRACK, 5, Parameters(forward=True), ((0x3FA4, 9),))
    world.run()
    assert isinstance(publisher.answer(offer), e.RequestAccepted)
    (offered,) = viewer.told(e.PublishRequested)
    assert offered.track == TRACK
    assert (0x3FA4, 9) in offered.properties
    viewer.do("accept", offered.request, Parameters(forward=True))
    world.run()
    publisher.send_group(5, 0, [b"pushed", b"twice"])
    world.run()
    assert viewer.objects(offered.request) == [(Location(0, 0), b"pushed"), (Location(0, 1), b"twice")]
    publisher.do("publish_done", offer, DoneCode.TRACK_ENDED, 1, "")
    world.run()
    assert [done.status for done in viewer.told(e.PublishDone)] == [DoneCode.TRACK_ENDED]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_track_that_was_published_before_is_offered(world: World, draft: int) -> None:
    publisher = world.join(draft)
    publisher.ask("publish", TRACK, 5, Parameters(forward=True))
    world.run()
    viewer = world.join(draft)
    viewer.ask("subscribe_tracks", ())
    world.run()
    assert [event.track for event in viewer.told(e.PublishRequested)] == [TRACK]


@pytest.mark.parametrize("draft", DRAFTS)
def test_subscribe_to_a_published_track(world: World, draft: int) -> None:
    """PUBLISH without a namespace: whoever knows the name may subscribe."""
    publisher = world.join(draft)
    publisher.ask("publish", TRACK, 5, Parameters(forward=False))
    world.run()
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    assert isinstance(viewer.answer(request), e.SubscribeAccepted)
    updates = publisher.told(e.UpdateRequested)
    assert [update.parameters.forward for update in updates] == [True], "now somebody wants its objects"
    publisher.do("accept_update", updates[0].request, updates[0].update)
    publisher.send_group(5, 0, [b"wanted"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"wanted")]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_declined_offer_is_no_subscription(world: World, draft: int) -> None:
    viewer = world.join(draft)
    viewer.ask("subscribe_tracks", ())
    publisher = world.join(draft)
    publisher.ask("publish", TRACK, 5, Parameters(forward=True))
    world.run()
    (offered,) = viewer.told(e.PublishRequested)
    viewer.do("reject", offered.request, RequestCode.UNINTERESTED, "no")
    world.run()
    publisher.send_group(5, 0, [b"unwanted"])
    world.run()
    assert not viewer.arrivals
    assert world.node.forwarder.statistics().subscriptions == 0


# --- The path as a root -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("draft", [20, 16])
def test_one_track_under_two_names(world: World, draft: int, webtransport: bool) -> None:
    """What is `shop/cam` to one who dialled `/live` is `live/shop/cam` to one who dialled `/`, and `cam` to a third."""
    track = FullTrackName((b"shop",), b"cam")
    publisher = world.join(draft, path="/live", webtransport=webtransport)
    served = publisher.serve(track)
    publisher.announce(track.namespace)
    top = world.join(draft, path="/", webtransport=webtransport)
    inside = world.join(draft, path="/live/shop?x=1", webtransport=webtransport)
    for viewer in (top, inside):
        viewer.ask("subscribe_namespace", ())
    world.run()
    assert found(top) == [(b"live", b"shop")]
    assert found(inside) == [()][: draft > 16], "draft 16 has no tracks without a namespace"
    viewers = [(top, top.subscribe(FullTrackName((b"live", b"shop"), b"cam")))]
    if draft > 16:
        viewers.append((inside, inside.subscribe(FullTrackName((), b"cam"))))
    world.run()
    assert [feed.request for feed in served.feeds] == [1], "one track, one upstream subscription"
    served.group(0, [b"seen by both"])
    world.run()
    for viewer, request in viewers:
        assert viewer.objects(request) == [(Location(0, 0), b"seen by both")]


@pytest.mark.parametrize("draft", [20, 16])
def test_roots_are_apart(world: World, draft: int) -> None:
    """A session sees nothing beside its path, neither namespaces nor tracks, and cannot reach out of it."""
    here, there = world.join(draft, path="/shop1"), world.join(draft, path="/shop2")
    there.ask("subscribe_namespace", ())
    there.ask("subscribe_tracks", (b"demo",))
    served = here.serve()
    here.announce()
    here.ask("publish", FullTrackName((b"demo",), b"pushed"), 7, Parameters(forward=True))
    world.run()
    assert found(there) == []
    assert there.told(e.PublishRequested) == []
    for namespace in ((b"demo",), (b"shop1", b"demo"), (b"..", b"shop1", b"demo")):
        request = there.subscribe(FullTrackName(namespace, b"video"))
        world.run()
        assert there.refusal(request) == RequestCode.DOES_NOT_EXIST
    assert not served.feeds
    own = there.serve(TRACK)
    there.announce()
    viewer = world.join(draft, path="/shop2")
    request = viewer.subscribe()
    world.run()
    own.group(0, [b"of shop 2"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"of shop 2")]
    assert not served.feeds
