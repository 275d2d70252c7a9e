"""Publishers at two relays of one mesh: the nearer one, one that dies, and one that comes back elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.relay.scenes import DEEPER, GROUPS, OTHER, everything, same
from tests.sim.client import NAMESPACE, TRACK, Client
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName


def test_a_publisher_here_of_a_prefix_hides_nothing() -> None:
    mesh = Mesh(["fra", "hkg"])
    mesh.publish("fra")
    _, served = mesh.publish("hkg", track=DEEPER)
    viewer = mesh.client("fra")
    request = viewer.subscribe(DEEPER)
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(1))


def test_what_the_publisher_here_lacks_is_asked_for_at_the_neighbour() -> None:
    mesh = Mesh(["fra", "hkg"])
    here, _ = mesh.publish("fra", track=OTHER)
    here.on_event = lambda event: (
        here.do("reject", event.request, RequestCode.DOES_NOT_EXIST, "no")
        if isinstance(event, e.SubscribeRequested) and event.track != OTHER
        else None
    )
    _, served = mesh.publish("hkg")
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    missing = viewer.subscribe(FullTrackName(NAMESPACE, b"missing"))
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run(6.0)
    assert sorted(viewer.objects(request)) == everything(range(1))
    assert viewer.refusal(missing) is not None


@pytest.mark.parametrize("first", ["fra", "hkg"])
def test_of_two_that_publish_the_same_the_nearer_stays(first: str) -> None:
    mesh = Mesh(["fra", "hkg"])
    _, one = mesh.publish(first)
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    one.group(0, GROUPS[0])
    _, other = mesh.publish("hkg" if first == "fra" else "fra")
    mesh.run()
    for group in range(1, 8):
        one.group(group, GROUPS[group])
        other.group(group, GROUPS[group])
        mesh.run(0.5)
    assert sorted(viewer.objects(request)) == everything(range(8))
    assert mesh.sources("fra") == set()


@pytest.mark.parametrize("ending", ["close", "vanish"])
@pytest.mark.parametrize(("first", "then"), [("fra", "fra"), ("hkg", "hkg"), ("fra", "hkg"), ("hkg", "fra")])
def test_a_publisher_comes_back(first: str, then: str, ending: str) -> None:
    mesh = Mesh(["fra", "hkg"])
    publisher, served = mesh.publish(first)
    viewer = mesh.client("fra")
    viewer.ask("subscribe_namespace", ())
    request = viewer.subscribe()
    mesh.run()
    for group in range(2):
        served.group(group, GROUPS[group])
    mesh.run()
    getattr(publisher, ending)()
    mesh.run(2.0)
    _, again = mesh.publish(then)
    mesh.run()
    for group in range(2, 6):
        again.group(group, GROUPS[group])
        mesh.run(0.7)
    assert sorted(viewer.objects(request)) == everything(range(6))
    assert not viewer.told(e.NamespaceGone)
    assert not viewer.told(e.PublishDone)


@pytest.mark.parametrize("watches_at", ["fra", "hkg", "sin"])
@pytest.mark.parametrize("dies_at", ["fra", "hkg"])
def test_of_two_that_publish_the_same_one_may_die(watches_at: str, dies_at: str) -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    shows = {name: mesh.publish(name) for name in ("fra", "hkg")}
    viewer = mesh.client(watches_at)
    request = viewer.subscribe()
    mesh.run()
    for number in range(24):
        if number == 8:
            shows.pop(dies_at)[0].vanish()
        for _, served in shows.values():
            served.group(number, [b"%d" % number * 100])
        mesh.run(0.5)
    arrived = [location.group for location in viewer.locations(request)]
    assert sorted(arrived)[:8] == list(range(8))
    assert sorted(arrived)[-8:] == list(range(16, 24))
    assert len(arrived) == len(set(arrived))


@pytest.mark.parametrize("gone_from", ["hkg", "sin"])
def test_nobody_is_sent_where_a_publisher_may_come_back_while_another_is_there(gone_from: str) -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    gone, _ = mesh.publish(gone_from)
    gone.close()
    _, served = mesh.publish("sin" if gone_from == "hkg" else "hkg")
    mesh.run()
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(1))


def test_who_comes_back_elsewhere_and_is_silent_at_first_is_waited_for() -> None:
    mesh = Mesh(["fra", "hkg"])
    publisher, served = mesh.publish("fra")
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    publisher.vanish()
    _, again = mesh.publish("hkg")
    mesh.run(6.0)
    again.group(1, GROUPS[1])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(2))


def test_where_one_track_begins_anew_the_others_go_on() -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        def come(payload: bytes) -> tuple[Client, Any]:
            publisher, served = mesh.publish("hkg")
            catalogue = publisher.serve(OTHER)
            mesh.run()
            if publisher.feeds or catalogue.feeds:
                catalogue.group(0, [payload])
            return publisher, served

        viewer.subscribe()
        publisher, served = mesh.publish("hkg")
        catalogue = publisher.serve(OTHER)
        viewer.subscribe(TRACK)
        viewer.subscribe(OTHER)
        mesh.run()
        served.group(0, GROUPS[0])
        catalogue.group(0, [b"one"])
        catalogue.group(1, [b"two"])
        mesh.run()
        publisher.vanish()
        mesh.run(1.0)
        again = mesh.client("hkg")
        video, catalogue = again.serve(TRACK), again.serve(OTHER)
        again.announce()
        mesh.run()
        video.group(1, GROUPS[1])
        catalogue.group(0, [b"another"])
        mesh.run()
        video.group(2, GROUPS[2])
        mesh.run(3.0)

    answers, _ = same(scene)
    assert [kind for kind, _ in answers].count("PublishDone") == 1


def test_who_comes_after_the_last_viewer_begins_with_what_is_published_then() -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        publisher, served = mesh.publish("hkg")
        request = viewer.subscribe()
        mesh.run()
        served.group(0, GROUPS[0])
        mesh.run()
        viewer.do("cancel", request)
        publisher.vanish()
        mesh.run(1.0)
        _, again = mesh.publish("hkg")
        viewer.subscribe()
        mesh.run()
        again.group(0, GROUPS[1])
        mesh.run()

    same(scene)
