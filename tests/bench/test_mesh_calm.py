"""T7's calm times: whether pictures stood more often without a controller than with it."""

from __future__ import annotations

import pytest

from bench.mesh import Verdicts, stalls_within, tell_calm
from tests.control.test_measuring import record

TIMES = {"plays": 1.0, "dead": 7.0, "calm": 24.0}


@pytest.mark.parametrize(
    ("dead", "begin", "end", "stalls"),
    [
        ((0.0, 0.0), 7.0, 13.0, 0),
        ((8.0, 9.0), 7.0, 13.0, 1),
        ((8.0, 9.0), 1.0, 7.0, 0),
        ((12.0, 14.0), 7.0, 13.0, 1),
        ((6.0, 14.0), 7.0, 13.0, 1),
        ((8.0, 8.08), 7.0, 13.0, 0),
    ],
    ids=["none", "within", "elsewhere", "over its end", "all of it", "short"],
)
def test_stalls_within_a_time(dead: tuple[float, float], begin: float, end: float, stalls: int) -> None:
    assert stalls_within(record(until=31, dead=dead), begin, end) == stalls


def test_who_came_later_is_not_asked() -> None:
    assert not record(until=31).during(-1.0, 5.0).viewers


@pytest.mark.parametrize(("dead", "failed"), [((8.0, 9.0), 1), ((2.0, 3.0), 0), ((26.0, 27.0), 1), ((15.0, 16.0), 0)])
def test_no_more_than_before(dead: tuple[float, float], failed: int, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = Verdicts()
    tell_calm(record(until=31, dead=dead), TIMES, verdicts)
    assert verdicts.failed == failed
    assert "stalls in calm times" in capsys.readouterr().out
