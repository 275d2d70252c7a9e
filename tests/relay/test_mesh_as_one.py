"""Two relays as one: what publisher and subscriber see of each other is the same where they are at different ones.

Every scene is played twice, with the subscriber beside the publisher and with the subscriber at its relay's neighbour;
what the subscriber is told must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sim.client import NAMESPACE, TRACK, Client
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    NO_PARAMETERS,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    ObjectStatus,
    Parameters,
)
from tradewind.quic.config import Limits

GROUPS = [[b"%d.%d" % (group, number) * 40 for number in range(5)] for group in range(8)]
OTHER = FullTrackName(NAMESPACE, b"audio")
ELSEWHERE = FullTrackName((b"elsewhere",), b"video")
DEEPER = FullTrackName((*NAMESPACE, b"deeper"), b"video")

TOLD = (
    e.SubscribeAccepted,
    e.FetchAccepted,
    e.RequestAccepted,
    e.RequestRefused,
    e.RequestCancelled,
    e.PublishRequested,
    e.UpdateAccepted,
    e.UpdateRefused,
    e.PublishDone,
    e.NamespaceFound,
    e.NamespaceGone,
    e.PublishSkipped,
)
MOST_STREAMS = Limits().bidi_streams
"""So many requests a client lets a relay open."""
Scene = Callable[[Mesh, Client], Any]


def everything(groups: range) -> list[tuple[Location, bytes]]:
    return [(Location(g, n), GROUPS[g][n]) for g in groups for n in range(5)]


def told(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """What a client was told of each request, in order, but for aliases and the words of refusals."""
    found: list[tuple[str, dict[str, Any]]] = []
    for event in client.events:
        if isinstance(event, TOLD):
            fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
            given = fields.get("parameters")
            if isinstance(given, Parameters):
                fields["parameters"] = {
                    name: value
                    for name in Parameters.__dataclass_fields__
                    if (value := getattr(given, name)) != getattr(NO_PARAMETERS, name)
                }
                if isinstance(event, e.UpdateAccepted):
                    # What came while it paused, a relay that nobody else reads at does not know of.
                    fields["parameters"].pop("largest", None)
            found.append((type(event).__name__, {k: v for k, v in fields.items() if k not in ("alias", "reason")}))
    return sorted(found, key=lambda one: one[1]["request"])


def media(client: Client) -> list[str]:
    """Every object with all that belongs to it, and how every stream began and ended, in no order."""
    objects: list[object] = [
        (request, one.location, one.payload, one.status, one.subgroup, one.properties)
        for request, arrivals in client.arrivals.items()
        for _, one in arrivals
    ]
    heads = {event.stream: event.header for event in client.told(e.SubgroupOpened)}
    streams = [(head.group, head.subgroup, head.priority, head.end_of_group) for head in heads.values()]
    ends = [(heads[one.stream].group, heads[one.stream].subgroup, one.code) for one in client.told(e.SubgroupClosed)]
    return sorted(map(repr, (*objects, *streams, *ends)))


def play(scene: Scene, at: str, draft: int, *, between: bool = False) -> tuple[list[Any], list[str], Any]:
    mesh = Mesh(["fra", "sin", "hkg"], [("fra", "sin"), ("hkg", "sin")]) if between else Mesh(["fra", "hkg"])
    viewer = mesh.client(at, draft)
    extra = scene(mesh, viewer)
    return told(viewer), media(viewer), extra


def same(scene: Scene, draft: int = 20) -> tuple[list[Any], list[str]]:
    """Play a scene with the viewer beside the publisher (at hkg), and elsewhere; returns what he saw."""
    beside = play(scene, "hkg", draft)
    for between in (False, True):
        elsewhere = play(scene, "fra", draft, between=between)
        assert elsewhere[0] == beside[0]
        assert elsewhere[1] == beside[1]
        assert elsewhere[2] == beside[2]
    return beside[0], beside[1]


# --- Requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
@pytest.mark.parametrize("code", [RequestCode.DOES_NOT_EXIST, RequestCode.UNAUTHORIZED, RequestCode.EXPIRED_AUTH_TOKEN])
def test_what_a_publisher_refuses(draft: int, code: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        publisher, _ = mesh.publish("hkg", draft)

        def refuse(event: e.Event) -> None:
            if isinstance(event, e.SubscribeRequested | e.FetchRequested | e.TrackStatusRequested):
                publisher.do("reject", event.request, code, "no")

        publisher.on_event = refuse
        chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=1, end_object=4)
        viewer.subscribe(OTHER)
        mesh.run()
        viewer.ask("fetch", OTHER, chosen)
        mesh.run()
        viewer.ask("track_status", OTHER)
        mesh.run()

    answers, _ = same(scene, draft)
    assert [kind for kind, _ in answers] == ["RequestRefused"] * 3
    assert {fields["code"] for _, fields in answers} == {code}


def test_a_publisher_that_redirects() -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        publisher, _ = mesh.publish("hkg")

        def redirect(event: e.Event) -> None:
            if isinstance(event, e.SubscribeRequested):
                there = e.Redirect("", TRACK)
                publisher.do("reject", event.request, RequestCode.REDIRECT, "there", redirect=there)

        publisher.on_event = redirect
        viewer.subscribe(OTHER)
        mesh.run()

    answers, _ = same(scene)
    assert [fields["code"] for _, fields in answers] == [RequestCode.DOES_NOT_EXIST]


@pytest.mark.parametrize("draft", [16, 20])
def test_what_nobody_publishes(draft: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> float:
        mesh.publish("hkg", draft)
        viewer.subscribe(ELSEWHERE)
        mesh.run()
        chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=1, end_object=4)
        viewer.ask("fetch", ELSEWHERE, chosen)
        mesh.run()
        viewer.ask("track_status", ELSEWHERE)
        mesh.run()
        return 0.0

    answers, _ = same(scene, draft)
    assert [fields["code"] for _, fields in answers] == [RequestCode.DOES_NOT_EXIST] * 3


def test_who_waits_for_a_publisher_meets_him() -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        viewer.subscribe(rendezvous_timeout_ms=2000)
        viewer.subscribe(ELSEWHERE, rendezvous_timeout_ms=500)
        mesh.run(1.0)
        _, served = mesh.publish("hkg")
        mesh.run()
        served.group(0, GROUPS[0])
        mesh.run()

    answers, _ = same(scene)
    assert [kind for kind, _ in answers] == ["SubscribeAccepted", "RequestRefused"]
    assert answers[1][1]["code"] == RequestCode.TIMEOUT


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
def test_the_state_of_a_track(draft: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        _, served = mesh.publish("hkg", draft, properties=((0x0E, 77), (0x101, b"title")))
        near = mesh.client("hkg", draft)
        near.subscribe()
        mesh.run()
        served.group(0, GROUPS[0])
        served.group(1, GROUPS[1])
        mesh.run()
        viewer.ask("track_status", TRACK)
        mesh.run()
        viewer.subscribe(filter=NEXT_OBJECT)
        mesh.run()

    answers, _ = same(scene, draft)
    assert [fields["parameters"]["largest"] for _, fields in answers] == [Location(1, 4)] * 2


# --- Media ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
def test_every_field_of_every_object(draft: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        _, served = mesh.publish("hkg", draft, properties=((0x0E, 77), (0x101, b"title")))
        viewer.subscribe()
        mesh.run()
        for subgroup, priority in ((0, 10), (2, 200)):
            outflow = served.open(3, subgroup, priority=priority)
            outflow.object(subgroup, b"key", properties=((0x40, 7), (0x103, b"\x00\xff")))
            outflow.object(subgroup + 4, b"delta" * 500)
            outflow.fin()
        mesh.run()
        outflow = served.open(4, end_of_group=True)
        outflow.object(0, b"")
        outflow.object(1, b"last", properties=((0x40, 8),))
        outflow.fin()
        mesh.run()
        outflow = served.open(5)
        outflow.object(0, b"one")
        outflow.object(1, status=ObjectStatus.END_OF_GROUP)
        outflow.fin()
        mesh.run()
        for number in range(5):
            served.datagram(6, number, b"small %d" % number, priority=number, properties=((0x103, b"p"),))
            mesh.run(0.05)
        mesh.run()

    _, seen = same(scene, draft)
    assert len([one for one in seen if one.startswith("(0, Location(")]) >= 12  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [ResetCode.CANCELLED, ResetCode.DELIVERY_TIMEOUT, ResetCode.INTERNAL_ERROR])
def test_a_subgroup_that_is_reset(code: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        _, served = mesh.publish("hkg")
        viewer.subscribe()
        mesh.run()
        outflow = served.open(0)
        outflow.object(0, b"whole")
        outflow.object(1, b"half", announced=100)
        mesh.run()
        outflow.reset(code)
        mesh.run(1.0)
        served.group(1, GROUPS[1])
        mesh.run()

    same(scene)


@pytest.mark.parametrize("draft", [16, 20])
@pytest.mark.parametrize("code", list(DoneCode))
def test_why_a_track_ended(draft: int, code: DoneCode) -> None:
    if draft == 20 and code is DoneCode.SUBSCRIPTION_ENDED:
        return

    def scene(mesh: Mesh, viewer: Client) -> None:
        _, served = mesh.publish("hkg", draft)
        viewer.subscribe()
        mesh.run()
        served.group(0, GROUPS[0])
        served.group(1, GROUPS[1])
        served.done(code, 2)
        mesh.run(8.0)

    answers, _ = same(scene, draft)
    assert [kind for kind, _ in answers] == ["SubscribeAccepted", "PublishDone"]


@pytest.mark.parametrize("order", list(GroupOrder))
@pytest.mark.parametrize("draft", [16, 20])
def test_past_groups(draft: int, order: GroupOrder) -> None:
    def scene(mesh: Mesh, viewer: Client) -> list[Any]:
        _, served = mesh.publish("hkg", draft)
        near = mesh.client("hkg", draft)
        near.subscribe()
        mesh.run()
        for group in range(4):
            served.group(group, GROUPS[group], end_of_group=True)
            mesh.run(0.1)
        found = []
        for start, end, last in ((0, 2, 4), (1, 1, 2), (3, 9, 0), (7, 8, 0)):
            chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(start, 0), end_group=end, end_object=last)
            found.append(viewer.ask("fetch", TRACK, chosen, Parameters(order=order)))
            mesh.run(1.0)
        return [viewer.objects(request) for request in found]

    same(scene, draft)


@pytest.mark.parametrize("draft", [16, 18])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_fetch_joins_a_subscription(draft: int, at_once: bool) -> None:
    def scene(mesh: Mesh, viewer: Client) -> list[Any]:
        _, served = mesh.publish("hkg", draft)
        near = mesh.client("hkg", draft)
        near.subscribe()
        mesh.run()
        for group in range(4):
            served.group(group, GROUPS[group], end_of_group=True)
            mesh.run(0.1)
        request = viewer.subscribe(filter=NEXT_OBJECT)
        if not at_once:
            mesh.run()
        joins = [
            viewer.ask("fetch", TRACK, NO_FILTER, joining=request, joining_groups=2),
            viewer.ask("fetch", TRACK, NO_FILTER, joining=request, joining_start=1),
        ]
        mesh.run(1.0)
        served.group(4, GROUPS[4])
        mesh.run()
        return [sorted(viewer.objects(number)) for number in (request, *joins)]

    same(scene, draft)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_fetch_that_joins_what_never_comes(leaves: bool) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        # It says nothing to SUBSCRIBE.
        mesh.client("hkg", 18).announce()
        mesh.run()
        request = viewer.subscribe()
        viewer.ask("fetch", TRACK, NO_FILTER, joining=request, joining_groups=2)
        other = viewer.ask("fetch", TRACK, NO_FILTER, joining=request, joining_groups=1)
        mesh.run()
        viewer.do("cancel", other)
        if leaves:
            viewer.do("cancel", request)
        mesh.run(8.0)

    answers, _ = same(scene, 18)
    codes = [fields["code"] for _, fields in answers]
    joined = RequestCode.INVALID_JOINING_REQUEST_ID
    assert codes == ([joined] if leaves else [RequestCode.TIMEOUT, joined])


def test_a_fill() -> None:
    def scene(mesh: Mesh, viewer: Client) -> list[Any]:
        _, served = mesh.publish("hkg")
        near = mesh.client("hkg")
        near.subscribe()
        mesh.run()
        for group in range(4):
            served.group(group, GROUPS[group], end_of_group=True)
            mesh.run(0.1)
        start = LocationFilter(FilterKind.ABSOLUTE, start=Location(1, 0))
        request = viewer.subscribe(filter=NEXT_OBJECT, fill=Fill(filter=start))
        mesh.run(1.0)
        served.group(4, GROUPS[4])
        mesh.run()
        return sorted(viewer.objects(request))

    same(scene)


@pytest.mark.parametrize("draft", [16, 20])
def test_a_subscription_that_pauses(draft: int) -> None:
    def scene(mesh: Mesh, viewer: Client) -> None:
        _, served = mesh.publish("hkg", draft)
        near = mesh.client("hkg", draft)
        near.subscribe()
        request = viewer.subscribe(forward=False)
        mesh.run()
        served.group(0, GROUPS[0])
        mesh.run()
        viewer.do("update", request, Parameters(forward=True))
        mesh.run()
        served.group(1, GROUPS[1])
        mesh.run()
        viewer.do("update", request, Parameters(forward=False))
        mesh.run()
        served.group(2, GROUPS[2])
        mesh.run()
        viewer.do("update", request, Parameters(forward=True))
        mesh.run()
        served.group(3, GROUPS[3])
        mesh.run()

    same(scene, draft)


# --- Namespaces and offers --------------------------------------------------------------------------------------------


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


NO_FORWARD = Parameters(forward=False)


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


# --- Publishers at both -----------------------------------------------------------------------------------------------


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
