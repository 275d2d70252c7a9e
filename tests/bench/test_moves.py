"""The bench of moves at its smallest, and what counts as an outside player's playing elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.mesh_player import NEW_S, Look, first_elsewhere
from tests.bench.test_commands import run


@pytest.mark.slow
def test_two_viewers() -> None:
    found = run("bench.moves", "--viewers", "2", "--missed", "0.5")
    assert found.returncode == 0, found.stderr
    rows = {line[:10].strip(): line.split()[-6:] for line in found.stdout.splitlines()[2:]}
    assert list(rows) == ["open", "ask", "catch up", "together", "a second", "notice", "move"]
    viewer_ms, relay_ms, packets, size = map(float, rows["together"][:4])
    assert 0.5 < viewer_ms < 100 and 0.5 < relay_ms < 100
    assert packets > 8 and size > 36 * 170, "what was missed came"


def test_no_browser_is_told(tmp_path: Path) -> None:
    found = run("bench.mesh", "death", "--viewers", "2", "--player", PATH=str(tmp_path))
    assert found.returncode == 3
    assert "peer missing: Chromium" in found.stdout


def looks(*seen: tuple[float, str, float]) -> list[Look]:
    return [Look(*one) for one in seen]


def test_what_was_buffered_does_not_count() -> None:
    seen = looks(
        (9.9, "a", 50.0), (10.1, "a", 50.2), (10.6, "b", 50.2), (10.7, "b", 50.3), (11.5, "b", 50.2 + 2 * NEW_S)
    )
    assert first_elsewhere(seen, "a", 10.0) == pytest.approx(1.5)
    assert first_elsewhere(seen[:-1], "a", 10.0) is None


def test_a_clock_that_jumps_ahead_counts() -> None:
    seen = looks((9.9, "a", 50.0), (10.6, "b", 50.0), (11.0, "b", 52.0))
    assert first_elsewhere(seen, "a", 10.0) == pytest.approx(1.0)


def test_whoever_stays_plays_nowhere_else() -> None:
    assert first_elsewhere(looks((9.9, "a", 50.0), (12.0, "a", 53.0)), "a", 10.0) is None
    assert first_elsewhere([], "a", 10.0) is None
