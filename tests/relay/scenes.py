"""Scenes played twice: what publisher and subscriber see of each other is the same where they are at different relays.

Every scene is played with the subscriber beside the publisher, and with the subscriber at its relay's neighbour; what
the subscriber is told must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.sim.client import NAMESPACE, Client
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.model import NO_PARAMETERS, FullTrackName, Location, Parameters

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
