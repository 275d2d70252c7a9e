"""Two relays as one: what becomes of requests, where the answer comes from another relay."""

from __future__ import annotations

import pytest

from tests.relay.scenes import ELSEWHERE, GROUPS, OTHER, same
from tests.sim.client import TRACK, Client
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import NEXT_OBJECT, FilterKind, Location, LocationFilter


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
