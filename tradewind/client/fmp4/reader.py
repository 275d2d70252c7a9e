"""The incremental reader: bytes of a fragmented MP4 in, in any splits; tracks and frames out."""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.client.fmp4.boxes import Header, Mp4Error, read_box, read_header
from tradewind.client.fmp4.fragment import Sample, read_fragment
from tradewind.client.fmp4.header import NOT_FRAGMENTED, FileHeader, read_file_header
from tradewind.client.fmp4.limits import DEFAULT_LIMITS, Limits
from tradewind.client.fmp4.model import Frame, Tracks

_STARTS = frozenset({"ftyp", "styp", "moov", "moof", "free", "skip"})


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """What a reader has taken in."""

    received_bytes: int
    buffered_bytes: int
    frames: int
    fragments: int


class Reader:
    """Takes one fragmented MP4 apart.

    `receive` gives `Tracks` once, when the moov is whole, then `Frame`s: all of a fragment when its mdat is whole,
    track by track as the fragment holds them, in decode order inside a track. It raises Mp4Error for what is broken,
    too large, encrypted or not fragmented; after that the reader is of no more use.
    """

    __slots__ = (
        "_buffer",
        "_failed",
        "_fragments",
        "_frames",
        "_header",
        "_limits",
        "_moov",
        "_next_times",
        "_offset",
        "_pending",
        "_skip",
    )

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._offset = 0
        self._skip = 0
        self._moov = b""
        self._header: FileHeader | None = None
        self._pending: list[Sample] | None = None
        self._next_times: dict[int, int] = {}
        self._failed: Mp4Error | None = None
        self._frames = 0
        self._fragments = 0

    def receive(self, data: bytes) -> list[Tracks | Frame]:
        """Take the next bytes, any number of them."""
        if self._failed is not None:
            raise self._failed
        self._buffer += data
        told: list[Tracks | Frame] = []
        try:
            while self._step(told):
                pass
        except Mp4Error as error:
            self._failed = error
            self._buffer.clear()
            raise
        return told

    def finish(self) -> None:
        """Say that the input has ended. Raises Mp4Error where it ended inside a box or before a fragment's data."""
        if self._failed is not None:
            raise self._failed
        if self._header is None:
            raise Mp4Error("the input ended before its header was whole", "moov", self._offset)
        if self._buffer or self._skip:
            raise Mp4Error("the input ended inside a box", "?", self._offset)
        if self._pending is not None:
            raise Mp4Error("the input ended before the fragment's data", "mdat", self._offset)

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(self._offset + len(self._buffer), len(self._buffer), self._frames, self._fragments)

    def check_invariants(self) -> None:
        assert len(self._buffer) <= max(self._limits.header_bytes, self._limits.fragment_bytes)
        assert not (self._skip and self._buffer), "bytes are kept that are to be skipped"
        assert self._pending is None or self._header is not None

    def _step(self, told: list[Tracks | Frame]) -> bool:
        """Deal with one box, or with a part of one that is skipped; False: more bytes are needed."""
        if self._skip:
            passed = min(self._skip, len(self._buffer))
            self._drop(passed)
            self._skip -= passed
            return bool(self._buffer)
        header = read_header(self._buffer, self._offset)
        if header is None:
            return False
        if self._offset == 0 and header.type not in _STARTS:
            raise Mp4Error("this is not MP4: it starts with no file header", header.type, 0)
        limit = self._limit_of(header)
        if limit is None:
            self._skip = header.size
            return True
        if header.size > limit:
            raise Mp4Error(f"{header.size} bytes are more than the {limit} allowed", header.type, self._offset)
        if len(self._buffer) < header.size:
            return False
        whole = bytes(self._buffer[: header.size])
        told += self._take_box(header, whole)
        self._drop(header.size)
        return True

    def _limit_of(self, header: Header) -> int | None:
        """How large a box of this type may be; None: it is of no interest and passes by unread."""
        if header.type in ("moov", "moof"):
            return self._limits.header_bytes
        if header.type != "mdat":
            return None
        if self._pending is None:
            raise Mp4Error("media data that no fragment describes. " + NOT_FRAGMENTED, "mdat", self._offset)
        return self._limits.fragment_bytes

    def _take_box(self, header: Header, whole: bytes) -> list[Tracks | Frame]:
        if header.type == "moov":
            return self._take_moov(whole)
        if header.type == "moof":
            return self._take_moof(whole)
        return self._take_mdat(header, whole)

    def _take_moov(self, whole: bytes) -> list[Tracks | Frame]:
        if self._header is not None:
            # Files put together with `cat` repeat their header; a different one would need a new catalogue.
            if whole != self._moov:
                raise Mp4Error("the header changes in mid-stream", "moov", self._offset)
            return []
        self._header = read_file_header(read_box(memoryview(whole), self._offset), self._limits)
        self._moov = whole
        return [self._header.told]

    def _take_moof(self, whole: bytes) -> list[Tracks | Frame]:
        if self._header is None:
            raise Mp4Error("a fragment before the file's header", "moof", self._offset)
        if self._pending:
            raise Mp4Error("a fragment whose data never came is followed by another", "moof", self._offset)
        moof = read_box(memoryview(whole), self._offset)
        self._pending = read_fragment(moof, self._header.defaults, self._limits)
        self._fragments += 1
        return []

    def _take_mdat(self, header: Header, whole: bytes) -> list[Tracks | Frame]:
        assert self._pending is not None
        samples, self._pending = self._pending, None
        first, end = self._offset + header.header_bytes, self._offset + header.size
        frames: list[Tracks | Frame] = []
        for sample in samples:
            if sample.position < first or sample.position + sample.size > end:
                raise Mp4Error("a sample lies outside its fragment's data", "mdat", self._offset)
            frame = self._frame(sample, whole)
            # A sample without bytes only fills time: decoders want none of it.
            if sample.size:
                frames.append(frame)
        self._frames += len(frames)
        return frames

    def _frame(self, sample: Sample, whole: bytes) -> Frame:
        decode_time = sample.decode_time
        if decode_time is None:
            decode_time = self._next_times.get(sample.track, 0)
        self._next_times[sample.track] = decode_time + sample.duration
        at = sample.position - self._offset
        payload = whole[at : at + sample.size]
        return Frame(
            sample.track, decode_time, sample.duration, sample.composition_offset, sample.sync, sample.flags, payload
        )

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._offset += size
