"""Relays as neighbours, on a virtual network: tracks over one, two and three of them, and around what fails."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.forwarding.book import Standing
from tests.relay.scenes import GROUPS, everything
from tests.sim.client import NAMESPACE, TRACK, Client, Served
from tests.sim.mesh import Mesh
from tests.sim.network import BLACKOUT, Weather
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FilterKind, FullTrackName, Location, LocationFilter, Parameters


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
def test_a_viewer_elsewhere_sees_it(draft: int) -> None:
    mesh = Mesh(["fra", "hkg"])
    _, served = mesh.publish("hkg", draft)
    viewer = mesh.client("fra", draft)
    request = viewer.subscribe()
    mesh.run()
    for group in range(2):
        served.group(group, GROUPS[group])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(2))
    assert mesh.sources("fra") == {"hkg"}
    assert mesh.sources("hkg") == set()


def test_one_subscription_upstream_however_many_watch() -> None:
    mesh = Mesh(["fra", "hkg"])
    publisher, served = mesh.publish("hkg")
    viewers = [mesh.client("fra") for _ in range(5)]
    requests = [viewer.subscribe() for viewer in viewers]
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    for viewer, request in zip(viewers, requests, strict=True):
        assert sorted(viewer.objects(request)) == everything(range(1))
    assert len(publisher.told(e.SubscribeRequested)) == 1
    assert len(mesh.node("hkg").forwarder._book.tracks[TRACK].subscriptions) == 1


def test_a_chain_of_two_between_and_no_more() -> None:
    names = ["a", "b", "c", "d", "e"]
    mesh = Mesh(names, list(pairwise(names)))
    _, served = mesh.publish("a")
    mesh.run()
    viewer, far = mesh.client("d"), mesh.client("e")
    request, beyond = viewer.subscribe(), far.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(1))
    assert [mesh.sources(name) for name in names[:4]] == [set(), {"a"}, {"b"}, {"c"}]
    assert far.refusal(beyond) == RequestCode.DOES_NOT_EXIST


def test_the_route_table_chooses() -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["sin", "hkg"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    assert mesh.sources("fra") == {"sin"}
    served.group(0, GROUPS[0])
    mesh.run(3.0)
    mesh.prefer("fra", {"hkg": ["hkg", "sin"]})
    mesh.run()
    served.group(1, GROUPS[1])
    mesh.run()
    assert mesh.sources("fra") == {"hkg"}
    assert sorted(viewer.objects(request)) == everything(range(2))


@pytest.mark.parametrize("announces", [True, False], ids=["namespace", "track"])
def test_a_publisher_that_moves_is_the_same_to_relays_behind_others(announces: bool) -> None:
    """`far` reads over `mid`, and knows nothing of where the publisher was and is but what `mid` says."""
    mesh = Mesh(["old", "new", "mid", "far"], [("old", "mid"), ("new", "mid"), ("mid", "far")])

    def begin(at: str) -> tuple[Client, Served | None]:
        if announces:
            return mesh.publish(at)
        client = mesh.client(at)
        client.ask("publish", TRACK, 7, Parameters())
        mesh.run()
        return client, None

    def send(client: Client, served: Served | None, group: int) -> None:
        if served is None:
            client.send_group(7, group, GROUPS[group])
        else:
            served.group(group, GROUPS[group])

    first, serves_first = begin("old")
    viewer = mesh.client("far")
    request = viewer.subscribe()
    mesh.run()
    send(first, serves_first, 0)
    mesh.run()
    second, serves_second = begin("new")
    assert "old" in mesh.sources("mid")
    mesh.node("mid").forwarder.note_leaving(mesh.session("mid", "old"), mesh.network.now, leaving=True)
    mesh.network.touch(mesh.relays["mid"])
    mesh.run()
    for client, served in ((first, serves_first), (second, serves_second)):
        send(client, served, 1)
    mesh.run(1.5)
    assert "new" in mesh.sources("mid")
    first.close()
    mesh.run(1.0)
    send(second, serves_second, 2)
    mesh.run(6.0)
    send(second, serves_second, 3)
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(4))
    assert not viewer.told(e.PublishDone)


def test_a_bad_link_is_left_and_nothing_is_missed() -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["hkg", "sin"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    outflow = served.open(1)
    outflow.object(0, GROUPS[1][0])
    mesh.run()
    mesh.weather("hkg", "fra", BLACKOUT)
    outflow.object(1, GROUPS[1][1])
    mesh.run(0.2)
    mesh.grade("fra", "hkg", Standing.BAD)
    mesh.run(0.3)
    assert mesh.sources("fra") == {"sin"}
    for number in (2, 3, 4):
        outflow.object(number, GROUPS[1][number])
    outflow.fin()
    mesh.run(0.3)
    assert sorted(viewer.objects(request)) == everything(range(2))


def test_a_neighbour_that_would_not_serve_us_costs_a_question_and_no_more() -> None:
    """Who stands as low as a relay may serves nobody: the next one is asked at once, and it again a while later."""
    mesh = Mesh(["fra", "hkg", "sfo", "sin"])
    _, served = mesh.publish("hkg")
    mesh.prefer("sin", {"hkg": ["sfo", "hkg"]})
    mesh.prefer("fra", {"hkg": ["hkg", "sin", "sfo"]})
    for at in ("sin", "fra"):
        mesh.client(at).subscribe()
        mesh.run()
    served.group(0, [b"x"])
    mesh.run()
    assert (mesh.sources("sin"), mesh.sources("fra")) == ({"sfo"}, {"hkg"})
    mesh.grade("fra", "hkg", Standing.BAD)
    mesh.run(0.2)
    served.group(1, [b"y"])
    mesh.run(0.2)
    assert mesh.sources("fra") == {"sfo"}
    track = mesh.node("fra").forwarder._book.tracks[TRACK]
    assert track.neighbours.declined == {mesh.session("fra", "sin")}
    mesh.run(1.5)
    assert not track.neighbours.declined


def around_hkg(far_s: float) -> tuple[Mesh, Served, Client, int]:
    """fra has a track from hkg; sin has it too, and is the next by its table but so far away; sfo is the third."""
    mesh = Mesh(["fra", "hkg", "sfo", "sin"], paths={("fra", "sin"): Weather(far_s)})
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["hkg", "sin", "sfo"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    assert mesh.sources("fra") == {"hkg"}
    return mesh, served, viewer, request


def test_where_what_feeds_it_went_bad_two_are_asked_and_the_first_to_come_has_it() -> None:
    mesh, served, viewer, request = around_hkg(0.200)
    mesh.weather("hkg", "fra", BLACKOUT)
    mesh.grade("fra", "hkg", Standing.BAD)
    served.group(1, GROUPS[1])
    mesh.run(0.15)
    assert mesh.sources("fra") == {"sfo"}, "sin needs 0.4 s for an answer"
    assert sorted(viewer.objects(request)) == everything(range(2))
    mesh.run(1.0)
    assert mesh.sources("fra") == {"sfo"}
    assert len(mesh.node("fra").forwarder._book.tracks[TRACK].sources) == 1, "nobody is left who sends it as well"


def test_a_track_that_costs_much_is_asked_of_one_alone() -> None:
    mesh, served, _, _ = around_hkg(0.010)
    served.group(1, [bytes(200_000)] * 2)
    mesh.run()
    mesh.grade("fra", "hkg", Standing.SUSPECT)
    assert len(mesh.node("fra").forwarder._book.tracks[TRACK].sources) == 1
    mesh.grade("fra", "hkg", Standing.BAD)
    assert len(mesh.node("fra").forwarder._book.tracks[TRACK].sources) == 2
    mesh.run(1.2)
    assert mesh.sources("fra") == {"sin"}


def test_something_that_comes_is_better_than_nothing() -> None:
    """Every link to it is bad, and from one of them nothing comes at all."""
    mesh, served, viewer, request = around_hkg(0.010)
    mesh.weather("hkg", "fra", BLACKOUT)
    for name in ("sin", "sfo"):
        mesh.grade("fra", name, Standing.BAD)
    mesh.grade("fra", "hkg", Standing.BAD)
    mesh.run(0.3)
    assert mesh.sources("fra") == {"hkg"}, "as bad as the others: nothing is won"
    mesh.grade("fra", "hkg", Standing.SILENT)
    served.group(1, GROUPS[1])
    mesh.run(0.3)
    assert mesh.sources("fra") == {"sin"}
    assert sorted(viewer.objects(request)) == everything(range(2))


def test_what_the_old_way_lost_of_older_groups_is_fetched() -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["hkg", "sin"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    outflow = served.open(0)
    outflow.object(0, GROUPS[0][0])
    mesh.run()
    mesh.weather("hkg", "fra", BLACKOUT)
    for number in range(1, 5):
        outflow.object(number, GROUPS[0][number])
    outflow.fin()
    served.group(1, GROUPS[1])
    mesh.run(0.2)
    mesh.grade("fra", "hkg", Standing.BAD)
    mesh.run(1.0)
    served.group(2, GROUPS[2])
    mesh.run()
    assert sorted(viewer.objects(request)) == everything(range(3))


def test_a_dead_relay_is_gone_around() -> None:
    mesh = Mesh(["fra", "hkg", "sin"])
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["sin", "hkg"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    mesh.kill("sin")
    mesh.grade("fra", "sin", Standing.BAD)
    mesh.run()
    served.group(1, GROUPS[1])
    mesh.run()
    assert mesh.sources("fra") == {"hkg"}
    assert sorted(viewer.objects(request)) == everything(range(2))


def test_namespaces_are_told_across_and_withdrawn() -> None:
    mesh = Mesh(["fra", "hkg"])
    viewer = mesh.client("fra")
    viewer.ask("subscribe_namespace", ())
    publisher = mesh.client("hkg")
    number = publisher.announce(NAMESPACE)
    mesh.run()
    assert [found.namespace for found in viewer.told(e.NamespaceFound)] == [NAMESPACE]
    publisher.do("cancel", number)
    mesh.run()
    assert [found.namespace for found in viewer.told(e.NamespaceGone)] == [NAMESPACE]


def test_past_objects_come_from_where_they_are() -> None:
    mesh = Mesh(["fra", "hkg", "sin"], [("fra", "sin"), ("hkg", "sin")])
    _, served = mesh.publish("hkg")
    near = mesh.client("hkg")
    near.subscribe()
    mesh.run()
    for group in range(3):
        served.group(group, GROUPS[group], end_of_group=True)
    mesh.run()
    viewer = mesh.client("fra")
    chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=1, end_object=4)
    request = viewer.ask("fetch", TRACK, chosen)
    mesh.run(1.0)
    assert sorted(viewer.objects(request)) == everything(range(2))


def test_a_publisher_that_begins_anew_is_followed_everywhere() -> None:
    mesh = Mesh(["fra", "hkg", "sin"], [("fra", "sin"), ("hkg", "sin")])
    publisher, served = mesh.publish("hkg")
    viewer = mesh.client("fra")
    viewer.ask("subscribe_namespace", ())
    viewer.subscribe()
    mesh.run()
    for group in range(2):
        served.group(group, GROUPS[group])
    mesh.run()
    publisher.vanish()
    mesh.run(2.0)
    _, again = mesh.publish("hkg")
    mesh.run()
    again.group(0, GROUPS[2])
    mesh.run(1.0)
    assert len(viewer.told(e.NamespaceGone)) == 1
    assert len(viewer.told(e.PublishDone)) == 1
    request = viewer.subscribe()
    mesh.run()
    again.group(1, GROUPS[3])
    mesh.run()
    assert viewer.objects(request)[-1] == (Location(1, 4), GROUPS[3][4])


def test_nobody_knows_a_track_and_nobody_asks_in_circles() -> None:
    mesh = Mesh(["a", "b", "c", "d"])
    mesh.publish("a", track=FullTrackName(NAMESPACE, b"audio"))
    viewer = mesh.client("d")
    request = viewer.subscribe()
    status = viewer.ask("track_status", TRACK)
    mesh.run(6.0)
    assert viewer.refusal(request) is not None
    assert viewer.refusal(status) is not None
    for name in mesh.relays:
        assert TRACK not in mesh.node(name).forwarder._book.tracks


def test_a_stranger_is_no_neighbour() -> None:
    mesh = Mesh(["fra", "hkg"], [])
    mesh.node("hkg").tickets.clear()
    mesh.join("fra", "hkg")
    mesh.node("hkg").tickets.clear()
    mesh.run(1.0)
    assert not mesh.node("fra").attachments
    assert not mesh.node("hkg").attachments


def chained() -> tuple[Mesh, object]:
    """b has a's track from a, and c has it from b although it might ask a: what breaks for b breaks for both."""
    mesh = Mesh(["a", "b", "c"])
    _, served = mesh.publish("a")
    mesh.prefer("b", {"a": ["a", "c"]})
    mesh.prefer("c", {"a": ["b", "a"]})
    viewers = [mesh.client(name) for name in "bc"]
    requests = [viewer.subscribe() for viewer in viewers]
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    assert (mesh.sources("b"), mesh.sources("c")) == ({"a"}, {"b"})

    def check(groups: int) -> None:
        for group in range(1, groups):
            served.group(group, GROUPS[group])
            mesh.run()
        for viewer, request in zip(viewers, requests, strict=True):
            assert sorted(viewer.objects(request)) == everything(range(groups))

    return mesh, check


def test_who_has_only_relays_below_it_left_has_them_go_elsewhere_first() -> None:
    mesh, check = chained()
    mesh.grade("b", "a", Standing.BAD)
    mesh.run(3.0)
    assert (mesh.sources("b"), mesh.sources("c")) == ({"c"}, {"a"})
    check(3)  # type: ignore[operator]
    mesh.grade("b", "a", Standing.UP)
    mesh.run(5.0)
    assert mesh.sources("b") == {"a"}
    mesh.run(11.0)
    assert mesh.sources("c") == {"b"}, "as the route table has it"
    check(4)  # type: ignore[operator]


def test_who_has_only_relays_below_it_left_asks_one_when_a_link_is_suspect() -> None:
    mesh, check = chained()
    mesh.grade("b", "a", Standing.SUSPECT)
    mesh.run(0.5)
    check(2)  # type: ignore[operator]
    assert (mesh.sources("b"), mesh.sources("c")) == ({"a", "c"}, {"a"}), "it comes twice, and is there already"
    mesh.grade("b", "a", Standing.BAD)
    mesh.run(0.01)
    assert mesh.sources("b") == {"c"}, "nobody is asked"
    check(3)  # type: ignore[operator]
    check(4)  # type: ignore[operator]


def test_who_is_asked_by_a_neighbour_it_doubles_from_serves_it_at_once() -> None:
    mesh = Mesh(["a", "b", "c"])
    _, served = mesh.publish("a")
    viewers = [mesh.client(name) for name in "bc"]
    requests = [viewer.subscribe() for viewer in viewers]
    mesh.run()
    served.group(0, GROUPS[0])
    mesh.run()
    mesh.grade("c", "a", Standing.SUSPECT)
    mesh.grade("b", "a", Standing.SILENT)
    mesh.run(0.1)
    served.group(1, GROUPS[1])
    mesh.run(0.1)
    assert (mesh.sources("b"), mesh.sources("c")) == ({"c"}, {"a"})
    for viewer, request in zip(viewers, requests, strict=True):
        assert sorted(viewer.objects(request)) == everything(range(2))


def test_a_suspicion_that_passes_ends_the_asking() -> None:
    mesh, check = chained()
    mesh.grade("b", "a", Standing.SUSPECT)
    mesh.run(0.05)
    assert "c" in mesh.sources("b")
    mesh.grade("b", "a", Standing.UP)
    mesh.run(0.5)
    assert mesh.sources("b") == {"a"}
    check(4)  # type: ignore[operator]
    assert len(mesh.sources("c")) == 1


def test_where_every_way_is_bad_nobody_is_cut_off() -> None:
    mesh, check = chained()
    mesh.grade("c", "a", Standing.BAD)
    mesh.grade("b", "a", Standing.BAD)
    for _ in range(40):
        mesh.run(1.0)
        assert mesh.sources("b") | mesh.sources("c") >= {"a"}
    check(4)  # type: ignore[operator]
