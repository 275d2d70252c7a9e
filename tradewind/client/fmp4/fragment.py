"""The moof box: where each sample of a fragment lies, and when. Serves `reader` only.

Everything is resolved here: trun over first_sample_flags over tfhd over trex, and the three ways in which a fragment
can say where its data start (ISO/IEC 14496-12, "Track Fragment Header Box").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tradewind.client.fmp4.boxes import Box, Fields, children, find, need
from tradewind.client.fmp4.header import Defaults
from tradewind.client.fmp4.limits import Limits
from tradewind.client.fmp4.model import Kind

NON_SYNC = 0x00010000
"""sample_is_non_sync_sample."""

_HAS_BASE, _HAS_DESCRIPTION, _HAS_DURATION, _HAS_SIZE, _HAS_FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20
_BASE_IS_MOOF = 0x020000
_RUN_OFFSET, _RUN_FIRST_FLAGS = 0x1, 0x4
_RUN_DURATION, _RUN_SIZE, _RUN_FLAGS, _RUN_COMPOSITION = 0x100, 0x200, 0x400, 0x800


class Sample(NamedTuple):
    """One sample of a fragment. `decode_time` None: it follows what came before (a fragment without tfdt)."""

    track: int
    position: int
    """Absolute in the stream."""
    size: int
    decode_time: int | None
    duration: int
    composition_offset: int
    flags: int
    sync: bool


def read_fragment(moof: Box, defaults: Mapping[int, Defaults], limits: Limits) -> list[Sample]:
    """All samples of the tracks in `defaults`, track by track in decode order. Raises Mp4Error."""
    samples: list[Sample] = []
    end = moof.offset
    left = limits.samples
    for traf in children(moof):
        if traf.type != "traf":
            continue
        fragment = _read_track_fragment(traf, moof.offset, end, defaults)
        for run in children(traf):
            if run.type == "trun":
                added, end, decode_time = _read_run(run, fragment, left)
                left -= len(added)
                fragment = replace(fragment, position=end, decode_time=decode_time)
                if fragment.known:
                    samples += added
    return samples


@dataclass(frozen=True, slots=True)
class _TrackFragment:
    """A tfhd and a tfdt with every default filled in."""

    track: int
    known: bool
    base: int
    position: int
    defaults: Defaults
    decode_time: int | None


def _read_track_fragment(traf: Box, moof: int, end: int, known: Mapping[int, Defaults]) -> _TrackFragment:
    header = need(traf, "tfhd")
    fields = header.fields()
    _, flags = fields.full_box()
    track = fields.u32()
    # A track that is left out still moves the data position of the next one.
    defaults = known.get(track, Defaults(Kind.AUDIO, 0, 0, 0, 0))
    base = fields.u64() if flags & _HAS_BASE else moof if flags & _BASE_IS_MOOF else end
    fields.skip(4 if flags & _HAS_DESCRIPTION else 0)
    defaults = Defaults(
        defaults.kind,
        fields.u32() if flags & _HAS_DURATION else defaults.duration,
        fields.u32() if flags & _HAS_SIZE else defaults.size,
        fields.u32() if flags & _HAS_FLAGS else defaults.flags,
        defaults.shift,
    )
    return _TrackFragment(track, track in known, base, base, defaults, _read_decode_time(traf, defaults.shift))


def _read_decode_time(traf: Box, shift: int) -> int | None:
    found = find(traf, "tfdt")
    if found is None:
        return None
    fields = found.fields()
    version, _ = fields.full_box()
    return (fields.u64() if version == 1 else fields.u32()) + shift


def _read_run(run: Box, fragment: _TrackFragment, left: int) -> tuple[list[Sample], int, int | None]:
    """The samples of one trun, the position after its data, and the decode time after its last sample."""
    fields = run.fields()
    version, flags = fields.full_box()
    count = fields.u32()
    if count > left:
        raise run.error(f"more samples in one fragment than allowed ({left} left)")
    position = fragment.base + fields.i32() if flags & _RUN_OFFSET else fragment.position
    first_flags = fields.u32() if flags & _RUN_FIRST_FLAGS else None
    defaults = fragment.defaults
    decode_time = fragment.decode_time
    samples: list[Sample] = []
    for duration, size, sample_flags, composition in _read_records(fields, version, flags, count, defaults):
        chosen = first_flags if first_flags is not None and not samples else sample_flags
        sync = defaults.kind is Kind.AUDIO or not chosen & NON_SYNC
        samples.append(Sample(fragment.track, position, size, decode_time, duration, composition, chosen, sync))
        position += size
        decode_time = None if decode_time is None else decode_time + duration
    return samples, position, decode_time


def _read_records(
    fields: Fields, version: int, flags: int, count: int, defaults: Defaults
) -> Iterator[tuple[int, int, int, int]]:
    """(duration, size, flags, composition offset) of each sample of a run."""
    present = [bool(flags & bit) for bit in (_RUN_DURATION, _RUN_SIZE, _RUN_FLAGS, _RUN_COMPOSITION)]
    fallback = (defaults.duration, defaults.size, defaults.flags, 0)
    if not any(present):
        for _ in range(count):
            yield fallback
        return
    kinds = ("I", "I", "I", "i" if version else "I")
    record = struct.Struct(">" + "".join(kind for kind, there in zip(kinds, present, strict=True) if there))
    for row in fields.table(record, count):
        values = iter(row)
        duration, size, sample_flags, composition = (
            next(values) if there else default for there, default in zip(present, fallback, strict=True)
        )
        yield duration, size, sample_flags, composition
