"""S6: links that go up and down once a second. Plans rest, and media do not follow the flapping."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest

from tests.sim.scene import Scene
from tests.sim.viewer import Publisher, watch

THREE = ("fra-1", "hkg-1", "lhr-1")
REST_S = 10.0


class Diary:
    """When the first way of each pair changed in the table that its relay follows, and the source of a track."""

    def __init__(self, scene: Scene, watched: str = "") -> None:
        self.scene = scene
        self.watched = watched
        self.plans: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.moves: list[float] = []
        self._ways: dict[tuple[str, str], str] = {}
        self._source: set[str] = set()

    def look(self) -> None:
        now = self.scene.network.now
        for name in self.scene.relays:
            for route in self.scene.table(name).routes:
                pair, way = (name, route.origin), route.candidates[0].next_hop
                if self._ways.setdefault(pair, way) != way:
                    self._ways[pair] = way
                    self.plans[pair].append(now)
        if self.watched:
            found = self.scene.sources(self.watched)
            if len(found) == 1:
                if self._source and self._source != found:
                    self.moves.append(now)
                self._source = found


def flap(scene: Scene, diary: Diary, source: str, target: str, seconds: float) -> None:
    """One direction of a link is silent for the first half of every second."""
    for _ in range(round(seconds)):
        for loss in (1.0, scene.loss):
            scene.weather_of(source, target, loss=loss)
            scene.run(0.5)
            diary.look()


def closest_s(moments: list[float]) -> float:
    return min((later - earlier for earlier, later in pairwise(moments)), default=float("inf"))


@pytest.mark.slow
def test_s6_ten_minutes_of_flapping_change_no_pair_twice_in_ten_seconds() -> None:
    """One of six directed links. T13: at most one change of a pair in 10 s, and no end of them is no answer either."""
    scene = Scene(THREE, settle_s=30.0)
    diary = Diary(scene)
    diary.look()
    flap(scene, diary, "lhr-1", "fra-1", 600.0)
    assert diary.plans, "the plan left the link"
    assert min(closest_s(moments) for moments in diary.plans.values()) >= REST_S - 0.5, dict(diary.plans)
    assert max(len(moments) for moments in diary.plans.values()) <= 6, dict(diary.plans)
    scene.weather_of("lhr-1", "fra-1")
    scene.run(130.0)
    assert scene.link("fra-1", "lhr-1").inbound.value == "up", "and forgives in the end"


@pytest.mark.slow
def test_media_do_not_follow_the_flapping() -> None:
    scene = Scene(THREE, settle_s=30.0)
    Publisher(scene, "hkg-1")
    (viewer,) = watch(scene, ["fra"])
    scene.run(2.0)
    scene.until(lambda: len(scene.sources("fra-1")) == 1)
    (source,) = scene.sources("fra-1")
    diary = Diary(scene, "fra-1")
    diary.look()
    flap(scene, diary, source, "fra-1", 30.0)
    assert scene.sources("fra-1") != {source}
    assert 1 <= len(diary.moves) <= 3 and viewer.moves[1:] == []
    assert viewer.is_playing
