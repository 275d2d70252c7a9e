"""The bench of links at its smallest, and what it promises, in virtual time."""

from __future__ import annotations

import pytest

from bench import links
from bench.links import CALM, Seen, alarms_of_tests, calm_world, count_alarms, detect, percentile


@pytest.mark.parametrize(
    ("rtt_s", "most_p50_ms", "most_p90_ms"), [(0.03, 150, 300), (0.08, 230, 400), (0.15, 330, 500)]
)
def test_loss_on_a_link_with_media_is_seen(rtt_s: float, most_p50_ms: float, most_p90_ms: float) -> None:
    """T1: 10 % in one direction is BAD at its receiving end soon enough; the other direction is not."""
    seen = detect(rtt_s, 0.1, True, 40, 3)
    assert percentile(seen.bad_ms, 0.5) <= most_p50_ms
    assert percentile(seen.bad_ms, 0.9) <= most_p90_ms
    assert (seen.missed, seen.wrong) == (0, 0)
    assert all(suspect <= bad for suspect, bad in zip(seen.suspect_ms, seen.bad_ms, strict=True))


@pytest.mark.parametrize(("media", "most_ms"), [(True, 220), (False, 420)])
def test_silence_is_seen(media: bool, most_ms: float) -> None:
    seen = detect(0.15, 1.0, media, 25, 3)
    assert max(seen.bad_ms) <= most_ms
    assert (seen.missed, seen.wrong) == (0, 0)


@pytest.mark.parametrize("row", range(len(CALM)), ids=lambda row: f"{CALM[row][0]}, {CALM[row][1]}")
def test_weather_is_no_fault(row: int) -> None:
    _, media, way, every_s, dropped = CALM[row]
    alarms = count_alarms(calm_world(5, media, way, every_s, dropped), 0.01)
    assert alarms.bad == 0
    assert alarms.suspect <= 12


def test_tests_of_loss_seldom_err() -> None:
    alarms = alarms_of_tests(0.002, 200.0, 20.0, 1)
    assert alarms.bad == 0
    assert 20 < alarms.suspect / alarms.hours < 120


def test_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert links.main(["--faults", "1", "--hours", "0.0005", "--test-hours", "0.1", "--parts", "detection,alarms"]) in {
        0,
        1,
    }
    assert "detection" in capsys.readouterr().out
    monkeypatch.setattr(links, "detect", lambda *_: Seen([1.0], [900.0]))
    assert links.main(["--parts", "detection"]) == 1
    assert "FAIL" in capsys.readouterr().out
