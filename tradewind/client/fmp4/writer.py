"""Frames back into fragmented MP4: one chunk at a time for publishing, or one file from several tracks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tradewind.client.fmp4.boxes import Box, Mp4Error, box, full_box, need, read_box
from tradewind.client.fmp4.header import join_headers, read_file_header
from tradewind.client.fmp4.limits import DEFAULT_LIMITS
from tradewind.client.fmp4.model import Frame, Tracks
from tradewind.client.fmp4.reader import Reader

_BASE_IS_MOOF, _DURATION, _SIZE, _FLAGS = 0x020000, 0x8, 0x10, 0x20
_RUN_OFFSET, _RUN_DURATION, _RUN_SIZE, _RUN_FLAGS, _RUN_COMPOSITION = 0x1, 0x100, 0x200, 0x400, 0x800


def encode_chunk(track: int, sequence: int, decode_time: int, frames: Sequence[Frame]) -> bytes:
    """One CMAF chunk, a moof and an mdat, of one or more frames of one track that follow each other.

    `decode_time`: of the first frame, in the track's ticks, >= 0; it replaces the frame's own. One frame costs 108
    bytes more than its payload, 112 with a composition offset. Raises ValueError for a negative or empty argument.
    """
    if decode_time < 0 or not frames:
        raise ValueError(f"a chunk of {len(frames)} frames at {decode_time}")
    first = frames[0]
    header = full_box(
        "tfhd", 0, _BASE_IS_MOOF | _DURATION | _SIZE | _FLAGS,
        _u32(track), _u32(first.duration), _u32(len(first.payload)), _u32(first.flags),
    )  # fmt: skip
    times = full_box("tfdt", 1, 0, decode_time.to_bytes(8, "big"))
    flags = _RUN_OFFSET
    if len(frames) > 1:
        flags |= _RUN_DURATION | _RUN_SIZE | _RUN_FLAGS
    if any(frame.composition_offset for frame in frames):
        flags |= _RUN_COMPOSITION
    records = b"".join(_record(frame, flags) for frame in frames)

    def fragment(data_offset: int) -> bytes:
        run = full_box("trun", 1, flags, _u32(len(frames)), _u32(data_offset), records)
        return box("moof", full_box("mfhd", 0, 0, _u32(sequence & 0xFFFFFFFF)), box("traf", header, times, run))

    data = box("mdat", *(frame.payload for frame in frames))
    return fragment(len(fragment(0)) + 8) + data


def _record(frame: Frame, flags: int) -> bytes:
    parts = []
    if flags & _RUN_DURATION:
        parts.append(_u32(frame.duration))
    if flags & _RUN_SIZE:
        parts.append(_u32(len(frame.payload)))
    if flags & _RUN_FLAGS:
        parts.append(_u32(frame.flags))
    if flags & _RUN_COMPOSITION:
        parts.append(frame.composition_offset.to_bytes(4, "big", signed=True))
    return b"".join(parts)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Joiner:
    """Puts several single-track streams together into one fragmented MP4, as their chunks arrive.

    Each stream is read with a `Reader` of its own, so what it writes is well-formed whatever the publisher sent.
    """

    __slots__ = ("_header", "_inits", "_readers", "_sequence", "_timescales")

    def __init__(self, inits: Sequence[bytes]) -> None:
        """`inits`: each track's initialization segment. Raises Mp4Error where one is not of exactly one track."""
        self._inits = tuple(inits)
        self._readers = [_open(init) for init in inits]
        self._timescales = [_timescale(_find_moov(init)) for init in inits]
        self._sequence = 0
        moovs = [_find_moov(init) for init in inits]
        self._header = join_headers([(need(moov, "mvhd"), need(moov, "trak")) for moov in moovs])

    def header(self) -> bytes:
        """The joined ftyp and moov: what the file starts with. Track n of the constructor is track id n + 1."""
        return self._header

    def read(self, index: int, chunk: bytes) -> list[Frame]:
        """The frames of one object of track `index` (from 0).

        Raises Mp4Error for a broken object, and goes on with the next one.
        """
        reader = self._readers[index]
        try:
            told = reader.receive(chunk)
            reader.finish()
        except Mp4Error:
            self._readers[index] = _open(self._inits[index])
            raise
        return [frame for frame in told if isinstance(frame, Frame)]

    def write(self, index: int, frames: Sequence[Frame], shift: int = 0) -> bytes:
        """Those frames for the joined file, `shift` ticks later. Frames that would be before 0 are left out."""
        shown = [replace(frame, decode_time=frame.decode_time + shift) for frame in frames]
        shown = [frame for frame in shown if frame.decode_time >= 0]
        return b"".join(self._encode(index, run) for run in _contiguous(shown))

    def add(self, index: int, chunk: bytes) -> bytes:
        """Both at once, at the times that the chunk has. Raises Mp4Error as `read` does."""
        return self.write(index, self.read(index, chunk))

    def timescale(self, index: int) -> int:
        return self._timescales[index]

    def _encode(self, index: int, frames: Sequence[Frame]) -> bytes:
        self._sequence += 1
        return encode_chunk(index + 1, self._sequence, frames[0].decode_time, frames)


def _contiguous(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """Runs of frames that follow each other in time: what one trun can say."""
    start = 0
    for at in range(1, len(frames) + 1):
        before = frames[at - 1]
        if at == len(frames) or frames[at].decode_time != before.decode_time + before.duration:
            yield frames[start:at]
            start = at


def _open(init: bytes) -> Reader:
    reader = Reader()
    told = reader.receive(init)
    reader.finish()
    if not (len(told) == 1 and isinstance(told[0], Tracks) and len(told[0].tracks) == 1):
        raise _find_moov(init).error("an initialization segment must hold exactly one track")
    return reader


def _timescale(moov: Box) -> int:
    return read_file_header(moov, DEFAULT_LIMITS).told.tracks[0].timescale


def _find_moov(init: bytes) -> Box:
    view, at = memoryview(init), 0
    while at < len(init):
        found = read_box(view[at:], at)
        if found.type == "moov":
            return found
        at += found.size
    raise Mp4Error("an initialization segment without a moov", "moov", 0)
