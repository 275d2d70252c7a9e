"""The bench of faults: what it prints, and when it says that a floor is missed."""

from __future__ import annotations

from math import inf

import pytest

from bench import faults
from bench.faults import judge
from tests.sim.show import Fault


def made(first: float = 200.0, stall: float = 0.0, rtt: float = 80.0) -> Fault:
    return Fault("a-1", "b-1", rtt, 0.1, 100.0, 150.0, [first], [stall], [0.0])


def test_floors(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("loss", [made()] * 100, 300.0, 600.0) == []
    assert [text.split(" way, ")[1] for text in judge("loss", [made(700.0)] * 100, 300.0, 600.0)] == [
        "p50 700 ms (at most 300)",
        "p99 700 ms (at most 600)",
    ]
    (missed,) = judge("loss", [made(stall=400.0), *[made()] * 200], 300.0, 600.0)
    assert missed == "loss: pause of a viewer 400 ms (at most 300)"
    assert judge("loss", [made(inf, 900.0, rtt=200.0)], 300.0, 600.0) == [], "longer links are shown, not judged"
    assert "never" in capsys.readouterr().out


def test_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "inject", lambda *_: [made(900.0)])
    assert faults.main(["--virtual", "--faults", "1"]) == 1
    assert "FAIL" in capsys.readouterr().out
    monkeypatch.setattr(faults, "inject", lambda *_: [made()])
    assert faults.main(["--virtual", "--faults", "1"]) == 0
