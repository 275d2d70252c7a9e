"""The bench of a drain, at its smallest."""

from __future__ import annotations

import pytest

from bench import draining


def test_a_few_viewers(capsys: pytest.CaptureFixture[str]) -> None:
    assert draining.main(["--viewers", "3", "--deadline", "4"]) == 0
    said = capsys.readouterr().out
    assert "objects missed 0" in said and said.endswith("PASS\n")


def test_a_picture_that_stands_still_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "STILL_S", 0.01)
    assert draining.main(["--viewers", "2", "--deadline", "1"]) == 1
    assert capsys.readouterr().out.endswith("FAIL\n")
