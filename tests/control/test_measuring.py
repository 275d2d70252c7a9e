"""The demo's figures, against hand-made traces and a slow count of what is missing."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from control.demo.measuring import Seen, count_gaps, percentile, summarize


def seen(group: int, number: int, *, viewer: str = "v", sent: float = 0.0, received: float = 0.0) -> Seen:
    return Seen(viewer, "r", "video", group, number, sent, received, 10, 1.0)


def test_nothing_came() -> None:
    summary = summarize([])
    assert summary.objects == summary.gaps == summary.bytes == 0
    assert summary.join_ms is None
    assert summary.added_latency_ms_p50 is None


def test_figures() -> None:
    lines = [
        seen(1, 0, sent=0.5, received=1.2),  # had been sent before the viewer joined: no latency of the network's
        seen(1, 1, sent=1.3, received=1.301),
        seen(1, 2, sent=1.4, received=1.403),
    ]
    summary = summarize(lines)
    assert json.loads(summary.line()) == {
        "objects": 3,
        "gaps": 0,
        "join_ms": 200.0,
        "added_latency_ms_p50": 1.0,
        "added_latency_ms_p99": 3.0,
        "bytes": 30,
    }


@given(st.sets(st.integers(0, 39), min_size=2))
def test_gaps_inside_groups_of_four(kept: set[int]) -> None:
    """Of ten groups of four objects some came: a hole inside a group counts what is missing, a late start too."""
    expected = 0
    ordered = sorted(kept)
    for one, following in pairwise(ordered):
        if one // 4 == following // 4:
            expected += following - one - 1
        else:
            expected += following % 4 + (following // 4 - one // 4 - 1)
    assert count_gaps([seen(number // 4, number % 4) for number in kept]) == expected


def test_each_viewer_counts_for_itself() -> None:
    assert count_gaps([seen(1, 0), seen(1, 1, viewer="w"), seen(1, 2)]) == 1


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert found is not None
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9
