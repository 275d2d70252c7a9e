"""What a demo's viewer saw, in numbers: gaps, time to join, latency that the network added. Pure.

`bench.verify_trace` computes the same figures anew from the trace alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import ceil


@dataclass(frozen=True, slots=True)
class Seen:
    """One object at one viewer: a line of the trace. Times are seconds on one monotonic clock."""

    viewer: str
    relay: str
    track: str
    group: int
    object: int
    sent: float
    """When the publisher handed it over."""
    received: float
    """When its last byte had come."""
    size: int
    """Payload bytes."""
    dialled: float
    """When this viewer began to connect."""

    def line(self) -> str:
        """The trace's JSON line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's one JSON line."""

    objects: int
    gaps: int
    """Objects that are missing between two that came, in a viewer's track."""
    join_ms: float | None
    """From dialling to the first whole media object; the slowest viewer's. None: nothing came."""
    added_latency_ms_p50: float | None
    """From the publisher's hand-over to the last byte at the viewer, of objects sent after the viewer had joined."""
    added_latency_ms_p99: float | None
    bytes: int

    def line(self) -> str:
        """One JSON line."""
        return json.dumps(asdict(self))


def summarize(seen: Sequence[Seen]) -> Summary:
    """The figures of a run: every object that every viewer saw."""
    first: dict[str, float] = {}
    for one in seen:
        first[one.viewer] = min(first.get(one.viewer, float("inf")), one.received)
    added = sorted(1000 * (one.received - one.sent) for one in seen if one.sent >= first[one.viewer])
    joins = [1000 * (first[one.viewer] - one.dialled) for one in seen]
    return Summary(
        objects=len(seen),
        gaps=count_gaps(seen),
        join_ms=_rounded(max(joins, default=None)),
        added_latency_ms_p50=_rounded(percentile(added, 0.50)),
        added_latency_ms_p99=_rounded(percentile(added, 0.99)),
        bytes=sum(one.size for one in seen),
    )


def count_gaps(seen: Sequence[Seen]) -> int:
    """Objects missing between the first and the last that came, for each viewer and track.

    Groups count up by one and objects in a group from 0, as `tradewind publish` numbers them: a group that begins late,
    a hole in one, or a group left out altogether count what is known to be missing, at least one.
    """
    gaps = 0
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in seen:
        places.setdefault((one.viewer, one.track), []).append((one.group, one.object))
    for locations in places.values():
        ordered = sorted(set(locations))
        for (group, number), (next_group, next_number) in pairwise(ordered):
            if next_group == group:
                gaps += next_number - number - 1
            else:
                gaps += next_number + (next_group - group - 1)
    return gaps


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of the ordered values do not exceed (nearest rank); None where there are none."""
    if not ordered:
        return None
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
