"""The scene keeps its promise: the same seed, the same run, with controllers, viewers and faults in it."""

from __future__ import annotations

import pytest

from tests.sim.scene import Scene
from tests.sim.viewer import PERIOD_S, Publisher, longest_stall_s, pauses, watch


def story(seed: int) -> tuple[str, list[tuple[float, int]]]:
    scene = Scene(seed=seed, settle_s=6.0)
    Publisher(scene, "hkg-1")
    (viewer,) = watch(scene, ["fra"])
    scene.weather_of("hkg-1", "fra-1", loss=0.1)
    scene.run(1.0)
    scene.controller().kill()
    scene.run(0.5)
    scene.controller().start()
    scene.kill("sin-1")
    scene.run(1.5)
    return scene.trace_hash(), viewer.arrivals


def test_the_same_seed_gives_the_same_trace() -> None:
    first = story(7)
    assert story(7) == first
    assert story(8)[0] != first[0]


def steady(count: int) -> list[tuple[float, int]]:
    return [(10.0 + number * PERIOD_S, number) for number in range(count)]


def test_pauses() -> None:
    assert pauses(steady(50)) == [] and pauses([]) == []
    late = [(at + (0.5 if 20 <= index < 25 else 0.0), index) for at, index in steady(50)]
    ((at, length),) = pauses(late)
    assert at == pytest.approx(10.0 + 0.2 + 20 * PERIOD_S) and length == pytest.approx(0.3)
    lost = [(at, index) for at, index in steady(50) if index != 30]
    assert pauses(lost) == [], "what never came is left out"
    assert longest_stall_s(steady(25), 10.5, 15.0) == pytest.approx(15.0 - 10.96 - 0.24)
