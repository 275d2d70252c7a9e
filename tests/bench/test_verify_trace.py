"""The trace's verifier: figures by hand, agreement with the demo's own, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.verify_trace import Figures, TraceError, compute, differences, main
from control.demo.measuring import Seen, summarize


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
    said = {"objects": 3, "gaps": 0, "join_ms": 500.0, "added_latency_ms_p50": -100.0, "added_latency_ms_p99": -100.0}
    assert len(differences(found, said | {"bytes": 300})) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"viewer": "a"}'])
def test_what_is_no_trace(text: str) -> None:
    with pytest.raises(TraceError):
        compute([text])


def test_an_empty_trace() -> None:
    assert compute([]) == Figures(0, 0, None, None, None, 0)


locations = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 5)), unique=True, max_size=40)


@given(locations, st.randoms(use_true_random=False))
def test_the_demo_says_the_same(found: list[tuple[str, int, int]], dice: Any) -> None:
    seen = []
    for viewer, group, number in found:
        sent = dice.uniform(0, 10)
        received = sent + dice.uniform(0, 2)
        dialled = {"a": 0.25, "b": 0.5}[viewer]
        seen.append(Seen(viewer, "r", "t", group, number, sent, received, dice.randrange(5000), dialled))
    computed = compute([one.line() for one in seen])
    assert not differences(computed, json.loads(summarize(seen).line()))


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
