"""Two relays as one: every field of every object, past groups, pauses and endings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.relay.scenes import GROUPS, same
from tests.sim.client import TRACK, Client, Served
from tests.sim.mesh import Mesh
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    Fill,
    FilterKind,
    GroupOrder,
    Location,
    LocationFilter,
    ObjectStatus,
    Parameters,
)


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


def four_groups(mesh: Mesh, draft: int) -> Served:
    """A publisher at hkg that has sent groups 0 to 3 to a viewer there: they are past, and kept."""
    _, served = mesh.publish("hkg", draft)
    mesh.client("hkg", draft).subscribe()
    mesh.run()
    for group in range(4):
        served.group(group, GROUPS[group], end_of_group=True)
        mesh.run(0.1)
    return served


@pytest.mark.parametrize("order", list(GroupOrder))
@pytest.mark.parametrize("draft", [16, 20])
def test_past_groups(draft: int, order: GroupOrder) -> None:
    def scene(mesh: Mesh, viewer: Client) -> list[Any]:
        four_groups(mesh, draft)
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
        served = four_groups(mesh, draft)
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
        served = four_groups(mesh, 20)
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
