"""The bench of paths at its smallest: that it runs, and that its floors can be missed."""

from __future__ import annotations

import pytest

from bench import paths


def test_it_measures_and_finds_its_floors_held(capsys) -> None:
    options = ["--relays", "40", "--rounds", "1", "--storm-relays", "12", "--storm-s", "15"]
    assert paths.main(options) == 0
    said = capsys.readouterr().out
    assert "40 relays, 32 regions, 1,560 pairs, 3 candidates each" in said
    assert "all three of 100.0%" in said
    assert "storm: 12 relays, 13 of 132 links flap once a second for 15 s\n  13 links found down" in said


def test_it_tells_what_it_missed(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "WHOLE_FLOOR_S", 0.0)
    assert paths.main(["--relays", "5", "--rounds", "1", "--storm-s", "0"]) == 1
    assert "FAIL  everything" in capsys.readouterr().out
