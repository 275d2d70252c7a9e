"""What links and relays cost, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from control.registry.values import Evidence, Place
from control.topology.paths import MAX_LINK_MS, NO_WAY, milliseconds
from control.topology.weights import Priors, Weights, WeightSettings
from tests.control.mesh import Mesh

SETTINGS = WeightSettings()


def evidence(sender: str, receiver: str, rtt_ms: float = 100.0, **changes) -> Evidence:
    fields = {"jitter_ms": 0.0, "loss_ratio": 0.0, "usable": True, "age_s": 0.0}
    return Evidence(sender, receiver, rtt_ms, **{**fields, **changes})


def weights(found=(), regions=None, places=None, priors=None, **mesh) -> Weights:
    there = Mesh(regions or {"a": "eu", "b": "us"}, places)
    for name, value in mesh.items():
        getattr(there, name).update(value)
    there.run(0.5)
    return Weights(SETTINGS, priors or Priors(), there.registry.members(there.now), found)


def cost_ms(known: Weights, sender: str, receiver: str) -> float:
    return float(milliseconds(known.links())[known.index[sender], known.index[receiver]])


@pytest.mark.parametrize(
    ("changes", "expected_ms"),
    [
        ({}, 50.0),
        ({"jitter_ms": 8.0}, 54.0),
        ({"loss_ratio": 0.0009}, 50.0),
        ({"loss_ratio": 0.01}, 50.0 + 2 * 100 * 0.01 * 10),
        ({"age_s": 5.0}, 50.0),
        ({"age_s": 15.0}, 70.0),
        ({"age_s": 110.0}, 150.0),
        ({"usable": False}, np.inf),
        ({"rtt_ms": 1e9}, MAX_LINK_MS),
    ],
)
def test_a_measured_link(changes, expected_ms) -> None:
    known = weights([evidence("a", "b", **changes)])
    assert cost_ms(known, "a", "b") == expected_ms
    parts = known.link(known.index["a"], known.index["b"])
    assert min(parts.cost_ms, MAX_LINK_MS) == pytest.approx(expected_ms) or parts.cost_ms == expected_ms


def test_a_price_is_the_senders() -> None:
    priors = Priors(usd_per_gb={("eu", "us"): 0.02, ("us", "eu"): 0.09})
    known = weights([evidence("a", "b"), evidence("b", "a")], priors=priors)
    assert (cost_ms(known, "a", "b"), cost_ms(known, "b", "a")) == (51.0, 54.5)


@pytest.mark.parametrize(
    ("load", "stage", "expected_ms"),
    [
        (0.6, "serving", 3.0),
        (0.9, "serving", 93.0),
        (0.95, "serving", np.inf),
        (0.0, "draining", np.inf),
        (0.0, "cordoned", 3.0),
    ],
)
def test_a_relay_on_the_way(load, stage, expected_ms) -> None:
    known = weights(load={"a": load}, stage={"a": stage})
    assert float(milliseconds(known.relays())[known.index["a"]]) == expected_ms


def test_what_is_not_measured_is_as_its_regions_other_links() -> None:
    regions = {"a": "eu", "a2": "eu", "b": "us", "b2": "us", "c": "sa"}
    places = {"eu": Place(50.0, 8.0), "us": Place(39.0, -77.0), "sa": Place(50.0, 8.0)}
    priors = Priors(rtt_ms={("eu", "us"): 500.0, ("sa", "us"): 120.0})
    known = weights([evidence("a", "b", 80.0)], regions, places, priors)
    assert cost_ms(known, "a", "b") == 40.0
    assert cost_ms(known, "a2", "b2") == 40.0 * 1.1 + 5
    assert cost_ms(known, "b2", "a2") == 250.0 * 1.1 + 5
    assert cost_ms(known, "b", "c") == 60.0 * 1.1 + 5
    assert cost_ms(known, "a", "c") == 5.0
    assert not known.link(known.index["a2"], known.index["b2"]).measured


def test_distances_are_those_of_great_circles() -> None:
    places = {"eu": Place(50.03, 8.57), "us": Place(40.64, -73.78)}
    known = weights((), places=places)
    kilometres = 6206.0
    expected = kilometres / 200 * 1.6 * 1.1 + 5
    assert cost_ms(known, "a", "b") == pytest.approx(expected, abs=1.0)


def test_of_nothing_known_a_guess() -> None:
    assert cost_ms(weights(), "a", "b") == 75.0 * 1.1 + 5


def test_new_evidence_and_removal() -> None:
    known = weights([evidence("a", "b")])
    assert milliseconds(np.array([known.set_evidence(evidence("a", "b", 60.0))])) == 30.0
    assert cost_ms(known, "a", "b") == 30.0
    assert known.set_evidence(evidence("a", "stranger")) is None
    known.remove("b")
    assert (known.links() == NO_WAY).all()
    assert known.remove("stranger") is None
