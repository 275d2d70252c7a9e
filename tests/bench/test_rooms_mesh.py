"""A room on three relays and a controller as processes, with a `kill -9` of its home: what was promised is kept.

And the checker that says so finds a home that acknowledges before it stores, by the same kill.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bench import rooms_mesh
from bench.rooms_mesh import Outcome, Plan

pytestmark = pytest.mark.slow

PLAN = Plan(writers=10, per_s=100.0, seconds=8.0, kill_s=2.0)


def ran(plan: Plan, directory: Path) -> Outcome:
    with rooms_mesh.made(plan, directory) as mesh:
        return trio.run(rooms_mesh.run, mesh, plan)


def test_a_killed_home_takes_nothing_with_it(tmp_path: Path) -> None:
    outcome = ran(PLAN, tmp_path)
    report = rooms_mesh.checked(outcome)
    assert dict(report.faults) == {}
    assert len(outcome.notes.acked_at) == len(outcome.notes.sent_at) == 800
    assert max(outcome.notes.epochs) >= 2, "another relay is the home"
    print(*rooms_mesh.figures(outcome, report), sep="\n")


def test_the_checker_finds_a_home_that_acknowledges_before_it_stores(tmp_path: Path) -> None:
    outcome = ran(Plan(10, 100.0, 4.0, kill_s=2.0, mutant="ack-before-store"), tmp_path)
    assert "lost" in rooms_mesh.checked(outcome).faults
