"""What operators hear of S1 and S2: a relay that leaves a bad link says so and why, and says when it is back.

A controller that answers makes another table in that same moment, which says what the relay does: then there is nothing
to tell, or it is over at once. One whose tables do not reach the relay sees it until the link has healed and its
probation is over.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from control.overrides import BEGUN, OVER
from control.views import node, overrides, route
from relay.links.states import Direction, State
from relay.orders import Fault, Orders, Taken
from tests.sim.scene import Scene
from tests.sim.show import Seat, track_of
from tests.sim.viewer import Publisher
from tradewind.contract.messages import Override

NAMES = ("fra-1", "hkg-1", "sin-1")
"""hkg-1 and sin-1 are near each other, and both far from fra-1."""
HERE, THERE = track_of("fra-1"), track_of("hkg-1")
pytestmark = pytest.mark.slow


class Watched:
    """hkg-1's track at fra-1, and fra-1's at hkg-1. With `alone` no table comes any more once that works."""

    def __init__(self, seed: int, alone: pytest.MonkeyPatch | None = None) -> None:
        self.scene = scene = Scene(NAMES, seed=seed)
        for name in NAMES:
            Publisher(scene, name, track_of(name))
        scene.run(0.5)
        self.seats = [Seat(scene, "fra-1", "hkg-1"), Seat(scene, "hkg-1", "fra-1")]
        scene.run(6.0)
        (self.first,) = scene.sources("fra-1", THERE)
        assert scene.table("fra-1").routes and not self.reported(), "all is as the tables say"
        if alone is not None:
            for name in ("receive_table", "receive_delta"):
                alone.setattr(Orders, name, lambda *_: Taken(Fault.UNSIGNED))

    def reported(self, relay: str = "fra-1") -> tuple[Override, ...]:
        """What the controller knows of one relay."""
        return self.scene.controller().plane.reports.overrides.of(relay)

    def lines(self) -> list[tuple[str, str, str]]:
        """Of the controller's log."""
        events = self.scene.controller().plane.events.after(0, 10_000)
        return [(line.kind, line.relay, line.detail) for line in events if line.kind in {BEGUN, OVER}]


@pytest.mark.parametrize("loss", [0.10, 1.0])
def test_from_the_fault_to_the_end_of_probation(loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(3, monkeypatch)
    scene, first, plane = watched.scene, watched.first, watched.scene.controller().plane
    scene.weather_of(first, "fra-1", loss=loss)
    began, wall_began = scene.network.now, scene.network.wall_now
    scene.until(watched.reported, 2.0)
    (one,) = watched.reported()
    (bad,) = (c for c in scene.link_changes("fra-1") if c.at > began and c.new is State.BAD)
    assert (bad.neighbour, bad.direction) == (first, Direction.INBOUND)
    assert (one.origin, one.instead_of) == ("hkg-1", first) and one.next_hop != first
    assert one.cause == f"the link is bad: {bad.cause.value}"
    moved = wall_began + bad.at - began
    assert moved < one.since_wall < moved + 0.5 and scene.network.now - bad.at < 0.6, "told as soon as tracks moved"
    scene.run(5.0)
    (same,) = watched.reported()
    assert replace(same, since_wall=one.since_wall) == one, "it goes on, and is the same"
    assert same.since_wall == pytest.approx(one.since_wall, abs=1e-3)
    (one,) = watched.reported()
    assert {"relay": "fra-1", "since_wall": round(one.since_wall, 6)}.items() <= overrides(plane)[0].items()
    explained = route(plane, "fra-1", "hkg-1", scene.network.now)
    assert explained is not None and [found["cause"] for found in explained["overrides"]] == [one.cause]
    shown = node(plane, "fra-1", scene.network.now)
    assert shown is not None and shown["overridden"] == 1 == len(shown["overrides"])
    healed = scene.network.now
    scene.weather_of(first, "fra-1")
    scene.until(lambda: watched.reported()[0].cause == f"{one.cause}; now: the link is on probation", 5.0)
    scene.until(lambda: not watched.reported(), 30.0)
    assert scene.network.now - healed >= scene.link("fra-1", first)._settings.hold_s
    assert scene.link("fra-1", first).inbound is State.UP and scene.sources("fra-1", THERE) == {first}
    assert [kind for kind, relay, _ in watched.lines() if relay == "fra-1"] == [BEGUN, OVER]


def test_only_the_faulty_direction_is_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(3, monkeypatch)
    scene, first = watched.scene, watched.first
    before = scene.sources("hkg-1", HERE)
    scene.weather_of(first, "fra-1", loss=0.10)
    scene.until(watched.reported, 2.0)
    scene.run(5.0)
    assert scene.sources("hkg-1", HERE) == before
    assert not watched.reported("hkg-1") and not watched.reported("sin-1")


def test_silence_takes_the_other_direction_with_it_which_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hears nothing acknowledges nothing: what comes from there runs dry, whatever the table says."""
    watched = Watched(9, monkeypatch)
    scene, first = watched.scene, watched.first
    assert (first, scene.sources("hkg-1", HERE)) == ("hkg-1", {"fra-1"}), "each directly from the other"
    scene.weather_of(first, "fra-1", loss=1.0)
    scene.until(lambda: watched.reported("hkg-1"), 3.0)
    (one,) = watched.reported("hkg-1")
    assert (one.origin, one.instead_of, one.next_hop) == ("fra-1", "fra-1", "sin-1")
    assert one.cause == "the link is bad: it hears nothing of us"


def test_a_controller_that_answers_agrees_with_the_relay() -> None:
    watched = Watched(3)
    scene, first = watched.scene, watched.first
    scene.weather_of(first, "fra-1", loss=0.10)
    scene.run(3.0)
    (source,) = scene.sources("fra-1", THERE)
    (found,) = (found for found in scene.table("fra-1").routes if found.origin == "hkg-1")
    assert source != first and found.candidates[0].next_hop == source
    assert not watched.reported()
    kinds = [kind for kind, relay, _ in watched.lines() if relay == "fra-1"]
    assert kinds in ([], [BEGUN, OVER]), "whatever came first"
