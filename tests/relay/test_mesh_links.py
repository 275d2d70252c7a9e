"""Neighbours that prove themselves and measure their links, over QUIC on a virtual network."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from relay.links.states import Direction, State
from tests.sim.client import TRACK
from tests.sim.mesh import Mesh
from tests.sim.network import BLACKOUT, Weather
from tradewind.moqt.model import Location

LONG = Weather(delay_s=0.040, loss=0.002)
"""A link between continents: 80 ms there and back."""
PAYLOAD = bytes(800)


def settled(**how: object) -> Mesh:
    mesh = Mesh(["fra", "hkg", "sin"], measured=True, weather=LONG, **how)  # type: ignore[arg-type]
    mesh.run(3.0)
    return mesh


def test_links_come_up_and_sessions_with_them() -> None:
    mesh = settled()
    for one in mesh.relays:
        for other in mesh.relays:
            if one != other:
                link = mesh.link(one, other)
                assert (link.inbound, link.outbound) == (State.UP, State.UP)
                assert link.statistics(mesh.network.now).rtt_s == pytest.approx(0.080, abs=0.01)
                mesh.session(one, other)


def watched(mesh: Mesh) -> tuple[list[tuple[float, Location]], list[float]]:
    """A track of 25 objects a second from hkg, seen in fra: when each came, and when each was sent."""
    _, served = mesh.publish("hkg")
    mesh.prefer("fra", {"hkg": ["hkg", "sin"]})
    viewer = mesh.client("fra")
    request = viewer.subscribe()
    mesh.run()
    sent: list[float] = []

    def stream(seconds: float) -> None:
        for _ in range(round(seconds * 25)):
            served.group(len(sent), [PAYLOAD])
            mesh.network.touch(served.client)
            sent.append(mesh.network.now)
            mesh.run(0.04)

    mesh.stream = stream  # type: ignore[attr-defined]
    arrivals = viewer.arrivals.setdefault(request, [])
    return arrivals, sent  # type: ignore[return-value]


@pytest.mark.parametrize("fault", [BLACKOUT, dataclasses.replace(LONG, loss=0.10)], ids=["silence", "10 % loss"])
def test_a_fault_in_one_direction_moves_that_direction(fault: Weather) -> None:
    mesh = settled()
    arrivals, sent = watched(mesh)
    stream = mesh.stream  # type: ignore[attr-defined]
    stream(3.0)
    assert mesh.sources("fra") == {"hkg"}
    mesh.verdicts("fra"), mesh.verdicts("hkg")
    mesh.weather("hkg", "fra", fault)
    began = mesh.network.now
    stream(3.0)
    assert mesh.sources("fra") == {"sin"}
    inbound = [change for change in mesh.verdicts("fra") if change.new is State.BAD]
    assert {(change.neighbour, change.direction) for change in inbound} == {("hkg", Direction.INBOUND)}
    assert inbound[0].at - began < 0.6
    outbound = [change for change in mesh.verdicts("hkg") if change.new is State.BAD]
    assert {(change.neighbour, change.direction) for change in outbound} <= {("fra", Direction.OUTBOUND)}
    times = [at for at, _ in arrivals]
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.7
    assert len(arrivals) >= len(sent) - 10


def returning(fault: Weather) -> Mesh:
    """A track of fra's that hkg reads, while the direction from hkg to fra meets a fault."""
    mesh = settled()
    _, there = mesh.publish("fra")
    mesh.prefer("hkg", {"fra": ["fra", "sin"]})
    viewer = mesh.client("hkg")
    request = viewer.subscribe()
    mesh.run()
    for group in range(100):
        if group == 25:
            mesh.weather("hkg", "fra", fault)
        there.group(group, [PAYLOAD])
        mesh.network.touch(there.client)
        mesh.run(0.04)
    assert mesh.link("fra", "hkg").inbound is State.BAD
    assert mesh.link("hkg", "fra").inbound is State.UP
    mesh.run(1.0)
    assert len(viewer.arrivals[request]) == 100
    return mesh


def test_the_way_back_stays_where_it_is() -> None:
    mesh = returning(dataclasses.replace(LONG, loss=0.10))
    assert mesh.sources("hkg", TRACK) == {"fra"}


def test_nothing_is_expected_of_a_neighbour_that_hears_nothing() -> None:
    mesh = returning(BLACKOUT)
    assert mesh.link("hkg", "fra").is_unheard
    assert mesh.sources("hkg", TRACK) == {"sin"}


def test_a_link_that_comes_back_is_used_again() -> None:
    mesh = settled()
    watched(mesh)
    stream = mesh.stream  # type: ignore[attr-defined]
    stream(2.0)
    mesh.weather("hkg", "fra", BLACKOUT)
    stream(2.0)
    assert mesh.sources("fra") == {"sin"}
    mesh.weather("hkg", "fra", LONG)
    stream(8.0)
    assert mesh.link("fra", "hkg").inbound is State.UP
    assert mesh.sources("fra") == {"hkg"}


def test_a_table_that_forgets_a_neighbour_stops_nothing() -> None:
    mesh = settled()
    arrivals, _ = watched(mesh)
    stream = mesh.stream  # type: ignore[attr-defined]
    stream(1.0)
    mesh.follow("fra", ["sin"])
    stream(3.0)
    times = [at for at, _ in arrivals]
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.2
    mesh.session("fra", "hkg")


def test_a_neighbour_of_no_use_is_let_go() -> None:
    mesh = settled()
    mesh.follow("fra", ["sin"])
    mesh.run(1.5)
    fra = mesh.node("fra").mesh
    assert fra is not None
    assert "hkg" not in fra.neighbours
    assert all(
        found.neighbour is None or found.neighbour.id == "sin" for found in mesh.node("fra").attachments.values()
    )
