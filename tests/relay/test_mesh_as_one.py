"""Two relays as one: what a publisher and a subscriber see of each other is the same where they are on different ones."""

from __future__ import annotations

import pytest

from tests.sim.client import NAMESPACE, TRACK
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.model import Location

GROUPS = [[b"%d.%d" % (group, number) * 40 for number in range(5)] for group in range(8)]


def everything(groups: range) -> list[tuple[Location, bytes]]:
    return [(Location(g, n), GROUPS[g][n]) for g in groups for n in range(5)]


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
