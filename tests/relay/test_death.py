"""A relay that is gone without a word: how long until neighbours and the controller know, and where viewers go."""

from __future__ import annotations

import json

import pytest

from tests.sim.moving import Follower, Placed, Source, reader, writer
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
