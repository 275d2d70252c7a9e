"""Makes fragmented MP4 out of nothing: one H.264 track, one frame a fragment, for publishers that take CMAF.

The pictures are noise that no decoder is asked to show; sizes and bytes follow from the group and frame number alone,
so that publisher, subscriber and assertion agree without a file between them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

TIMESCALE = 90_000
FRAME_TICKS = 3_600  # 25 frames a second: 40,000 us exactly, whatever a peer rounds
WIDTH, HEIGHT = 320, 180
KEY_FRAME_BYTES = 24_000
# A real decoder configuration: High profile, level 1.2, 320x180.
_AVCC = bytes.fromhex("0142c00cffe100196742c00cd901419f9f011000000300100000030320f142a48001000468cb8cb2")
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it is published (`fragment`: moof and mdat) and as it should arrive (`sample`)."""

    fragment: bytes
    sample: bytes
    timestamp_us: int
    keyframe: bool

    @property
    def digest(self) -> str:
        """What stands for the sample when two processes compare notes."""
        return hashlib.sha256(self.sample).hexdigest()


def init_segment() -> bytes:
    """The ftyp and moov boxes."""
    mvhd = _full(
        b"mvhd", 0, 0, struct.pack(">IIIIIH10x", 0, 0, TIMESCALE, 0, 0x10000, 0x100), _MATRIX, bytes(24), _u32(2)
    )
    tkhd = _full(
        b"tkhd",
        0,
        3,
        struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, 0, 0, 0, 0, 0),
        _MATRIX,
        _u32(WIDTH << 16),
        _u32(HEIGHT << 16),
    )
    mdhd = _full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, TIMESCALE, 0, 0x55C4, 0))
    hdlr = _full(b"hdlr", 0, 0, _u32(0), b"vide", bytes(12), b"video\0")
    dref = _full(b"dref", 0, 0, _u32(1), _full(b"url ", 0, 1))
    avc1 = _box(
        b"avc1",
        struct.pack(">6xH16xHHIIIH32sHh", 1, WIDTH, HEIGHT, 0x480000, 0x480000, 0, 1, bytes(32), 24, -1),
        _box(b"avcC", _AVCC),
    )
    tables = b"".join(_full(name, 0, 0, _u32(0)) for name in (b"stts", b"stsc", b"stco"))
    stbl = _box(b"stbl", _full(b"stsd", 0, 0, _u32(1), avc1), tables, _full(b"stsz", 0, 0, bytes(8)))
    minf = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), _box(b"dinf", dref), stbl)
    trak = _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf))
    mvex = _box(b"mvex", _full(b"trex", 0, 0, struct.pack(">5I", 1, 1, FRAME_TICKS, 0, 0)))
    return _box(b"ftyp", b"iso6", _u32(0), b"iso6cmfc") + _box(b"moov", mvhd, trak, mvex)


def frames(first_group: int, groups: int, frames_a_group: int) -> list[Frame]:
    """The frames of `groups` groups from `first_group` on; each group begins with a key frame of 24 kB."""
    return [
        _frame(group, number, frames_a_group)
        for group in range(first_group, first_group + groups)
        for number in range(frames_a_group)
    ]


def _frame(group: int, number: int, frames_a_group: int) -> Frame:
    position, keyframe = group * frames_a_group + number, number == 0
    size = KEY_FRAME_BYTES if keyframe else 200 + (position * 7919) % 3_000
    noise = hashlib.shake_128(b"%d.%d" % (group, number)).digest(size)
    # Length-prefixed NAL unit: an IDR slice or another; a start code inside cannot matter in this form.
    sample = _u32(size + 1) + (b"\x65" if keyframe else b"\x41") + noise
    trun = _full(
        b"trun", 0, 0x701, struct.pack(">IiIII", 1, 0, FRAME_TICKS, len(sample), _SYNC if keyframe else _NOT_SYNC)
    )
    traf = _full(b"tfhd", 0, 0x020000, _u32(1)) + _full(b"tfdt", 1, 0, struct.pack(">Q", position * FRAME_TICKS)) + trun
    moof_size = 8 + 16 + 8 + len(traf)
    traf = traf[: -len(trun)] + trun[:16] + struct.pack(">i", moof_size + 8) + trun[20:]
    moof = _box(b"moof", _full(b"mfhd", 0, 0, _u32(position + 1)), _box(b"traf", traf))
    return Frame(moof + _box(b"mdat", sample), sample, position * FRAME_TICKS * 1_000_000 // TIMESCALE, keyframe)


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _u32(8 + len(body)) + name + body


def _full(name: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), *parts)


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)
