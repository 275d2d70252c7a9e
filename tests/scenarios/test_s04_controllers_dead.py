"""S4: no controller for a while, a lossy link and a dead relay meanwhile; then everybody finds together by itself."""

from __future__ import annotations

import pytest

from control.registry.values import Condition
from tests.sim.scene import Scene
from tests.sim.viewer import PlacedViewer, Publisher, longest_stall_s, watch

THREE = ("fra-1", "hkg-1", "lhr-1")


@pytest.mark.slow
@pytest.mark.parametrize(("watched_s", "dead_s"), [(600.0, 0.0), (0.0, 600.0)])
def test_s4_controllers_dead_a_lossy_link_and_a_dead_relay_meanwhile(watched_s: float, dead_s: float) -> None:
    """Ten minutes: watched all through; and, at their end, by viewers whom relays have placed."""
    scene = Scene(THREE)
    Publisher(scene, "hkg-1") if watched_s else None
    viewers = watch(scene, ["fra", "fra", "lhr"]) if watched_s else []
    scene.run(2.0)
    before = {name: (scene.table(name).term, scene.table(name).generation) for name in THREE}
    scene.controller().kill()
    gone = scene.network.now
    scene.run(watched_s + dead_s)
    assert {name: (scene.table(name).term, scene.table(name).generation) for name in THREE} == before
    if not watched_s:
        Publisher(scene, "hkg-1")
        viewers = watch(scene, ["fra", "fra", "lhr"])
        scene.run(3.0)
    assert [viewer.moves[1:] for viewer in viewers] == [[], [], []]
    assert max(longest_stall_s(viewer.arrivals, gone, scene.network.now) for viewer in viewers) < 0.1

    scene.until(lambda: len(scene.sources("fra-1")) == 1)
    (source,) = scene.sources("fra-1")
    scene.weather_of(source, "fra-1", loss=0.10)
    began = scene.network.now
    scene.until(lambda: source not in scene.sources("fra-1"), 2.0)
    assert scene.network.now - began <= 1.2
    scene.run(1.0)
    assert max(longest_stall_s(viewer.arrivals, began, scene.network.now) for viewer in viewers) <= 0.3
    scene.weather_of(source, "fra-1")

    newcomer = PlacedViewer(scene, "fra")
    scene.until(lambda: newcomer.is_playing, 2.0)
    scene.kill("fra-1")
    killed = scene.network.now
    scene.run(4.0)
    moved = [*viewers[:2], newcomer]
    assert max(viewer.outage_s(killed) for viewer in moved) <= 3.0
    assert {viewer.relay for viewer in moved} == {"lhr-1"}

    scene.restart("fra-1")
    assert scene.table("fra-1").term == before["fra-1"][0], "from its disk, while nobody answers"
    scene.run(5.0)
    scene.controller().start()
    back = scene.network.now
    scene.run(27.0)
    views = scene.controller().plane.relays(scene.network.now)
    assert {name: view.condition for name, view in views.items()} == dict.fromkeys(THREE, Condition.ALIVE)
    assert all(scene.table(name).term > before[name][0] for name in THREE)
    assert all(viewer.is_playing for viewer in (*viewers, newcomer))
    assert max(longest_stall_s(viewer.arrivals, back, scene.network.now) for viewer in viewers) < 0.1


def test_a_controller_that_comes_back_changes_no_table_before_everybody_is_there() -> None:
    scene = Scene(THREE)
    tables: list[tuple[int, int, float]] = []
    scene.controller().kill()
    scene.run(30.0)
    scene.controller().start()
    began = scene.network.now
    generations = {name: scene.table(name).generation for name in THREE}
    missing = scene.controller().plane.missing(scene.network.now)
    assert missing == set(THREE)
    while scene.controller().plane.missing(scene.network.now):
        assert {name: scene.table(name).generation for name in THREE} == generations
        conditions = {view.condition for view in scene.controller().plane.relays(scene.network.now).values()}
        assert Condition.DEAD not in conditions
        scene.run(0.1)
    waited_s = scene.network.now - began
    assert waited_s <= 16.0 + 0.2
    scene.run(1.0)
    for name in THREE:
        table = scene.table(name)
        tables.append((table.term, len(table.relays), waited_s))
        assert [entry.id for entry in table.relays] == sorted(THREE)
        assert len(table.routes) == 2
    assert {term for term, _, _ in tables} == {scene.controller().plane.term}
