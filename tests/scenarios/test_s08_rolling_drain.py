"""S8: every relay is drained in its turn. Viewers are asked to move, and see nothing of it."""

from __future__ import annotations

import pytest

from control.state import Order
from tests.sim.scene import Scene
from tests.sim.viewer import Publisher, longest_stall_s, watch

FOUR = ("fra-1", "hkg-1", "lhr-1", "sin-1")


@pytest.mark.slow
def test_s8_a_drain_of_every_edge_in_turn_costs_nobody_anything() -> None:
    """The publisher's own relay is not drained: moving a publisher is its program's part."""
    scene = Scene(FOUR)
    Publisher(scene, "hkg-1")
    viewers = watch(scene, ["fra"] * 3 + ["lhr", "sin"])
    scene.run(2.0)
    began = scene.network.now
    for number, name in enumerate(("fra-1", "lhr-1", "sin-1")):
        control = scene.controller()
        control.order(Order(f"drain-{number}", name, "drain", "ops", scene.network.wall_now, deadline_s=10.0))
        ordered = scene.network.now
        scene.until(lambda name=name: scene.node(name).stage_name == "empty", 20.0)  # type: ignore[misc]
        assert scene.network.now - ordered <= 12.0
        assert all(viewer.relay != name for viewer in viewers)
        assert scene.node(name).tally.overstayed == 0
        control.order(Order(f"undrain-{number}", name, "undrain", "ops", scene.network.wall_now))
        scene.run(3.0)
        assert scene.node(name).stage_name == "serving"
    assert {move for viewer in viewers for _, _, move in viewer.moves} == {"placed", "goaway"}
    stalls = [longest_stall_s(viewer.arrivals, began, scene.network.now) for viewer in viewers]
    assert max(stalls) <= 0.2, stalls
    assert all(viewer.is_playing for viewer in viewers)
    orders = [order.progress for order in scene.controller().plane.commands.orders()]
    assert orders == ["done"] * 6
