"""What never came is a stall too, as long as what comes next is later: by the demo, and by who checks it."""

from __future__ import annotations

import json

import pytest

from bench.verify_trace import compute
from tests.control.test_measuring import record


@pytest.mark.parametrize(("dead_s", "longest_ms"), [(0.08, 0.0), (0.12, 120.0), (1.0, 1000.0)])
@pytest.mark.parametrize("late_s", [0.0, 0.15, 0.5])
def test_objects_that_were_skipped(dead_s: float, longest_ms: float, late_s: float) -> None:
    """Those after the hole come at once, or so much later than others: what a player holds covers 200 ms of that."""
    made = record(until=4, dead=(1.0, 1.0 + dead_s))
    (viewer,) = made.viewers.values()
    for number, one in enumerate(viewer.seen):
        if one.relay == "b":
            viewer.seen[number] = type(one)(one.relay, one.place, one.received + late_s, one.size)
    covered = 1000 * max(0.0, late_s - 0.2)
    wanted = longest_ms + covered if longest_ms else (1000 * dead_s + covered if covered else 0.0)
    found = made.summarize()
    assert found.longest_stall_ms == pytest.approx(wanted, abs=0.01)
    lines = [
        {"kind": "object", "viewer": "v", "relay": one.relay, "received": one.received, "size": one.size}
        | {"track": one.place[0], "group": one.place[1], "object": one.place[2], "sent": made.sent[one.place]}
        for one in viewer.seen
    ]
    sent = [{"kind": "sent", "track": t, "group": g, "object": o, "at": at} for (t, g, o), at in made.sent.items()]
    computed = compute(json.dumps(line) for line in [*lines, *sent, {"kind": "end", "at": 4.0}])
    assert computed.longest_stall_ms == pytest.approx(wanted, abs=0.01)
    assert computed.stalls == found.stalls
