"""The trace's verifier: figures by hand, agreement with the demo's own, and what it refuses."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.verify_trace import Figures, TraceError, compute, differences, main
from control.demo.measuring import Record


def line(group: int, number: int, sent: float, received: float, viewer: str = "a", **more: Any) -> str:
    row = {"viewer": viewer, "relay": "r", "track": "t", "group": group, "object": number, "sent": sent}
    return json.dumps(row | {"received": received, "size": 100, "dialled": 1.0} | more)


def test_figures_of_a_small_trace() -> None:
    # The viewer joins with the first object at 1.5: only what is sent from then on says what the network added.
    lines = [
        line(0, 3, 1.0, 1.5),
        line(0, 4, 1.6, 1.61),
        line(1, 0, 1.7, 1.72),
        line(1, 2, 1.8, 1.83),
        line(3, 0, 1.9, 1.94),
    ]
    published = [
        (0, 3, 1.0),
        (0, 4, 1.6),
        (1, 0, 1.7),
        (1, 1, 1.75),
        (1, 2, 1.8),
        (2, 0, 1.85),
        (3, 0, 1.9),
        (3, 1, 2.0),
    ]
    lines += [
        json.dumps({"kind": "sent", "track": "t", "group": group, "object": number, "at": at})
        for group, number, at in published
    ]
    found = compute(lines)
    assert (found.objects, found.gaps, found.bytes) == (5, 2, 500)
    assert found.join_ms == pytest.approx(500)
    assert found.added_latency_ms_p50 == pytest.approx(20)
    assert found.added_latency_ms_p99 == pytest.approx(40)
    assert found.duplicates == found.disordered == 0


def test_a_trace_of_the_seven_fields_alone() -> None:
    row = json.loads(line(0, 0, 1.0, 1.2))
    del row["size"], row["dialled"]
    found = compute([json.dumps(row)])
    assert (found.objects, found.bytes, found.join_ms) == (1, None, None)


def test_objects_that_came_twice_or_too_early_are_told() -> None:
    found = compute([line(0, 0, 1.0, 1.5), line(0, 0, 1.0, 1.6), line(0, 1, 2.0, 1.9)])
    assert (found.duplicates, found.disordered) == (1, 1)
    assert len(differences(found, asdict(found))) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"viewer": "a"}'])
def test_what_is_no_trace(text: str) -> None:
    with pytest.raises(TraceError):
        compute([text])


def test_an_empty_trace() -> None:
    assert compute([]) == Figures(0, 0, None, None, None, 0, viewers=0)


def show(dice: random.Random) -> list[dict[str, Any]]:
    """A show with everything in it that may be: faults, moves, late and missing objects, viewers who get nothing."""
    relays, tracks = ("a", "b", "c"), ("video-1", "audio")
    lines: list[dict[str, Any]] = [{"kind": "viewer", "viewer": viewer} for viewer in "vwx"]
    lines += [
        {
            "kind": "fault",
            "what": what,
            "node": dice.choice(relays),
            "to": "b",
            "at": dice.uniform(0, 20),
            "media_bytes": 7,
        }
        for what in dice.choices(("kill", "loss", "heal", "start"), k=dice.randrange(4))
    ]
    for track in tracks:
        for number in range(dice.randrange(40)):
            at = number * dice.choice((0.04, 0.4))
            lines.append({"kind": "sent", "track": track, "group": number // 5, "object": number % 5, "at": at})
            for viewer, dialled in (("v", 0.25), ("w", 0.5)):
                if dice.random() < 0.9:
                    late = dice.choice((0.01, 0.1, 0.5))
                    lines.append(
                        {"kind": "object", "viewer": viewer, "relay": dice.choice(relays), "track": track}
                        | {"group": number // 5, "object": number % 5, "sent": at, "received": at + late}
                        | {"size": dice.randrange(5000), "dialled": dialled}
                    )
        moved = {"kind": "moved", "relay": "b", "track": track, "was": dice.choice(relays), "now": "c"}
        lines.append({**moved, "at": dice.uniform(0, 20)})
    for key in "123":
        lines.append({"kind": "acked", "key": key, "at": 1.0})
        lines += [{"kind": "read", "reader": reader, "key": key} for reader in "rs" if dice.random() < 0.7]
    objects = [line for line in lines if line["kind"] == "object"]
    rest = [line for line in lines if line["kind"] != "object"]
    ended = [{"kind": "end", "at": dice.uniform(10, 30)}] if dice.random() < 0.8 else []
    return rest + sorted(objects, key=lambda line: line["received"]) + ended


@given(st.randoms(use_true_random=False))
def test_the_demo_says_the_same(dice: random.Random) -> None:
    lines = show(dice)
    record = Record()
    for line in lines:
        record.add(line)
    assert not differences(compute(map(json.dumps, lines)), json.loads(record.summarize().line()))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, summary = tmp_path / "trace", tmp_path / "summary"
    trace.write_text(line(0, 0, 1.0, 1.5) + "\n" + line(0, 1, 1.6, 1.7) + "\n")
    assert main([str(trace)]) == 0
    said = json.loads(capsys.readouterr().out)
    summary.write_text("ready\n" + json.dumps(said) + "\n")
    assert main([str(trace), str(summary)]) == 0
    summary.write_text(json.dumps(said | {"gaps": 1}))
    assert main([str(trace), str(summary)]) == 1
    assert "gaps: 0 by the trace, 1 by the summary" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
