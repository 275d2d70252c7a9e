"""What a fragmented MP4 comes apart into: tracks and frames. Frozen values for the rest of `tradewind.client`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a track holds. The values are the roles of the MSF catalogue."""

    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class MediaTrack:
    """One track of a file, ready to be published on its own."""

    id: int
    kind: Kind
    codec: str
    """As WebCodecs and `codecs=` want it: avc1.42c01e, hvc1..., vp09..., av01..., mp4a.40.2, opus, flac."""
    timescale: int
    """Ticks a second of all times of the track."""
    init: bytes
    """ftyp and moov with this track alone and no edit list."""
    width: int = 0
    height: int = 0
    """Coded pixels; 0 for audio."""
    sample_rate: int = 0
    channels: int = 0
    """0 for video."""
    language: str = "und"
    bitrate: int = 0
    """Bits a second as the file declares them; 0: it does not."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """The file's moov: the first thing that a reader yields. `skipped` says in words what cannot be published."""

    tracks: tuple[MediaTrack, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One sample: a video frame, or an audio frame of e.g. 1,024 samples. Times are ticks of its track."""

    track: int
    decode_time: int
    """On the presentation timeline: the edit list is applied, so encoder priming may be negative."""
    duration: int
    composition_offset: int
    sync: bool
    """A decoder can start here. Every audio frame is one."""
    flags: int
    payload: bytes

    @property
    def presentation_time(self) -> int:
        return self.decode_time + self.composition_offset
