"""`bench.control_links` at its smallest: relays join, report and get tables, viewers are answered, time is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import control_links


def test_time_moves_on_by_what_turns_take(tmp_path: Path) -> None:
    run = control_links.Run(tmp_path, 2, 50.0, 0.001)
    run.until(3.0)
    assert all(relay.welcome for relay in run.fleet.relays) and not run.fleet.lost
    run.viewers.begin(run.now)
    run.until(14.0)
    counts = run.host.plane.statistics()
    assert counts.links == 2 and counts.reports >= 20 and counts.tables >= 4
    assert run.fleet.tables >= 4
    assert 0 < sum(run.host.turns_s) < 14.0
    assert 400 < len(run.viewers.waited_s) < 700 and min(run.viewers.waited_s) >= 0.001
    assert run.host.plane.placement.statistics().placed == len(run.viewers.waited_s)


@pytest.mark.slow
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert control_links.main(["--relays", "3", "--for", "2", "--places", "20"]) == 0
    assert "reports" in capsys.readouterr().out
