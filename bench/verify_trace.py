"""The demo's figures, computed anew from its trace, and compared with what it said.

    tradewind demo --headless --for 20s --json --trace trace.jsonl >summary.json
    python -m bench.verify_trace trace.jsonl [summary.json]

A line of the trace is one object at one viewer: `viewer`, `relay`, `track`, `group`, `object`, `sent`, `received`
(seconds on one clock), `size` (bytes) and `dialled` (when that viewer began to connect). Nothing here is shared with
the demo, so that both would have to be wrong in the same way. Prints one JSON line; exit code 0, 1 where the two
differ, 2 where a file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROUNDING_MS = 0.0011
"""The demo says milliseconds with three digits."""
NEEDED = ("viewer", "relay", "track", "group", "object", "sent", "received")


class TraceError(Exception):
    """A file that cannot be used; says where and why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a trace says. None: the trace does not say."""

    objects: int
    gaps: int
    join_ms: float | None
    added_latency_ms_p50: float | None
    added_latency_ms_p99: float | None
    bytes: int | None
    duplicates: int = 0
    """Objects that one viewer has twice."""
    disordered: int = 0
    """Objects that came before they were sent: the clocks are not one."""


def compute(lines: Iterable[str]) -> Figures:
    """Compute every figure from the lines of a trace. Raises TraceError."""
    rows = [_row(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    by_viewer: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_viewer[row["viewer"]].append(row)
    joined = {viewer: min(row["received"] for row in seen) for viewer, seen in by_viewer.items()}
    added = [(row["received"] - row["sent"]) * 1000 for row in rows if row["sent"] >= joined[row["viewer"]]]
    joins = [(joined[row["viewer"]] - row["dialled"]) * 1000 for row in rows if "dialled" in row]
    places = [(row["viewer"], row["track"], row["group"], row["object"]) for row in rows]
    return Figures(
        objects=len(rows),
        gaps=_gaps(places),
        join_ms=max(joins, default=None),
        added_latency_ms_p50=_nearest_rank(added, 50),
        added_latency_ms_p99=_nearest_rank(added, 99),
        bytes=sum(row["size"] for row in rows) if all("size" in row for row in rows) else None,
        duplicates=len(places) - len(set(places)),
        disordered=sum(row["received"] < row["sent"] for row in rows),
    )


def differences(computed: Figures, said: dict[str, Any]) -> list[str]:
    """Where a demo's summary says something else than its trace; one line each."""
    found = []
    for name in ("objects", "gaps", "join_ms", "added_latency_ms_p50", "added_latency_ms_p99", "bytes"):
        ours = getattr(computed, name)
        if name not in said:
            found.append(f"{name}: the summary does not say")
        elif ours is None and said[name] is not None:
            found.append(f"{name}: the trace does not say, the summary says {said[name]}")
        elif not _equal(ours, said[name]):
            found.append(f"{name}: {ours} by the trace, {said[name]} by the summary")
    if computed.duplicates:
        found.append(f"{computed.duplicates} objects came twice to one viewer")
    if computed.disordered:
        found.append(f"{computed.disordered} objects came before they were sent")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, compare, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.verify_trace", description=__doc__.split("\n")[0])
    parser.add_argument("trace", help="what --trace wrote")
    parser.add_argument("summary", nargs="?", help="what --json wrote: its last line counts; - reads standard input")
    options = parser.parse_args(arguments)
    try:
        computed = compute(_read(options.trace).splitlines())
        said = None if options.summary is None else _summary(_read(options.summary))
    except TraceError as error:
        print(f"verify_trace: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(computed)))
    if said is None:
        return 0
    found = differences(computed, said)
    for line in found:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if found else 0


def _row(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict) or any(name not in row for name in NEEDED):
        raise TraceError(f"line {number} lacks one of {', '.join(NEEDED)}")
    return row


def _gaps(places: list[tuple[str, str, int, int]]) -> int:
    """Objects known to be missing between two that came, in each viewer's track.

    Groups count up by one and objects in a group from 0. How long a group was that ended early nobody here knows, so
    what is missing at its end does not count; of a group that is missing altogether one object does.
    """
    tracks: dict[tuple[str, str], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for viewer, track, group, number in places:
        tracks[viewer, track][group].add(number)
    missing = 0
    for groups in tracks.values():
        first = min(groups)
        missing += max(groups) - first + 1 - len(groups)
        for group, numbers in groups.items():
            start = min(numbers) if group == first else 0
            missing += max(numbers) + 1 - start - len(numbers)
    return missing


def _nearest_rank(values: list[float], percent: int) -> float | None:
    """The smallest value that at least `percent` % of all do not exceed."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(percent * len(values) / 100), 1) - 1]


def _equal(ours: float | None, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if isinstance(ours, int):
        return bool(ours == theirs)
    return isinstance(theirs, (int, float)) and abs(ours - theirs) <= ROUNDING_MS


def _summary(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.lstrip().startswith("{")]
    try:
        said = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError) as error:
        raise TraceError("the summary has no JSON line") from error
    assert isinstance(said, dict)
    return said


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{name} cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
