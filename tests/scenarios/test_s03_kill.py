"""S3: a relay is killed. Its viewers hold candidates, and play elsewhere before its controller has moved anything."""

from __future__ import annotations

import pytest

from control.registry.values import Condition
from tests.sim.scene import Scene
from tests.sim.viewer import Publisher, watch

FOUR = ("fra-1", "hkg-1", "lhr-1", "sin-1")


@pytest.mark.slow
def test_s3_viewers_of_a_dead_relay_play_elsewhere_within_three_seconds() -> None:
    scene = Scene(FOUR)
    Publisher(scene, "hkg-1")
    here, there = watch(scene, ["fra"] * 8), watch(scene, ["sin"] * 2)
    scene.run(2.0)
    assert {viewer.relay for viewer in here} == {"fra-1"}
    scene.kill("fra-1")
    killed = scene.network.now
    scene.run(4.0)
    outages = [viewer.outage_s(killed) for viewer in here]
    assert max(outages) <= 3.0, outages
    assert {viewer.relay for viewer in here} == {"lhr-1"} and all(viewer.is_playing for viewer in here)
    assert all(not viewer.moves[1:] for viewer in there)
    plane = scene.controller().plane
    assert plane.relays(scene.network.now)["fra-1"].condition is Condition.DEAD
    died = next(line for line in plane.events.after(0, 10_000) if line.kind == "died")
    assert died.at_wall - (killed + scene.network.wall_offset_s) <= 3.0
    assert all("fra-1" not in {entry.id for entry in scene.table(name).relays} for name in FOUR[1:])


def test_a_relay_that_comes_back_at_once_is_let_in_at_once() -> None:
    """Killed and started again within a second, with its disk: its table is in force before any controller answers."""
    scene = Scene()
    scene.kill("fra-1")
    scene.run(0.8)
    before = scene.control("fra-1").disk
    scene.restart("fra-1")
    assert before is not None and scene.table("fra-1").relays, "the last table, from disk"
    began = scene.network.now
    scene.until(lambda: scene.control("fra-1").helm.statistics.controller, 10.0)
    assert scene.network.now - began <= 2.0
    assert scene.alarms() == []
    scene.run(3.0)
    assert scene.link("fra-1", "sin-1").inbound.value == "up"
