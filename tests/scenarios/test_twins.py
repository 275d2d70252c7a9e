"""Two relays with one certificate, and a command that comes twice."""

from __future__ import annotations

from control.state import Order
from tests.sim.scene import Scene
from tests.sim.viewer import Publisher, longest_stall_s, watch
from tradewind.contract.messages import Command

THREE = ("fra-1", "hkg-1", "lhr-1")


def test_a_second_relay_with_one_id_gets_nothing_and_disturbs_nobody() -> None:
    scene = Scene(THREE)
    Publisher(scene, "hkg-1")
    (viewer,) = watch(scene, ["fra"])
    scene.run(2.0)
    began, changes = scene.network.now, len(scene.link_changes("lhr-1"))
    first = scene.control("fra-1")
    twin = scene.twin("fra-1", ("198.51.100.77", 4443))
    mesh = twin.node.mesh
    assert mesh is not None and twin.control is not None
    mesh.set_neighbours({name: scene.address(name) for name in THREE[1:]}, scene.network.now)
    scene.network.touch(twin)
    scene.run(8.0)
    assert twin.control.helm.statistics.welcomes == 0
    assert [why for _, why in twin.control.ends[:2]] == ["two_boots"] * 2
    assert twin.control.helm.orders.table is None
    assert first.helm.statistics.controller == "main" and first.ends == []
    assert set(scene.alarms()) == {"two_boots"}
    assert len(scene.link_changes("lhr-1")) == changes, "links to the first stand as they stood"
    assert not [a for a in twin.node.attachments.values() if a.neighbour is not None]
    assert viewer.moves[1:] == [] and longest_stall_s(viewer.arrivals, began, scene.network.now) < 0.1


def test_the_second_takes_its_place_when_the_first_dies() -> None:
    scene = Scene(THREE)
    twin = scene.twin("fra-1", ("198.51.100.77", 4443))
    scene.run(3.0)
    scene.kill("fra-1")
    assert twin.control is not None
    scene.until(lambda: twin.control is not None and twin.control.helm.statistics.controller, 20.0)
    scene.run(1.0)
    assert twin.control.helm.orders.table is not None


def command(scene: Scene, name: str, message: Command) -> None:
    host = scene.controller()
    link = host.plane.link_of(name)
    assert link is not None
    host._links.send(link, message)
    scene.network.touch(host)
    scene.run(0.5)


def test_a_command_that_comes_twice_acts_once() -> None:
    scene = Scene(THREE)
    helm, node = scene.control("fra-1").helm, scene.node("fra-1")
    asked = Order("x1", "fra-1", "cordon", "ops", scene.network.wall_now)
    reply = scene.controller().order(asked)
    assert reply is not None and reply.status == 202
    scene.run(0.5)
    assert node.cordoned and scene.controller().plane.commands.orders()[0].progress == "done"
    node.departures.cordoned = False
    command(scene, "fra-1", Command("x1", "cordon"))
    assert not node.cordoned and helm.statistics.repeated == 1, "answered, and not done again"
    command(scene, "fra-1", Command("x1", "drain", deadline_s=5.0))
    assert node.departures.emptying is None and helm.statistics.conflicting == 1
    again = scene.controller().order(asked)
    assert again is not None and again.status == 200
    other = scene.controller().order(Order("x1", "fra-1", "drain", "ops", scene.network.wall_now))
    assert other is not None and other.status == 409
    scene.run(2.0)
    assert node.departures.emptying is None and not node.cordoned


def test_an_order_whose_answer_was_lost_is_answered_the_same_after_a_new_link() -> None:
    """A kick that is repeated finds nobody: what counts is what became of it the first time."""
    scene = Scene(THREE)
    client = scene.client("fra-1")
    session = max(scene.node("fra-1").attachments)
    command(scene, "fra-1", Command("k1", "kick", session=session))
    scene.run(0.5)
    assert client.closed is not None
    helm = scene.control("fra-1").helm
    helm.end("the link breaks")
    scene.network.touch(scene.control("fra-1"))
    scene.until(lambda: helm.statistics.welcomes == 2, 20.0)
    command(scene, "fra-1", Command("k1", "kick", session=session))
    assert helm.statistics.repeated == 1
    assert helm._over["k1"][1].ok
