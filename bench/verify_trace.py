"""The demo's figures, computed anew from its trace, and compared with what it said.

    tradewind demo --headless --for 20s --json --trace trace.jsonl >summary.json
    python -m bench.verify_trace trace.jsonl [summary.json]

Lines are JSON objects; `kind` says of what (none: an object at a viewer), times are seconds on one clock.

- `object`: `viewer`, `relay`, `track`, `group`, `object`, `sent`, `received`, `size` (bytes), `dialled` (when that
  viewer began to connect); `sent`: every object that the publisher handed over, `at`
- `viewer`: somebody who is to be counted; `end`: when the show was over
- `fault`: `what` happened to `node` `at`; `moved`: since `at` a relay takes a track from another neighbour
- `acked`, `read`: a room's messages

Nothing here is shared with the demo, so that both would have to be wrong in the same way. Prints one JSON line; exit
code 0, 1 where the two differ, 2 where a file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from bench.recorded import read_text

ROUNDING_MS = 0.0011
"""The demo says milliseconds with three digits."""
NEEDED = {
    "object": ("viewer", "relay", "track", "group", "object", "sent", "received"),
    "sent": ("track", "group", "object", "at"),
    "viewer": ("viewer",),
    "fault": ("what", "node", "at"),
    "moved": ("relay", "track", "was", "at"),
    "acked": ("key",),
    "read": ("reader", "key"),
    "end": ("at",),
}
ON_ITS_WAY_S = 1.0
"""Seconds before the end in which what was lost once may still be on its way."""
IN_HAND_MS, STALL_MS, LOST_MS, LOST_AT_END_MS = 200.0, 100.0, 10_000.0, 5_000.0

Row = dict[str, Any]


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
    viewers: int = 0
    viewers_lost: int = 0
    stalls: int = 0
    longest_stall_ms: float = 0.0
    switch_ms_p50: float | None = None
    switch_ms_p99: float | None = None
    viewers_on_killed: int = 0
    media_on_faulted_link: int = 0
    messages_acked: int = 0
    messages_missing: int = 0
    duplicates: int = 0
    """Objects that one viewer has twice."""
    disordered: int = 0
    """Objects that came before they were sent: the clocks are not one."""


def compute(lines: Iterable[str]) -> Figures:
    """Compute every figure from the lines of a trace. Raises TraceError."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(number, line)
            by_kind[row.get("kind", "object")].append(row)
    objects = by_kind["object"]
    by_viewer: dict[str, list[Row]] = defaultdict(list)
    for row in objects:
        by_viewer[row["viewer"]].append(row)
    joined = {viewer: seen[0]["received"] for viewer, seen in by_viewer.items()}
    added = [(row["received"] - row["sent"]) * 1000 for row in objects if row["sent"] >= joined[row["viewer"]]]
    joins = [(seen[0]["received"] - seen[0]["dialled"]) * 1000 for seen in by_viewer.values() if "dialled" in seen[0]]
    places = [(row["viewer"], row["track"], row["group"], row["object"]) for row in objects]
    ended = max((row["at"] for row in by_kind["end"]), default=None)
    names = {row["viewer"] for row in by_kind["viewer"]} | set(by_viewer)
    published = _published(by_kind["sent"], objects)
    stalls = [stall for seen in by_viewer.values() for stall in _stalls(seen, published, ended)]
    kills = [row for row in by_kind["fault"] if row["what"] == "kill"]
    losses = [row for row in by_kind["fault"] if row["what"] == "loss"]
    switches = [time for kill in kills for time in _moved_viewers(by_viewer, kill)]
    switches += [time for loss in losses for time in _moved_tracks(by_kind["moved"], loss, by_kind["fault"])]
    readers: dict[str, set[str]] = defaultdict(set)
    for row in by_kind["read"]:
        readers[row["reader"]].add(row["key"])
    acked = {row["key"] for row in by_kind["acked"]}
    return Figures(
        objects=len(objects),
        gaps=_gaps(by_viewer, published, math.inf if ended is None else ended - ON_ITS_WAY_S),
        join_ms=max(joins, default=None),
        added_latency_ms_p50=_nearest_rank(added, 50),
        added_latency_ms_p99=_nearest_rank(added, 99),
        bytes=sum(row["size"] for row in objects) if all("size" in row for row in objects) else None,
        viewers=len(names),
        viewers_lost=sum(_is_lost([row["received"] for row in by_viewer[name]], ended) for name in names),
        stalls=len(stalls),
        longest_stall_ms=max(stalls, default=0.0),
        switch_ms_p50=_nearest_rank(switches, 50),
        switch_ms_p99=_nearest_rank(switches, 99),
        viewers_on_killed=sum(len(_on(by_viewer, kill)) for kill in kills),
        media_on_faulted_link=sum(loss.get("media_bytes", 0) for loss in losses),
        messages_acked=len(acked),
        messages_missing=sum(any(key not in had for had in readers.values()) for key in acked),
        duplicates=len(places) - len(set(places)),
        disordered=sum(row["received"] < row["sent"] for row in objects),
    )


def differences(computed: Figures, said: Row) -> list[str]:
    """Where a demo's summary says something else than its trace; one line each."""
    found = []
    for name in (field.name for field in fields(Figures) if field.name not in {"duplicates", "disordered"}):
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
        computed = compute(read_text(options.trace, TraceError).splitlines())
        said = None if options.summary is None else _summary(read_text(options.summary, TraceError))
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


def _row(number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TraceError(f"line {number} is no object")
    needed = NEEDED.get(row.get("kind", "object"), ())
    if any(name not in row for name in needed):
        raise TraceError(f"line {number} lacks one of {', '.join(needed)}")
    return row


def _published(sent: list[Row], objects: list[Row]) -> dict[str, list[tuple[float, int, int]]]:
    """For each track what was handed over, in the order of it; where nobody tells, what anybody had."""
    found: dict[str, set[tuple[float, int, int]]] = defaultdict(set)
    for row in sent:
        found[row["track"]].add((row["at"], row["group"], row["object"]))
    if not sent:
        for row in objects:
            found[row["track"]].add((row["sent"], row["group"], row["object"]))
    return {track: sorted(places) for track, places in found.items()}


def _gaps(by_viewer: dict[str, list[Row]], published: dict[str, list[tuple[float, int, int]]], until: float) -> int:
    """What was handed over between a viewer's oldest and newest object of a track, by `until`, and never came."""
    missing = 0
    for seen in by_viewer.values():
        had: dict[str, set[tuple[float, int, int]]] = defaultdict(set)
        for row in seen:
            if row["sent"] <= until:
                had[row["track"]].add((row["sent"], row["group"], row["object"]))
        for track, places in had.items():
            times = [sent for sent, _, _ in places]
            missing += sum(
                min(times) <= place[0] <= max(times) and place not in places for place in published.get(track, [])
            )
    return missing


def _stalls(seen: list[Row], published: dict[str, list[tuple[float, int, int]]], ended: float | None) -> list[float]:
    """How long the picture stood each time, in ms: a player shows what it has 200 ms after it could have at first."""
    tracks = {row["track"] for row in seen}
    pictures = [track for track in tracks if track.startswith("video")] or list(tracks)
    stalls: list[float] = []
    for track in pictures:
        arrivals: dict[tuple[int, int], float] = {}
        for row in seen:
            if row["track"] == track:
                arrivals.setdefault((row["group"], row["object"]), row["received"])
        wanted = [place for place in published.get(track, []) if place[0] >= seen[0]["received"]]
        shown_after_ms: float | None = None
        skipped: list[float] = []
        for sent, group, number in wanted:
            if (group, number) not in arrivals:
                skipped.append(sent)
                continue
            took_ms = 1000 * (arrivals[group, number] - sent)
            if shown_after_ms is None:
                shown_after_ms = took_ms + IN_HAND_MS
                skipped.clear()
            # What never came would have been on for as long as that; what came late is waited for besides.
            hole_ms = 1000 * (sent - skipped[0]) if skipped else 0.0
            stood_ms, shown_after_ms = hole_ms + max(took_ms - shown_after_ms, 0.0), max(took_ms, shown_after_ms)
            skipped.clear()
            if stood_ms >= STALL_MS:
                stalls.append(stood_ms)
        last = max((sent for sent, group, number in wanted if (group, number) in arrivals), default=None)
        never = [sent for sent, _, _ in wanted if last is not None and sent > last]
        if never and ended is not None and shown_after_ms is not None:
            stood_ms = 1000 * (ended - never[0]) - shown_after_ms
            if stood_ms >= STALL_MS:
                stalls.append(stood_ms)
    return stalls


def _is_lost(times: list[float], ended: float | None) -> bool:
    if not times:
        return True
    ordered = sorted(times)
    if ended is not None and 1000 * (ended - ordered[-1]) > LOST_AT_END_MS:
        return True
    return any(1000 * (later - earlier) > LOST_MS for earlier, later in pairwise(ordered))


def _on(by_viewer: dict[str, list[Row]], fault: Row) -> list[str]:
    """Who had the newest object before a fault from the relay that it befell."""
    found = []
    for viewer, seen in by_viewer.items():
        before = [row for row in seen if row["received"] < fault["at"]]
        # Of several at one time the last that is written counts.
        newest = max((row["received"] for row in before), default=None)
        if [row["relay"] for row in before if row["received"] == newest][-1:] == [fault["node"]]:
            found.append(viewer)
    return found


def _moved_viewers(by_viewer: dict[str, list[Row]], kill: Row) -> list[float]:
    times = []
    for viewer in _on(by_viewer, kill):
        elsewhere = [
            row["received"]
            for row in by_viewer[viewer]
            if row["received"] >= kill["at"] and row["relay"] != kill["node"]
        ]
        if elsewhere:
            times.append(1000 * (min(elsewhere) - kill["at"]))
    return times


def _moved_tracks(moves: list[Row], loss: Row, faults: list[Row]) -> list[float]:
    """For each track that the far end of a faulted way took from it: when it came from elsewhere."""
    following = min((fault["at"] for fault in faults if fault["at"] > loss["at"]), default=math.inf)
    first: dict[str, float] = {}
    for move in moves:
        if (move["relay"], move["was"]) == (loss["to"], loss["node"]) and loss["at"] <= move["at"] < following:
            first[move["track"]] = min(first.get(move["track"], math.inf), move["at"])
    return [1000 * (at - loss["at"]) for at in first.values()]


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


def _summary(text: str) -> Row:
    lines = [line for line in text.splitlines() if line.lstrip().startswith("{")]
    try:
        said = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError) as error:
        raise TraceError("the summary has no JSON line") from error
    assert isinstance(said, dict)
    return said


if __name__ == "__main__":
    sys.exit(main())
