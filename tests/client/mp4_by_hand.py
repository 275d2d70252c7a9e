"""Small MP4 files put together box by box, so that the reader is not tested with its own writer."""

from __future__ import annotations

from collections.abc import Sequence


def box(kind: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return (8 + len(body)).to_bytes(4, "big") + kind.encode() + body


def full(kind: str, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, bytes([version]), flags.to_bytes(3, "big"), *parts)


def u16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def i32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big", signed=True) for value in values)


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


AVCC = box("avcC", bytes.fromhex("0142c01effe1000467 42c01e 01000468ce3c80".replace(" ", "")))


def visual_entry(kind: str, *boxes: bytes, width: int = 320, height: int = 180) -> bytes:
    return box(kind, bytes(6), u16(1), bytes(16), u16(width, height), bytes(50), *boxes)


def audio_entry(kind: str, *boxes: bytes, channels: int = 2, rate: int = 48000, version: int = 0) -> bytes:
    extra = {0: b"", 1: bytes(16)}[version]
    head = u16(version) + bytes(6) + u16(channels, 16, 0, 0) + u32(rate << 16)
    return box(kind, bytes(6), u16(1), head, extra, *boxes)


def descriptor(tag: int, body: bytes) -> bytes:
    return bytes([tag, 0x80, 0x80, len(body)]) + body


def esds(specific: bytes, object_type: int = 0x40, bitrate: int = 64000) -> bytes:
    config = bytes([object_type, 0x15]) + bytes(3) + u32(bitrate, bitrate) + descriptor(5, specific)
    return full("esds", 0, 0, descriptor(3, bytes(3) + descriptor(4, config) + descriptor(6, b"\x02")))


AVC = visual_entry("avc1", AVCC)
AAC = audio_entry("mp4a", esds(bytes.fromhex("1190")))


def trak(
    number: int,
    entry: bytes,
    timescale: int = 30000,
    handler: bytes = b"vide",
    edits: Sequence[tuple[int, int]] = (),
    language: str = "eng",
) -> bytes:
    packed = sum((ord(letter) - 0x60) << shift for letter, shift in zip(language, (10, 5, 0)))
    edit_list = full("elst", 0, 0, u32(len(edits)), *(u32(d) + i32(t) + u32(1 << 16) for d, t in edits))
    tables = b"".join(full(kind, 0, 0, u32(0)) for kind in ("stts", "stsc", "stco")) + full("stsz", 0, 0, u32(0, 0))
    return box(
        "trak",
        full("tkhd", 0, 3, u32(0, 0, number, 0, 0), bytes(60)),
        box("edts", edit_list) if edits else b"",
        box(
            "mdia",
            full("mdhd", 0, 0, u32(0, 0, timescale, 0), u16(packed, 0)),
            full("hdlr", 0, 0, u32(0), handler, bytes(13)),
            box("minf", box("stbl", full("stsd", 0, 0, u32(1), entry), tables)),
        ),
    )


def trex(number: int, duration: int = 0, size: int = 0, flags: int = 0) -> bytes:
    return full("trex", 0, 0, u32(number, 1, duration, size, flags))


def moov(traks: Sequence[bytes], extensions: Sequence[bytes] | None) -> bytes:
    movie = full("mvhd", 0, 0, u32(0, 0, 1000, 0), bytes(80))
    return box("moov", movie, *traks, box("mvex", *extensions) if extensions is not None else b"")


def header(*traks: bytes, extensions: Sequence[bytes] | None = None) -> bytes:
    """A file header of these traks, numbered 1, 2, ..."""
    if extensions is None:
        extensions = [trex(number) for number in range(1, len(traks) + 1)]
    return box("ftyp", b"iso5", u32(512), b"iso5") + moov(traks, extensions)


VIDEO_HEADER = header(trak(1, AVC))
BOTH_HEADER = header(trak(1, AVC), trak(2, AAC, 48000, b"soun"))

KEY, DELTA = 0x02000000, 0x01010000


def fragment(traf_of: Sequence[bytes], data: bytes) -> bytes:
    """A moof and mdat; a traf with `@DATA` in it gets the data's offset from the moof there."""
    sized = box("moof", full("mfhd", 0, 0, u32(1)), *traf_of)
    offset = len(sized) + 8
    return sized.replace(b"@DAT", u32(offset)) + box("mdat", data)


def traf(number: int, *runs: bytes, time: int | None = 0, defaults: bytes = b"", flags: int = 0x020000) -> bytes:
    times = b"" if time is None else full("tfdt", 1, 0, u64(time))
    return box("traf", full("tfhd", 0, flags, u32(number), defaults), times, *runs)


def run(samples: Sequence[tuple[int, int, int, int]], *, offset: bytes | None = b"@DAT") -> bytes:
    """A trun with every field: (duration, size, flags, composition offset) of each sample."""
    rows = b"".join(u32(duration, size, flags) + i32(shift) for duration, size, flags, shift in samples)
    return full("trun", 1, 0xF00 | (0x1 if offset else 0), u32(len(samples)), offset or b"", rows)


def simple_file(groups: int = 2, frames: int = 3) -> bytes:
    """One video track, `groups` fragments of `frames` frames of 1000 ticks; frame n has n + 1 bytes of value n."""
    out = VIDEO_HEADER
    for group in range(groups):
        numbers = range(group * frames, (group + 1) * frames)
        rows = [(1000, n + 1, DELTA if n % frames else KEY, 0) for n in numbers]
        out += fragment([traf(1, run(rows), time=1000 * numbers[0])], b"".join(bytes([n]) * (n + 1) for n in numbers))
    return out
