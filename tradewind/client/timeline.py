"""When each frame is due and where it stands: frames of all inputs in, MoQT objects out.

One object is one frame as a CMAF chunk; one group is a GOP (for audio, what is heard while a GOP is seen), in one
subgroup. Two rules make a publication that starts again continue the one before:

- Media time on the wire is wall time. The first frame of an input is placed at the moment when it is due, and so is
  everything after it, so that timestamps never go back, loops go on, and a player can tell the latency.
- Group ids start at the wall time in milliseconds and count up by one (draft-20, "Scope": "choosing a Group ID based on
  the current time"). No GOP lasts less than a millisecond, so a later start always has larger ids.

Renditions of one content share the group id of the same media time, so players switch at group boundaries.

`tools.publish` feeds this and does the waiting; nothing here waits, reads a clock or does I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from tradewind.client.fmp4 import Frame, Kind, encode_chunk
from tradewind.client.media import Rendition, TrackKey
from tradewind.moqt.model import Location

AUDIO_GROUP_S = 0.5
"""How long a group of a broadcast without video is."""
ALIGNED_S = 0.005
"""Frames of two renditions that differ by less are the same moment: timescales round differently."""

AUDIO_JITTER_RATIO = 10
"""Audio frames whose duration is off by less than a tenth have all the same one."""
AUDIO_SNAP_FRAMES = 1.25

_REMEMBERED_GROUPS = 256
_FALLBACK_FRAMERATE = 30


@dataclass(frozen=True, slots=True)
class MediaObject:
    """One object, ready to be written when it is due."""

    track: str
    location: Location
    due: float
    """Wall time in seconds: when a live encoder would have had the frame."""
    payload: bytes
    sync: bool


class Interleaver:
    """Puts the frames of several inputs in decode order, whatever order their fragments have.

    A file holds a GOP of video before the audio beside it; `pop` gives the frame that is due next, and None while a
    track of an input that goes on has no frame here: feed that input (`starved`).
    """

    __slots__ = ("_bytes", "_ended", "_limit_bytes", "_queues", "_timescales")

    def __init__(self, timescales: Mapping[TrackKey, int], limit_bytes: int = 64 << 20) -> None:
        """`limit_bytes`: from here on frames come out though a track has none: it is sparse, or has ended early."""
        self._timescales = dict(timescales)
        self._queues: dict[TrackKey, deque[Frame]] = {key: deque() for key in timescales}
        self._ended: set[int] = set()
        self._bytes = 0
        self._limit_bytes = limit_bytes

    def push(self, source: int, frame: Frame) -> None:
        """Add the next frame of an input. Tracks that the constructor did not name are ignored."""
        queue = self._queues.get(TrackKey(source, frame.track))
        if queue is not None:
            queue.append(frame)
            self._bytes += len(frame.payload)

    def end(self, source: int) -> None:
        """Say that an input has no more frames."""
        self._ended.add(source)

    def starved(self) -> int | None:
        """The input to feed next; None: `pop` has a frame, or everything has ended."""
        if self._bytes >= self._limit_bytes:
            return None
        return next((k.source for k, queue in self._queues.items() if not queue and k.source not in self._ended), None)

    def pop(self) -> tuple[TrackKey, Frame] | None:
        """The next frame in decode order. Video goes first among equals only by its place among the inputs."""
        if self.starved() is not None:
            return None
        waiting = [key for key, queue in self._queues.items() if queue]
        if not waiting:
            return None
        chosen = min(waiting, key=lambda key: self._queues[key][0].decode_time / self._timescales[key])
        frame = self._queues[chosen].popleft()
        self._bytes -= len(frame.payload)
        return chosen, frame

    def check_invariants(self) -> None:
        assert self._bytes == sum(len(frame.payload) for queue in self._queues.values() for frame in queue)


class Grouper:
    """Gives every frame its group and object id, so that equal media times have equal group ids in every track."""

    __slots__ = ("_audio_alone", "_boundaries", "_first_group", "_places")

    def __init__(self, first_group: int, *, has_video: bool) -> None:
        self._first_group = first_group
        self._audio_alone = not has_video
        self._boundaries: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED_GROUPS)
        self._places: dict[TrackKey, Location] = {}

    def place(self, key: TrackKey, kind: Kind, time_s: float, *, sync: bool) -> Location | None:
        """Where a frame at presentation time `time_s` stands; None: no decoder can start with it, leave it out."""
        last = self._places.get(key)
        if kind is Kind.AUDIO:
            group = self._audio_group(time_s)
        elif sync:
            group = self._video_group(time_s, last)
        elif last is None:
            return None
        else:
            group = last.group
        location = Location(group, 0) if last is None or group > last.group else Location(last.group, last.object + 1)
        self._places[key] = location
        return location

    def _audio_group(self, time_s: float) -> int:
        latest = self._boundaries[-1] if self._boundaries else None
        if self._audio_alone and (latest is None or time_s >= latest[0] + AUDIO_GROUP_S - ALIGNED_S):
            return self._open(time_s)
        return self._covering(time_s)

    def _video_group(self, time_s: float, last: Location | None) -> int:
        """The group of the boundary at this time. A GOP that starts at no boundary stays in the group before it."""
        if not self._boundaries or time_s > self._boundaries[-1][0] + ALIGNED_S:
            return self._open(time_s)
        covering = self._covering(time_s)
        return covering if last is None else max(covering, last.group)

    def _covering(self, time_s: float) -> int:
        found = next((group for start, group in reversed(self._boundaries) if start <= time_s + ALIGNED_S), None)
        if found is not None:
            return found
        return self._boundaries[0][1] if self._boundaries else self._first_group

    def _open(self, time_s: float) -> int:
        group = self._boundaries[-1][1] + 1 if self._boundaries else self._first_group
        self._boundaries.append((time_s, group))
        return group


@dataclass(slots=True)
class _Track:
    """How one track's ticks become wall time."""

    rendition: Rendition
    start: int
    """The input's first moment, in ticks of this track."""
    offset: int
    """What is added to decode times in this pass."""
    duration: int
    """Of the last frame that said so: for frames that do not."""
    is_measured: bool = False
    """`duration` is what the input said, not what its frame rate suggests."""
    last_decode_time: int | None = None
    last_duration: int = 0
    end: int = 0
    """Where this pass has come to, in the input's own ticks."""
    sequence: int = 0


class Packager:
    """Turns frames of the inputs into objects with wall-clock times.

    Frames of one track come in decode order. `next_pass` starts all inputs over again, right after where they ended.
    """

    __slots__ = ("_anchor", "_grouper", "_passed", "_start", "_tracks")

    def __init__(
        self, renditions: Mapping[TrackKey, Rendition], anchor_wall_s: float, start_s: Fraction, first_group: int
    ) -> None:
        """`anchor_wall_s`: the wall time at which media time `start_s` of the inputs is due."""
        has_video = any(rendition.kind is Kind.VIDEO for rendition in renditions.values())
        self._grouper = Grouper(first_group, has_video=has_video)
        self._anchor = Fraction(round(anchor_wall_s * 1_000_000), 1_000_000)
        self._start = start_s
        self._passed = Fraction(0)
        self._tracks = {
            key: _Track(
                rendition,
                start=round(start_s * rendition.timescale),
                offset=round((self._anchor - start_s) * rendition.timescale),
                duration=_nominal_duration(rendition),
            )
            for key, rendition in renditions.items()
        }

    def package(self, key: TrackKey, frame: Frame) -> MediaObject | None:
        """The object of one frame; None where it cannot be shown (before a first key frame, or no such track)."""
        track = self._tracks.get(key)
        if track is None:
            return None
        timescale = track.rendition.timescale
        frame = _settle(track, frame)
        track.end = max(track.end, frame.decode_time + frame.duration)
        decode_time = frame.decode_time + track.offset
        presented_s = (decode_time + frame.composition_offset) / timescale
        location = self._grouper.place(key, track.rendition.kind, presented_s, sync=frame.sync)
        if location is None or decode_time < 0:
            return None
        track.sequence += 1
        payload = encode_chunk(frame.track, track.sequence, decode_time, [frame])
        return MediaObject(track.rendition.name, location, decode_time / timescale, payload, frame.sync)

    def next_pass(self) -> None:
        """Begin the inputs again: what comes next follows the latest end of any track."""
        ends = [Fraction(track.end, track.rendition.timescale) for track in self._tracks.values() if track.end]
        self._passed += max(ends, default=self._start) - self._start
        for track in self._tracks.values():
            track.offset = round((self._anchor + self._passed - self._start) * track.rendition.timescale)
            track.last_decode_time = None
            track.end = 0


def _settle(track: _Track, frame: Frame) -> Frame:
    """The frame with a duration, which players insist on, and for audio without the jitter of rounded timestamps.

    RTMP counts milliseconds, and ffmpeg then gives some audio frames the time of the next one. Audio that is less than
    about a frame away from where the last frame ended belongs exactly there.
    """
    duration, decode_time = frame.duration, frame.decode_time
    last = track.last_decode_time
    if track.rendition.kind is Kind.AUDIO:
        if not track.is_measured and duration:
            track.duration, track.is_measured = duration, True
        if abs(duration - track.duration) * AUDIO_JITTER_RATIO <= track.duration or not duration:
            duration = track.duration
        if last is not None and abs(decode_time - last - track.last_duration) <= AUDIO_SNAP_FRAMES * track.duration:
            decode_time = last + track.last_duration
    elif duration:
        track.duration = duration
    else:
        if last is not None and decode_time > last:
            track.duration = decode_time - last
        duration = track.duration
    track.last_decode_time, track.last_duration = decode_time, duration
    return replace(frame, decode_time=decode_time, duration=duration)


def _nominal_duration(rendition: Rendition) -> int:
    return max(1, round(rendition.timescale / (rendition.framerate or _FALLBACK_FRAMERATE)))


def earliest(frames: Iterable[tuple[TrackKey, Frame]], timescales: Mapping[TrackKey, int]) -> Fraction:
    """The first decode time among `frames`, in seconds: where the inputs begin. 0 for no frames."""
    return min((Fraction(frame.decode_time, timescales[key]) for key, frame in frames), default=Fraction(0))


def choose_anchor(
    arrivals: Iterable[tuple[float, TrackKey, Frame]], timescales: Mapping[TrackKey, int], start_s: Fraction
) -> float:
    """The wall time of media time `start_s` for an input that comes as it is made, e.g. ffmpeg's pipe.

    `arrivals`: (wall time in seconds, track, frame). The frame that came soonest after it was made decides: a pipe
    that begins with a burst, because ffmpeg looked at its input first, does not add that time to the latency for ever.
    """
    return min(
        wall_now - float(Fraction(frame.decode_time, timescales[key]) - start_s) for wall_now, key, frame in arrivals
    )
