"""Received tracks into one fragmented MP4, in order and starting at 0. `tools.subscribe` is the caller. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tradewind.client.fmp4 import Frame, Joiner, Mp4Error
from tradewind.client.media import CMAF, Rendition
from tradewind.client.receiving import Arrival, InOrder

START_PATIENCE_S = 2.0
"""How long the file waits for a first frame of every track."""


class CannotRecord(Exception):
    """A rendition cannot be written as fragmented MP4; says why."""


@dataclass(frozen=True, slots=True)
class RecordingStatistics:
    """What a recording has taken in and left out."""

    frames: int
    bytes: int
    gaps: int
    broken: int
    """Objects that were not what their track announced."""


class Recorder:
    """Takes what arrives of several tracks and gives a file's bytes."""

    def __init__(self, renditions: Sequence[Rendition], patience_s: float = 1.0) -> None:
        """`patience_s`: how long a missing object is waited for. Raises CannotRecord."""
        for rendition in renditions:
            if rendition.packaging != CMAF:
                raise CannotRecord(f"{rendition.name} is packaged as {rendition.packaging!r}; only cmaf can be written")
        try:
            self._joiner = Joiner([rendition.init for rendition in renditions])
        except Mp4Error as error:
            raise CannotRecord(f"the initialization data cannot be used: {error}") from error
        self.media_times: list[float | None] = [None] * len(renditions)
        """For each track, where in media time (seconds) its newest frame is."""
        self._order = [InOrder(patience_s) for _ in renditions]
        self._held: list[list[Frame]] = [[] for _ in renditions]
        self._started = False
        self._start_by: float | None = None
        self._base = Fraction(0)
        self._frames = self._bytes = self._broken = 0

    def receive(self, index: int, arrival: Arrival, now: float) -> None:
        """Take what arrived of one track; ask `output` afterwards."""
        self._order[index].receive(arrival)
        self._sort(index, now)

    def output(self, now: float) -> bytes:
        """What may be written now."""
        for index in range(len(self._order)):
            self._sort(index, now)
        if not self._started and not self._may_start(now):
            return b""
        return self._write()

    def finish(self) -> bytes:
        """Everything that is left, because nothing more will come; empty where no frame ever came."""
        for index in range(len(self._order)):
            self._sort(index, float("inf"))
        return self._write() if self._started or any(self._held) else b""

    def next_deadline(self) -> float | None:
        """When `output` gives up waiting for something."""
        moments = [order.next_deadline() for order in self._order]
        moments.append(None if self._started else self._start_by)
        return min((moment for moment in moments if moment is not None), default=None)

    def statistics(self) -> RecordingStatistics:
        gaps = sum(order.gaps for order in self._order)
        return RecordingStatistics(self._frames, self._bytes, gaps, self._broken)

    def _sort(self, index: int, now: float) -> None:
        for item in self._order[index].ready(now):
            try:
                frames = self._joiner.read(index, item.payload)
            except Mp4Error:
                self._broken += 1
                continue
            if frames:
                self._held[index] += frames
                self.media_times[index] = frames[-1].decode_time / self._joiner.timescale(index)
                if self._start_by is None:
                    self._start_by = now + START_PATIENCE_S

    def _may_start(self, now: float) -> bool:
        return all(self._held) or (self._start_by is not None and now >= self._start_by)

    def _write(self) -> bytes:
        parts = []
        if not self._started:
            self._started = True
            self._base = min(
                Fraction(frames[0].decode_time, self._joiner.timescale(index))
                for index, frames in enumerate(self._held)
                if frames
            )
            parts.append(self._joiner.header())
        for index, frames in enumerate(self._held):
            if frames:
                shift = -round(self._base * self._joiner.timescale(index))
                parts.append(self._joiner.write(index, frames, shift))
                self._frames += len(frames)
                frames.clear()
        out = b"".join(parts)
        self._bytes += len(out)
        return out
