"""One publication as values: a broadcast and its renditions, from which both catalogues are made.

`tools.publish` builds a `Broadcast` from the tracks of its files and what it measured of their first frames;
`catalog` writes and reads it; `tools.subscribe` chooses from it. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tradewind.client.fmp4 import Frame, Kind, MediaTrack

CMAF = "cmaf"
CHUNK_OVERHEAD_BYTES = 108
"""What one frame's moof and mdat header add to it."""

_RENDER_TOGETHER = 1
_PEAK_WINDOW_S = 1.0


class TrackKey(NamedTuple):
    """A track of one input: several files have tracks of the same number."""

    source: int
    track: int


@dataclass(frozen=True, slots=True)
class Rendition:
    """One media track as a catalogue describes it. What is not known is 0, or empty."""

    name: str
    """The MoQT track name."""
    kind: Kind
    codec: str
    init: bytes = b""
    """The initialization segment; empty where the packaging needs none."""
    packaging: str = CMAF
    timescale: int = 0
    width: int = 0
    height: int = 0
    framerate: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    language: str = ""
    bitrate: int = 0
    """The most bits of any second."""
    average_bitrate: int = 0
    gop_ms: int = 0
    """The longest time between two places where a decoder can start."""
    render_group: int = _RENDER_TOGETHER
    alternatives: int | None = None
    """Renditions of one number show the same content and switch at group boundaries; None: there is no other."""
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Everything that one namespace offers."""

    renditions: tuple[Rendition, ...]

    def named(self, name: str) -> Rendition | None:
        return next((rendition for rendition in self.renditions if rendition.name == name), None)

    def of(self, kind: Kind) -> tuple[Rendition, ...]:
        return tuple(rendition for rendition in self.renditions if rendition.kind is kind)


@dataclass(frozen=True, slots=True)
class Measured:
    """What some frames of a track say about it."""

    average_bitrate: int = 0
    peak_bitrate: int = 0
    framerate: float = 0.0
    gop_ms: int = 0


def measure(frames: Sequence[Frame], timescale: int) -> Measured:
    """Measure the frames of one track, in decode order. Bits include what packaging adds."""
    if len(frames) < 2:
        return Measured()
    times = [frame.decode_time / timescale for frame in frames]
    sizes = [len(frame.payload) + CHUNK_OVERHEAD_BYTES for frame in frames]
    span_s = max(times[-1] - times[0], 0.0) * len(frames) / (len(frames) - 1)
    if span_s <= 0:
        return Measured()
    average = 8 * sum(sizes) / span_s
    return Measured(
        round(average),
        round(max(average, _peak(times, sizes) if span_s > _PEAK_WINDOW_S else 0)),
        round(len(frames) / span_s, 3),
        round(1000 * _longest_gop(frames, times, times[0] + span_s)),
    )


def _peak(times: Sequence[float], sizes: Sequence[int]) -> float:
    """Bits in the busiest second."""
    best, inside, first = 0, 0, 0
    for at, size in enumerate(sizes):
        inside += size
        while times[at] - times[first] >= _PEAK_WINDOW_S:
            inside -= sizes[first]
            first += 1
        best = max(best, inside)
    return 8 * best / _PEAK_WINDOW_S


def _longest_gop(frames: Sequence[Frame], times: Sequence[float], end: float) -> float:
    starts = [time for frame, time in zip(frames, times) if frame.sync]
    return max((later - earlier for earlier, later in zip(starts, [*starts[1:], end])), default=0.0)


def describe(tracks: Mapping[TrackKey, MediaTrack], measured: Mapping[TrackKey, Measured]) -> dict[TrackKey, Rendition]:
    """Name the tracks of all inputs and say which are alternatives of one another.

    All video tracks are one set of alternatives, and all audio tracks of one language another, in each input order.
    Names are video-360p, audio, and with -2, -3 where they would repeat.
    """
    sets = Counter(_alternative_set(track) for track in tracks.values())
    numbers = {key: number for number, (key, count) in enumerate(sets.items(), 1) if count > 1}
    used: Counter[str] = Counter()
    renditions = {}
    for key, track in tracks.items():
        stem = f"video-{track.height}p" if track.kind is Kind.VIDEO else "audio"
        used[stem] += 1
        rendition = _describe_track(track, measured.get(key, Measured()))
        renditions[key] = replace(
            rendition,
            name=stem if used[stem] == 1 else f"{stem}-{used[stem]}",
            alternatives=numbers.get(_alternative_set(track)),
        )
    return renditions


def _alternative_set(track: MediaTrack) -> tuple[Kind, str]:
    return track.kind, "" if track.kind is Kind.VIDEO else track.language


def _describe_track(track: MediaTrack, measured: Measured) -> Rendition:
    return Rendition(
        "",
        track.kind,
        track.codec,
        track.init,
        timescale=track.timescale,
        width=track.width,
        height=track.height,
        framerate=measured.framerate if track.kind is Kind.VIDEO else 0.0,
        sample_rate=track.sample_rate,
        channels=track.channels,
        language="" if track.language == "und" else track.language,
        bitrate=measured.peak_bitrate or track.bitrate,
        average_bitrate=measured.average_bitrate or track.bitrate,
        gop_ms=measured.gop_ms if track.kind is Kind.VIDEO else 0,
    )
