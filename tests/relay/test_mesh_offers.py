"""Two relays as one: namespaces and published tracks that viewers are told of, wherever they are."""

from __future__ import annotations

import pytest

from tests.relay.scenes import DEEPER, ELSEWHERE, GROUPS, OTHER, same
from tests.sim.client import NAMESPACE, TRACK, Client
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import NEXT_OBJECT, FullTrackName, Location, Parameters
from tradewind.quic.config import Limits

MOST_STREAMS = Limits().bidi_streams
"""So many requests a client lets a relay open."""

NO_FORWARD = Parameters(forward=False)


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
@pytest.mark.parametrize("lost", [True, False])
def test_namespaces_come_and_go(draft: int, lost: bool) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        viewer.ask("subscribe_namespace", NAMESPACE)
        publisher = mesh.client("hkg", draft)
        first = publisher.announce(NAMESPACE)
        publisher.announce((*NAMESPACE, b"deeper"))
        publisher.announce(ELSEWHERE.namespace)
        mesh.run()
        if lost:
            publisher.close()
            mesh.run(2.0)
            mesh.client("hkg", draft).announce((*NAMESPACE, b"deeper"))
            mesh.run(5.0)
        else:
            publisher.do("cancel", first)
        mesh.run()

    answers, _ = same(scene, draft)
    assert [kind for kind, _ in answers] == ["RequestAccepted", "NamespaceFound", "NamespaceFound", "NamespaceGone"]


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
@pytest.mark.parametrize("before", [True, False])
def test_published_tracks_are_offered(draft: int, before: bool) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        def accept(event: e.Event) -> None:
            if isinstance(event, e.PublishRequested):
                viewer.do("accept", event.request, Parameters(forward=True))

        viewer.on_event = accept
        publisher = mesh.client("hkg", draft)
        if before:
            viewer.ask("subscribe_tracks", NAMESPACE)
            mesh.run()
        number = publisher.ask("publish", TRACK, 7, Parameters(largest=Location(4, 1)), ((0x0E, 77),))
        mesh.run()
        publisher.ask("publish", ELSEWHERE, 8)
        publisher.ask("publish", DEEPER, 9, NO_FORWARD)
        mesh.run()
        if not before:
            viewer.ask("subscribe_tracks", NAMESPACE)
            mesh.run()
        publisher.send_group(7, 5, GROUPS[5])
        mesh.run()
        publisher.do("publish_done", number, DoneCode.TRACK_ENDED, 1, "over")
        mesh.run(1.0)

    answers, _ = same(scene, draft)
    assert sorted(kind for kind, _ in answers) == [
        "PublishDone",
        "PublishRequested",
        "PublishRequested",
        "RequestAccepted",
    ]


@pytest.mark.parametrize("draft", [16, 18, 20])
def test_a_track_that_was_only_published(draft: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        viewer.ask("subscribe_namespace", ())
        publisher = mesh.client("hkg", draft)
        publisher.ask("publish", TRACK, 7, Parameters(), ((0x0E, 77),))
        mesh.run()
        publisher.send_group(7, 0, GROUPS[0])
        mesh.run()
        viewer.subscribe(filter=NEXT_OBJECT)
        mesh.run()
        publisher.send_group(7, 1, GROUPS[1])
        mesh.run()
        publisher.announce()
        mesh.run()
        publisher.send_group(7, 2, GROUPS[2])
        publisher.close()
        mesh.run(7.0)

    answers, _ = same(scene, draft)
    kinds = [kind for kind, _ in answers]
    assert kinds == ["RequestAccepted", "NamespaceFound", "NamespaceGone", "SubscribeAccepted", "PublishDone"]


def test_who_no_longer_asks_for_tracks_is_offered_none() -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        request = viewer.ask("subscribe_tracks", NAMESPACE)
        publisher = mesh.client("hkg")
        publisher.ask("publish", TRACK, 7)
        mesh.run()
        viewer.do("cancel", request)
        mesh.run()
        publisher.ask("publish", OTHER, 8)
        mesh.run(6.0)

    same(scene)


def test_what_nobody_wants_any_more_is_not_fetched_from_a_neighbour() -> None:
    mesh = Mesh(["fra", "hkg"])
    viewer = mesh.client("fra")
    request = viewer.ask("subscribe_tracks", NAMESPACE)
    mesh.client("hkg").ask("publish", TRACK, 7)
    mesh.run()
    assert mesh.sources("fra") == {"hkg"}
    viewer.do("cancel", request)
    mesh.run(6.0)
    assert mesh.sources("fra") == {"hkg"}, "the offer stands until it is answered or taken back"
    (offer,) = viewer.told(e.PublishRequested)
    viewer.do("reject", offer.request, RequestCode.UNINTERESTED, "")
    mesh.run()
    assert mesh.sources("fra") == set()


@pytest.mark.parametrize("count", [3, 300])
def test_as_many_published_tracks_are_told_as_a_message_holds(count: int) -> None:
    mesh = Mesh(["fra", "hkg"])
    viewer = mesh.client("fra")
    viewer.ask("subscribe_tracks", NAMESPACE)
    for offset in range(0, count, 100):
        publisher = mesh.client("hkg")
        for number in range(offset, min(offset + 100, count)):
            publisher.ask("publish", FullTrackName(NAMESPACE, b"%d" % number), number)
        mesh.run()
    way = next(iter(mesh.node("fra").forwarder._book.routes.announced[NAMESPACE].ways.values()))
    assert way.tracks == {b"%d" % number for number in range(min(count, 256))}
    assert not way.announced
    assert len(viewer.told(e.PublishRequested)) == min(count, MOST_STREAMS)
