"""Publishing MP4 as live media: inputs in, tracks and catalogues of a `Publication` out. An EDGE file.

`tools.publish` is the command; the demo uses `publish_media` directly. Files are sent in real time, as if they were
made now; standard input is sent as it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import trio

from tradewind.client.catalog import HANG_TRACK, MSF_TRACK, encode_hang, encode_msf
from tradewind.client.connect import Client
from tradewind.client.fmp4 import Frame, Kind, MediaTrack
from tradewind.client.media import Broadcast, Rendition, TrackKey, describe, measure
from tradewind.client.timeline import Interleaver, MediaObject, Packager, choose_anchor, earliest
from tradewind.client.tools.inputs import FrameInput, Source
from tradewind.client.tools.options import ToolError
from tradewind.client.tracks import Publication, TrackWriter
from tradewind.moqt.model import Namespace

CATALOG_PRIORITY, AUDIO_PRIORITY, VIDEO_PRIORITY = 16, 64, 128
"""Publisher priorities: MSF wants the catalogue before all media, and ears notice gaps before eyes do."""
MEASURED_MEDIA_S = 10.0
"""How much of a file is looked at for the catalogue's bitrates."""
LIVE_START_WALL_S, LIVE_START_MEDIA_S, LIVE_START_MOST_S = 0.5, 1.0, 5.0
"""Live input is looked at until so much time has passed and so much media came, or the last of so much media."""
MOST_AHEAD_S = 2.0
"""Input that comes faster than real time is sent so far ahead of its time, and read no faster."""
START_DELAY_S = 0.1
DRAIN_S = 1.0
"""How long the relay may take for the last objects and the ends of the tracks."""


@dataclass(slots=True)
class TrackProgress:
    """What one track has had so far."""

    rendition: Rendition
    objects: int = 0
    bytes: int = 0
    group: int = 0
    late_s: float = 0.0
    """How long after its time the newest object was written."""


@dataclass(slots=True)
class Progress:
    """What a publication has had so far; `tools.publish` shows it."""

    namespace: Namespace
    began: float
    """Monotonic time."""
    tracks: dict[str, TrackProgress] = field(default_factory=dict)
    loops: int = 0


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the beginning of the inputs shows: every track, and frames with the wall time of their arrival."""

    tracks: dict[TrackKey, MediaTrack]
    frames: list[tuple[float, TrackKey, Frame]]

    @property
    def timescales(self) -> dict[TrackKey, int]:
        return {key: track.timescale for key, track in self.tracks.items()}

    def renditions(self) -> dict[TrackKey, Rendition]:
        measured = {
            key: measure([frame for _, owner, frame in self.frames if owner == key], track.timescale)
            for key, track in self.tracks.items()
        }
        return describe(self.tracks, measured)

    def start_s(self) -> Fraction:
        return earliest(((key, frame) for _, key, frame in self.frames), self.timescales)


async def publish_media(
    client: Client,
    namespace: Namespace,
    sources: Sequence[Source],
    *,
    loop: bool = False,
    ready: Callable[[Progress], None] | None = None,
    written: Callable[[MediaObject, float], None] | None = None,
) -> None:
    """Announce a namespace and publish the inputs under it until they end; with `loop`, for ever.

    `ready` is called once, when the namespace is announced and the catalogues are there; what it gets is kept up to
    date. `written` is told each object and the monotonic time at which it is handed over. When cancelled, or at the
    end, the tracks are ended and the namespace withdrawn. Raises ToolError for inputs that cannot be used,
    RequestFailed where the relay refuses the namespace, and LinkLost.
    """
    try:
        await _publish(client, namespace, sources, loop, ready, written)
    finally:
        with trio.CancelScope(shield=True):
            for source in sources:
                await source.close()


async def _publish(
    client: Client,
    namespace: Namespace,
    sources: Sequence[Source],
    loop: bool,
    ready: Callable[[Progress], None] | None,
    written: Callable[[MediaObject, float], None] | None,
) -> None:
    inputs = [FrameInput(source) for source in sources]
    live = sources[0].is_live
    looked = await (_look_live(inputs[0]) if live else _look_at_files(inputs))
    publication = client.publication(namespace)
    sender = _Sender(publication, looked, written)
    await client.publish_namespace(publication)
    if ready is not None:
        ready(sender.progress)
    try:
        if live:
            await sender.send_live(inputs[0])
        else:
            await sender.send_files(inputs, loop=loop)
    finally:
        sender.finish()
        with trio.move_on_after(DRAIN_S, shield=True):
            await client.drain(DRAIN_S)
        client.withdraw(publication)


class _Sender:
    """Writes frames to tracks when they are due."""

    def __init__(
        self,
        publication: Publication,
        looked: _Looked,
        written: Callable[[MediaObject, float], None] | None,
    ) -> None:
        self._written = written
        wall_now = time.time()
        renditions = looked.renditions()
        self._looked = looked
        self._broadcast = Broadcast(tuple(renditions.values()))
        self._writers: dict[str, TrackWriter] = {
            rendition.name: publication.track(
                rendition.name.encode(), priority=VIDEO_PRIORITY if rendition.kind is Kind.VIDEO else AUDIO_PRIORITY
            )
            for rendition in renditions.values()
        }
        self._catalogs = {name: publication.track(name, priority=CATALOG_PRIORITY) for name in (MSF_TRACK, HANG_TRACK)}
        self.progress = Progress(publication.namespace, trio.current_time())
        self.progress.tracks = {rendition.name: TrackProgress(rendition) for rendition in renditions.values()}
        self._renditions = renditions
        # Both clocks are read once: sleeping is on the monotonic one, media time on the wall.
        self._wall_minus_monotonic = wall_now - trio.current_time()
        self._first_group = round(wall_now * 1000)
        self._write_catalogs(wall_now)

    async def send_files(self, inputs: Sequence[FrameInput], *, loop: bool) -> None:
        """Send whole files in real time."""
        packager = self._packager(self._wall_now() + START_DELAY_S)
        while True:
            frames = _Interleaved(inputs, self._looked.timescales)
            while (item := await frames.next_frame()) is not None:
                made = packager.package(*item)
                if made is not None:
                    await trio.sleep_until(made.due - self._wall_minus_monotonic)
                    self._write(made)
            if not loop:
                return
            packager.next_pass()
            self.progress.loops += 1

    async def send_live(self, source: FrameInput) -> None:
        """Send what comes as it comes."""
        anchor = choose_anchor(self._looked.frames, self._looked.timescales, self._looked.start_s())
        packager = self._packager(anchor)
        for _, key, frame in self._looked.frames:
            await self._send_live_frame(packager, key, frame)
        while (frames := await source.next_frames()) is not None:
            for frame in frames:
                await self._send_live_frame(packager, TrackKey(0, frame.track), frame)

    async def _send_live_frame(self, packager: Packager, key: TrackKey, frame: Frame) -> None:
        made = packager.package(key, frame)
        if made is not None:
            await trio.sleep_until(made.due - MOST_AHEAD_S - self._wall_minus_monotonic)
            self._write(made)

    def finish(self) -> None:
        """End every track. The catalogues stay as they are: a publisher that comes back goes on with them."""
        for writer in (*self._writers.values(), *self._catalogs.values()):
            writer.finish()

    def _packager(self, anchor_wall_s: float) -> Packager:
        return Packager(self._renditions, anchor_wall_s, self._looked.start_s(), self._first_group)

    def _write(self, made: MediaObject) -> None:
        if self._written is not None:
            self._written(made, trio.current_time())
        try:
            self._writers[made.track].write(*made.location, made.payload)
        except ValueError as error:
            raise ToolError(f"{made.track}: {error}: does the encoder make no key frames?") from error
        progress = self.progress.tracks[made.track]
        progress.objects += 1
        progress.bytes += len(made.payload)
        progress.group = made.location.group
        progress.late_s = self._wall_now() - made.due

    def _write_catalogs(self, wall_now: float) -> None:
        catalogs = {
            MSF_TRACK: encode_msf(self._broadcast, round(wall_now * 1000)),
            HANG_TRACK: encode_hang(self._broadcast),
        }
        for name, data in catalogs.items():
            self._catalogs[name].write(self._first_group, 0, data)
            self._catalogs[name].end_group()

    def _wall_now(self) -> float:
        return trio.current_time() + self._wall_minus_monotonic


class _Interleaved:
    """The frames of all files, once, in decode order."""

    def __init__(self, inputs: Sequence[FrameInput], timescales: dict[TrackKey, int]) -> None:
        self._inputs = inputs
        self._order = Interleaver(timescales)

    async def next_frame(self) -> tuple[TrackKey, Frame] | None:
        """The next one; None: all files have ended."""
        while (hungry := self._order.starved()) is not None:
            frames = await self._inputs[hungry].next_frames()
            if frames is None:
                self._order.end(hungry)
            else:
                for frame in frames:
                    self._order.push(hungry, frame)
        return self._order.pop()


async def _look_at_files(inputs: Sequence[FrameInput]) -> _Looked:
    """Read the beginning of each file for what its tracks are, and leave it at its start again."""
    looked = _Looked({}, [])
    for number, source in enumerate(inputs):
        probe = FrameInput(source.source)
        while (frames := await probe.next_frames()) is not None:
            _note(looked, number, probe, frames)
            if _media_s(looked, number) >= MEASURED_MEDIA_S:
                await source.source.rewind()
                break
        if not any(key.source == number for _, key, _ in looked.frames):
            raise ToolError(f"{source.source.name}: no frame that can be published")
    return looked


async def _look_live(source: FrameInput) -> _Looked:
    """Read live input until its tracks, their bitrates and its pace are known."""
    looked = _Looked({}, [])
    began = time.time()
    while (frames := await source.next_frames()) is not None:
        if not frames:
            continue
        if not looked.frames:
            began = time.time()
        _note(looked, 0, source, frames)
        media_s = _media_s(looked, 0)
        enough = time.time() - began >= LIVE_START_WALL_S and media_s >= LIVE_START_MEDIA_S
        if enough or media_s >= LIVE_START_MOST_S:
            return looked
    if not looked.frames:
        raise ToolError(f"{source.source.name}: ended before its first frame")
    return looked


def _note(looked: _Looked, number: int, source: FrameInput, frames: Sequence[Frame]) -> None:
    wall_now = time.time()
    if source.tracks is not None:
        for track in source.tracks.tracks:
            looked.tracks.setdefault(TrackKey(number, track.id), track)
    looked.frames.extend((wall_now, TrackKey(number, frame.track), frame) for frame in frames)


def _media_s(looked: _Looked, number: int) -> float:
    """How much media of an input was seen, in its best known track."""
    spans: dict[TrackKey, tuple[int, int]] = {}
    for _, key, frame in looked.frames:
        if key.source == number:
            first, _ = spans.get(key, (frame.decode_time, 0))
            spans[key] = (first, frame.decode_time + frame.duration)
    return max(((last - first) / looked.tracks[key].timescale for key, (first, last) in spans.items()), default=0.0)
