"""Relays that go, with a controller beside: drained by an operator, and dead without a word."""

from __future__ import annotations

import json

import pytest

from control.state import Order
from tests.sim.moving import PERIOD_S, Follower, Placed, Source, reader, writer
from tests.sim.steered import REPORT_S, STEP_S, Steered
from tradewind.placing.answering import PlaceAnswer, PlaceRequest
from tradewind.placing.answering import Placed as Answer

NAMES = ["fra", "hkg", "osl", "sin"]
OTHERS = ["hkg", "osl", "sin"]
NOTICED_S = 1.5


def steered() -> tuple[Placed, Source, Steered]:
    """A mesh with a show, whose relays report to a controller out of step with each other."""
    mesh = Placed(NAMES, checks=False)
    source = Source(mesh, mesh.dial("hkg", writer()))
    control = Steered(mesh, {name: 0.27 * place for place, name in enumerate(NAMES)})
    control.run(2.5)
    return mesh, source, control


def asks(control: Steered, number: int) -> PlaceAnswer:
    """What the controller says to one of many viewers."""
    network = control.mesh.network
    request = PlaceRequest("demo", reader(), viewer=str(number))
    return control.plane.placement.answer(request, network.now, network.wall_now)


def placed_at(control: Steered) -> set[str]:
    answers = [asks(control, number) for number in range(24)]
    return {name for answer in answers if isinstance(answer, Answer) for name in answer.relays}


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.5, 0.95])
def test_all_know_in_time(after_s: float) -> None:
    """`after_s`: how long after its last report it dies."""
    mesh, _, control = steered()
    assert "fra" in placed_at(control)
    last = control.reported_at("fra")
    while control.reported_at("fra") == last:
        control.run(STEP_S)
    if after_s:
        control.run(after_s)
    assert control.reported_at("fra") + REPORT_S > mesh.network.now
    mesh.kill("fra")
    died = mesh.network.now
    while not all(mesh.link(name, "fra").is_silent for name in OTHERS):
        control.run(STEP_S)
    assert mesh.network.now - died < 0.5
    for name in OTHERS:
        placing = mesh.node(name).departures.placing
        assert placing is not None
        query = f"namespace=demo&jwt={reader()}"
        answer = placing.answer(query, "192.0.2.1", None, mesh.network.now, mesh.network.wall_now)
        assert isinstance(answer, Answer) and "fra" not in answer.relays, "they place nobody there themselves"
    while "fra" not in control.died:
        control.run(STEP_S)
    assert mesh.network.now - died < NOTICED_S
    assert "fra" not in placed_at(control)


def test_candidates_admit_before_anybody_knows() -> None:
    """What a viewer was told when it came is all it needs: nobody is asked again."""
    mesh, source, control = steered()
    source.stream(1.0, told=False)
    control.run(0.5)
    answer = asks(control, 1)
    assert isinstance(answer, Answer) and len(answer.relays) == 4
    candidates = [found["uri"] for found in json.loads(answer.body)["candidates"]]
    address, path = mesh.reached(candidates[0])
    first = mesh.named(address)
    viewer = Follower(mesh, mesh.client(first, path=path))
    source.stream(1.0, told=False)
    mesh.kill(first)
    for uri in candidates[1:]:
        address, path = mesh.reached(uri)
        assert mesh.client(mesh.named(address), path=path).is_open
    assert viewer.objects


def shows(control: Steered, source: Source, seconds: float) -> None:
    for _ in range(round(seconds / PERIOD_S)):
        source.send()
        control.run(PERIOD_S)


@pytest.mark.slow
def test_an_operator_drains_through_the_controller() -> None:
    """From the order to the last event: tables leave it out, viewers go, and who does not is told of."""
    mesh, source, control = steered()
    viewers = [Follower(mesh, mesh.dial("fra", reader())) for _ in range(5)]
    deaf = Follower(mesh, mesh.dial("fra", reader()), follows=False)
    shows(control, source, 1.0)
    network = mesh.network
    control.plane.order(Order("o-1", "fra", "drain", "ops", network.wall_now, 8.0), network.now, network.wall_now)
    shows(control, source, 3.0)
    for name in OTHERS:
        table = control.tables[name]
        assert {entry.id: entry.stage for entry in table.relays}["fra"] == "draining"
        hops = [found.next_hop for route in table.routes if route.origin != "fra" for found in route.candidates]
        assert hops and "fra" not in hops, "nobody reads through it"
    shows(control, source, 7.0)
    assert all(viewer.at in OTHERS and max(viewer.objects) == source.sent[-1] for viewer in viewers)
    assert all(max(viewer.gaps()) <= 0.2 for viewer in viewers)
    assert deaf.client.closed is not None
    told = [line for line in control.plane.events.after(0, 10_000) if line.relay == "fra"]
    kinds = [f"{line.kind} {line.detail}" if line.kind in {"stage", "overstayed"} else line.kind for line in told]
    assert kinds == [
        "joined",
        *(kind for kind in kinds if kind.startswith("link_")),
        "command",
        "command_done",
        "stage draining",
        "overstayed 1 did not move and were closed",
        "stage empty",
    ]
