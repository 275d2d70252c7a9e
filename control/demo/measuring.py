"""What the demo's processes said, in numbers: gaps, stalls, latency, and what each fault did to whom. Pure.

Lines are JSON objects with a `kind`; all times are seconds on one clock, the machine's monotonic one:

    viewer   viewer                                         somebody who is to be counted
    sent     track group object at size                     the publisher handed an object over
    object   viewer relay track group object sent received size dialled
    fault    what node [to loss media_bytes] at             what happened to whom
    moved    relay track was now at                         a relay takes a track from another neighbour now
    acked    key at / read reader key at                    a room's message: on disk; at a reader
    end      at                                             nothing after this counts

`bench.verify_trace` computes the same figures anew from the trace alone.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import ceil
from typing import Any

BUFFER_S = 0.2
"""What a player keeps in hand."""
STALL_S = 0.1
"""A picture that stands for less is not called a stall."""
ON_ITS_WAY_S = 1.0
"""What was sent this shortly before the end is not missed."""
LOST_S, LOST_AT_END_S = 10.0, 5.0
"""A viewer who gets nothing for so long is lost; so is one who got nothing for so long when the show ended."""

Place = tuple[str, int, int]
"""Track, group, object."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One object at one viewer."""

    relay: str
    place: Place
    received: float
    size: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's one JSON line. Milliseconds; None where there is nothing to say."""

    objects: int
    gaps: int
    """Objects that were sent between a viewer's first and last and never came, but for the show's last second."""
    join_ms: float | None
    """From dialling to the first whole media object; the slowest viewer's."""
    added_latency_ms_p50: float | None
    """From the publisher's hand-over to the last byte at the viewer, of objects sent after the viewer had joined."""
    added_latency_ms_p99: float | None
    bytes: int
    viewers: int
    viewers_lost: int
    stalls: int
    """Times at which a picture stood for 100 ms or longer, with a buffer of 200 ms."""
    longest_stall_ms: float
    switch_ms_p50: float | None
    """From a fault to the first object by another way: a viewer's by another relay, a relay's by another neighbour."""
    switch_ms_p99: float | None
    viewers_on_killed: int
    media_on_faulted_link: int
    """Bytes of media that went there in the last second before it was faulted, all faults together."""
    messages_acked: int
    messages_missing: int
    """Acknowledged, and yet some reader who was there to the end never had it."""
    untouched: tuple[str, ...] = ()
    """Faults that nobody can have noticed."""

    def line(self) -> str:
        """One JSON line."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Viewer:
    """What one viewer had."""

    name: str
    dialled: float
    seen: list[Seen] = field(default_factory=list)
    bytes: int = 0


@dataclass(slots=True)
class Record:
    """Everything that was said so far."""

    viewers: dict[str, Viewer] = field(default_factory=dict)
    sent: dict[Place, float] = field(default_factory=dict)
    faults: list[Mapping[str, Any]] = field(default_factory=list)
    moved: list[Mapping[str, Any]] = field(default_factory=list)
    acked: dict[str, float] = field(default_factory=dict)
    read: dict[str, set[str]] = field(default_factory=dict)
    ended: float | None = None

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line."""
        match line["kind"]:
            case "viewer":
                self.viewers.setdefault(line["viewer"], Viewer(line["viewer"], 0.0))
            case "sent":
                self.sent[line["track"], line["group"], line["object"]] = line["at"]
            case "object":
                self._object(line)
            case "fault":
                self.faults.append(line)
            case "moved":
                self.moved.append(line)
            case "acked":
                self.acked[line["key"]] = line["at"]
            case "read":
                self.read.setdefault(line["reader"], set()).add(line["key"])
            case "end":
                self.ended = line["at"]
            case _:
                pass

    def _object(self, line: Mapping[str, Any]) -> None:
        viewer = self.viewers.setdefault(line["viewer"], Viewer(line["viewer"], line["dialled"]))
        viewer.dialled = viewer.dialled or line["dialled"]
        place = (line["track"], line["group"], line["object"])
        viewer.seen.append(Seen(line["relay"], place, line["received"], line["size"]))
        viewer.bytes += line["size"]

    def summarize(self) -> Summary:
        """All figures."""
        viewers = [viewer for viewer in self.viewers.values() if viewer.seen]
        added = sorted(late for viewer in viewers for late in self._latencies(viewer))
        joins = [viewer.seen[0].received - viewer.dialled for viewer in viewers]
        stalls = [stall for viewer in viewers for stall in self.stalls(viewer)]
        switches = sorted(self.switches())
        return Summary(
            objects=sum(len(viewer.seen) for viewer in viewers),
            gaps=sum(self._gaps(viewer) for viewer in viewers),
            join_ms=_ms(max(joins, default=None)),
            added_latency_ms_p50=_ms(percentile(added, 0.50)),
            added_latency_ms_p99=_ms(percentile(added, 0.99)),
            bytes=sum(viewer.bytes for viewer in viewers),
            viewers=len(self.viewers),
            viewers_lost=sum(self._is_lost(viewer) for viewer in self.viewers.values()),
            stalls=len(stalls),
            longest_stall_ms=_ms(max(stalls, default=0.0)) or 0.0,
            switch_ms_p50=_ms(percentile(switches, 0.50)),
            switch_ms_p99=_ms(percentile(switches, 0.99)),
            viewers_on_killed=sum(len(self.watching(fault)) for fault in self.faults if fault["what"] == "kill"),
            media_on_faulted_link=sum(fault.get("media_bytes", 0) for fault in self.faults if fault["what"] == "loss"),
            messages_acked=len(self.acked),
            messages_missing=sum(any(key not in had for had in self.read.values()) for key in self.acked),
            untouched=tuple(_told(fault) for fault in self.faults if not self._touched(fault)),
        )

    def during(self, begin: float, end: float) -> Record:
        """What was sent within a time, and what those who were there before had of it."""
        sent = {place: at for place, at in self.sent.items() if begin <= at < end}
        there = [viewer for viewer in self.viewers.values() if viewer.seen and viewer.seen[0].received < begin]
        had = {one.name: replace(one, seen=[seen for seen in one.seen if seen.place in sent]) for one in there}
        return Record(viewers=had, sent=sent, ended=end)

    # --- One viewer ---

    def stalls(self, viewer: Viewer) -> list[float]:
        """How long each stall was, in seconds: of the picture, where there is one."""
        tracks = {one.place[0] for one in viewer.seen}
        pictures = {track for track in tracks if track.startswith("video")} or tracks
        return [stall for track in sorted(pictures) for stall in self._stalls(viewer, track)]

    def _stalls(self, viewer: Viewer, track: str) -> list[float]:
        joined = viewer.seen[0].received
        came: dict[Place, float] = {}
        for one in viewer.seen:
            if one.place[0] == track:
                came.setdefault(one.place, one.received)
        wanted = [(at, place) for place, at in self.sent.items() if place[0] == track and at >= joined]
        stalls: list[float] = []
        behind: float | None = None
        """How long after it was sent an object is shown."""
        missing: float | None = None
        """When the first of those that did not come was sent."""
        for sent, place in sorted(wanted):
            received = came.get(place)
            if received is None:
                missing = sent if missing is None else missing
                continue
            if behind is None:
                behind, missing = received - sent + BUFFER_S, None
            due = (sent if missing is None else missing) + behind
            behind = max(behind, received - sent)
            # Of what never came the player shows nothing, however soon the next is there.
            stood = sent + behind - due
            if stood >= STALL_S:
                stalls.append(stood)
            missing = None
        if missing is not None and behind is not None and self.ended is not None:
            late = self.ended - missing - behind
            if late >= STALL_S:
                stalls.append(late)
        return stalls

    def _gaps(self, viewer: Viewer) -> int:
        gaps = 0
        for track in {one.place[0] for one in viewer.seen}:
            seen = {one.place for one in viewer.seen if one.place[0] == track} & self.sent.keys()
            had = {place for place in seen if self._was_due(self.sent[place])}
            times = [self.sent[place] for place in had]
            if times:
                first, last = min(times), max(times)
                made = sum(place[0] == track and first <= at <= last for place, at in self.sent.items())
                gaps += made - len(had)
        return gaps

    def _was_due(self, sent: float) -> bool:
        """Whether there was time for it to come: what was lost on the way comes a round trip or two later."""
        return self.ended is None or sent <= self.ended - ON_ITS_WAY_S

    def _latencies(self, viewer: Viewer) -> list[float]:
        joined = viewer.seen[0].received
        found = []
        for one in viewer.seen:
            sent = self.sent.get(one.place)
            if sent is not None and sent >= joined:
                found.append(one.received - sent)
        return found

    def _is_lost(self, viewer: Viewer) -> bool:
        if not viewer.seen:
            return True
        times = sorted(one.received for one in viewer.seen)
        silent = self.ended is not None and self.ended - times[-1] > LOST_AT_END_S
        return silent or any(later - earlier > LOST_S for earlier, later in pairwise(times))

    # --- Faults ---

    def watching(self, fault: Mapping[str, Any]) -> list[Viewer]:
        """Whose newest object before a fault came from the node that it befell."""
        found = []
        for viewer in self.viewers.values():
            number = bisect_left(viewer.seen, fault["at"], key=_received) - 1
            if number >= 0 and viewer.seen[number].relay == fault["node"]:
                found.append(viewer)
        return found

    def switches(self) -> list[float]:
        """Seconds from each fault to the first object by another way, for all whom it befell and who found one."""
        found: list[float] = []
        for fault in self.faults:
            if fault["what"] == "kill":
                for viewer in self.watching(fault):
                    later = viewer.seen[bisect_left(viewer.seen, fault["at"], key=_received) :]
                    first = next((one.received for one in later if one.relay != fault["node"]), None)
                    if first is not None:
                        found.append(first - fault["at"])
            elif fault["what"] == "loss":
                found += self.moves(fault).values()
        return found

    def moves(self, fault: Mapping[str, Any]) -> dict[str, float]:
        """Seconds until a relay took each track from elsewhere, after the way there was faulted."""
        until = min((other["at"] for other in self.faults if other["at"] > fault["at"]), default=float("inf"))
        found: dict[str, float] = {}
        for moved in self.moved:
            ours = moved["relay"] == fault["to"] and moved["was"] == fault["node"]
            if ours and fault["at"] <= moved["at"] < until:
                found.setdefault(moved["track"], moved["at"] - fault["at"])
        return found

    def _touched(self, fault: Mapping[str, Any]) -> bool:
        match fault["what"]:
            case "kill" | "drain":
                fed = any(moved["was"] == fault["node"] and moved["at"] >= fault["at"] for moved in self.moved)
                return fed or fault["node"] == "control" or bool(self.watching(fault))
            case "loss":
                return bool(fault.get("media_bytes"))
            case _:
                return True


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of the ordered values do not exceed (nearest rank); None where there are none."""
    if not ordered:
        return None
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def _received(one: Seen) -> float:
    return one.received


def _told(fault: Mapping[str, Any]) -> str:
    return f"{fault['what']} {fault['node']}" + (f" to {fault['to']}" if "to" in fault else "")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
