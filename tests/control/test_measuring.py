"""The demo's figures, against hand-made records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.demo.measuring import Record, percentile

FRAME_S = 0.04


def record(*lines: dict[str, Any], until: float = 0.0, dead: tuple[float, float] = (0.0, 0.0)) -> Record:
    """A show of one track from second 0 on, seen by `v` by relay `a` 10 ms later, and by `b` after a dead time."""
    made = Record()
    for number in range(round(until / FRAME_S)):
        sent = number * FRAME_S
        made.add({"kind": "sent", "track": "video", "group": 1, "object": number, "at": sent, "size": 10})
        if dead[0] <= sent < dead[1]:
            continue
        relay = "b" if dead[1] and sent >= dead[1] else "a"
        made.add(
            {"kind": "object", "viewer": "v", "relay": relay, "track": "video", "group": 1, "object": number}
            | {"sent": sent, "received": sent + 0.01, "size": 10, "dialled": -0.5}
        )
    for line in lines:
        made.add(line)
    made.add({"kind": "end", "at": until})
    return made


def fault(what: str, at: float, node: str = "a", **more: Any) -> dict[str, Any]:
    return {"kind": "fault", "what": what, "node": node, "at": at, **more}


def test_nothing_came() -> None:
    found = record({"kind": "viewer", "viewer": "w"}).summarize()
    assert found.objects == found.gaps == found.bytes == found.stalls == 0
    assert found.join_ms is found.added_latency_ms_p50 is found.switch_ms_p50 is None
    assert (found.viewers, found.viewers_lost) == (1, 1)


def test_a_good_show() -> None:
    found = record(until=2).summarize()
    assert (found.objects, found.gaps, found.bytes, found.stalls, found.viewers_lost) == (50, 0, 500, 0, 0)
    assert found.join_ms == 510.0
    assert found.added_latency_ms_p50 == found.added_latency_ms_p99 == 10.0


@pytest.mark.parametrize(("dead_s", "stalls", "longest_ms"), [(0.28, 0, 0.0), (0.32, 1, 120.0), (1.0, 1, 800.0)])
def test_a_stall_is_what_the_buffer_does_not_cover(dead_s: float, stalls: int, longest_ms: float) -> None:
    """Objects that are late together: what a player holds hides 200 ms, and 100 ms nobody calls a stall."""
    made = record(until=4)
    (viewer,) = made.viewers.values()
    for number, one in enumerate(viewer.seen):
        if 1.0 <= one.received < 1.0 + dead_s:
            viewer.seen[number] = type(one)(one.relay, one.place, 1.01 + dead_s, one.size)
    found = made.summarize()
    assert found.stalls == stalls
    assert found.longest_stall_ms == pytest.approx(longest_ms, abs=0.01)


def test_a_relay_is_killed() -> None:
    made = record(fault("kill", 1.0), fault("kill", 1.0, "c"), until=4, dead=(1.0, 1.6))
    found = made.summarize()
    assert (found.viewers_on_killed, found.viewers_lost, found.gaps) == (1, 0, 15)
    assert found.switch_ms_p50 == pytest.approx(610)
    assert found.untouched == ("kill c",)


@pytest.mark.parametrize(("dead", "lost"), [((2.0, 13.0), 1), ((2.0, 11.0), 0), ((15.5, 20.0), 0), ((14.5, 20.0), 1)])
def test_lost(dead: tuple[float, float], lost: int) -> None:
    assert record(until=20, dead=dead).summarize().viewers_lost == lost


def test_a_picture_that_stands_at_the_end_has_stalled() -> None:
    found = record(until=10, dead=(8.0, 10.0)).summarize()
    assert found.stalls == 1
    assert found.longest_stall_ms == pytest.approx(2000 - 210, abs=50)


def test_a_link_is_faulted() -> None:
    moved = {"kind": "moved", "relay": "b", "track": "video", "was": "a", "now": "c", "at": 1.25}
    other = {**moved, "was": "c", "at": 1.1}
    late = {**moved, "at": 2.5}
    loss = fault("loss", 1.0, to="b", loss=1.0, media_bytes=500)
    heal = fault("heal", 2.0, to="b", loss=0.0, media_bytes=0)
    found = record(loss, heal, other, moved, late, until=4).summarize()
    assert found.switch_ms_p50 == found.switch_ms_p99 == pytest.approx(250)
    assert (found.media_on_faulted_link, found.untouched) == (500, ())
    assert record({**loss, "media_bytes": 0}, until=4).summarize().untouched == ("loss a to b",)


def test_messages() -> None:
    made = record(
        *({"kind": "acked", "key": key, "at": 1.0} for key in "xy"),
        *({"kind": "read", "reader": reader, "key": key, "at": 1.1} for reader, key in ("1x", "1y", "2x")),
    )
    assert (made.summarize().messages_acked, made.summarize().messages_missing) == (2, 1)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in values
    assert found is not None
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < share * len(ordered)
