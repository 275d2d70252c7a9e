"""S9 and S10: a relay that lies, one whose reports are old, and clocks that are wrong."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from relay.steering import Steering
from tests.sim.network import BLACKOUT, Weather
from tests.sim.scene import CONTROL, Scene
from tradewind.contract.messages import Report

THREE = ("fra-1", "hkg-1", "lhr-1")


class Liar(Steering):
    """Every link of its is perfect."""

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        told = super().report(sequence, now, wall_now)
        links = tuple(
            replace(link, state="up", away_state="up", loss_ratio=0.0, away_loss_ratio=0.0, rtt_ms=1.0)
            for link in told.links
        )
        return replace(told, links=links, load=0.0)


def firsts(scene: Scene) -> dict[tuple[str, str], str]:
    """The first way of every pair in the table that its relay follows."""
    return {(name, route.origin): route.candidates[0].next_hop for name in THREE for route in scene.table(name).routes}


def test_s9_a_relay_that_reports_no_loss_hides_none() -> None:
    scene = Scene(THREE, settle_s=26.0)
    steering = scene.control("fra-1").helm._steered
    assert isinstance(steering, Steering)
    steering.__class__ = Liar
    scene.weather_of("lhr-1", "fra-1", loss=0.15)
    scene.weather_of("fra-1", "hkg-1", loss=0.15)
    scene.run(4.0)
    plane, now = scene.controller().plane, scene.network.now
    for sender, receiver in (("lhr-1", "fra-1"), ("fra-1", "hkg-1")):
        evidence = plane.registry.evidence_of(sender, receiver, now)
        assert evidence is not None
        assert evidence.loss_ratio >= 0.05 and not evidence.usable, (sender, receiver)
        assert evidence.rtt_ms >= 15.0, "nor is it nearer than its neighbour says"
    (route,) = [route for route in scene.table("fra-1").routes if route.origin == "lhr-1"]
    assert route.candidates[0].next_hop == "hkg-1"


def test_s9_reports_that_are_thirty_seconds_old_take_no_relay_out() -> None:
    """Its control link is cut, and its neighbours hear it: it is detached, and its links count by what they say."""
    scene = Scene(THREE, settle_s=26.0)
    address = scene.address("fra-1")
    scene.network.set_weather(address, CONTROL, BLACKOUT, both=True)
    before = firsts(scene)
    scene.run(30.0)
    plane, now = scene.controller().plane, scene.network.now
    view = plane.relays(now)["fra-1"]
    assert view.condition.value == "detached" and view.heard_age_s > 25.0
    assert "died" not in {line.kind for line in plane.events.after(0, 10_000)}
    assert all("fra-1" in {entry.id for entry in scene.table(name).relays} for name in THREE)
    assert firsts(scene) == before
    evidence = plane.registry.evidence_of("lhr-1", "fra-1", now)
    assert evidence is not None and evidence.age_s < 2.0, "its neighbour's word"
    scene.weather_of("lhr-1", "fra-1", loss=0.15)
    scene.run(3.0)
    evidence = plane.registry.evidence_of("lhr-1", "fra-1", scene.network.now)
    assert evidence is not None and evidence.loss_ratio >= 0.05, "neighbours say what of theirs did not come"
    scene.network.set_weather(address, CONTROL, Weather(delay_s=0.03), both=True)
    scene.until(lambda: scene.controller().plane.is_connected("fra-1"), 30.0)


@pytest.mark.parametrize("skews", [(5.0, -5.0, 0.0), (-5.0, 5.0, 5.0)])
def test_s10_clocks_that_disagree_change_nothing(skews: tuple[float, ...]) -> None:
    """Wall and monotonic clocks of the relays are off by up to 10 s of each other; certificates and tables count."""
    fair = Scene(THREE)
    scene = Scene(THREE)
    for name, skew in zip(THREE, skews, strict=True):
        scene.relay(name).wall_step_s = skew
    for one in (fair, scene):
        one.run(15.0)
    for name in THREE:
        ours, theirs = scene.table(name), fair.table(name)
        assert (ours.term, ours.generation) == (theirs.term, theirs.generation)
        assert [route.candidates for route in ours.routes] == [route.candidates for route in theirs.routes]
        assert scene.link_changes(name) == fair.link_changes(name)
    assert scene.alarms() == []


def test_s10_a_step_of_wall_time_is_no_event() -> None:
    scene = Scene(THREE)
    tables = {name: scene.table(name).generation for name in THREE}
    changes = {name: len(scene.link_changes(name)) for name in THREE}
    for step_s in (3600.0, -7200.0, 3601.0):
        scene.network.wall_offset_s += step_s
        scene.run(11.0)
        for name in THREE:
            assert scene.control(name).helm.statistics.controller == "main"
            assert len(scene.link_changes(name)) == changes[name]
            assert scene.table(name).generation > tables[name], "tables are taken as ever"
            assert not scene.control(name).helm.refusals
            tables[name] = scene.table(name).generation
    assert scene.alarms() == []


def test_s10_relays_meet_with_clocks_five_seconds_apart() -> None:
    """A relay that starts with a wrong clock proves itself, and believes others, all the same."""
    scene = Scene(THREE)
    scene.kill("fra-1")
    scene.run(5.0)
    scene.restart("fra-1")
    scene.relay("fra-1").wall_step_s = -5.0
    scene.run(8.0)
    assert scene.control("fra-1").helm.statistics.controller == "main"
    assert {scene.link("fra-1", other).inbound.value for other in ("hkg-1", "lhr-1")} == {"up"}
