"""ISO BMFF boxes: finding them, reading their fields, writing them. Serves the other files of this package only.

Positions are absolute in the stream that is being read, so that an error can say where. Every reader is bounded by the
box that it reads; nothing recurses, so nesting is bounded by the paths that the callers name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_CHILDREN = 1024
"""Boxes in one container: a moov has one trak a track, a moof one traf a track and a traf one trun a run."""

HEADER_BYTES = 8
LARGE_HEADER_BYTES = 16


class Mp4Error(Exception):
    """The input is not the fragmented MP4 that we can publish; says which box, and where it starts."""

    def __init__(self, reason: str, box: str, offset: int) -> None:
        super().__init__(f"{reason} (box {box!r} at byte {offset})")
        self.reason = reason
        self.box = box
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Box:
    """One whole box. `body` is what follows its header."""

    type: str
    offset: int
    header_bytes: int
    body: memoryview

    @property
    def size(self) -> int:
        return self.header_bytes + len(self.body)

    def error(self, reason: str) -> Mp4Error:
        return Mp4Error(reason, self.type, self.offset)

    def fields(self) -> Fields:
        return Fields(self)


@dataclass(frozen=True, slots=True)
class Header:
    """A box header as it stands at the front of a buffer; `size` counts the header."""

    type: str
    size: int
    header_bytes: int


def read_header(data: bytes | bytearray | memoryview, offset: int) -> Header | None:
    """Read the box header at the front of `data`, which stands at `offset` of the stream; None: not enough bytes.

    Raises Mp4Error for a type that is not printable ASCII, for a size smaller than the header, and for size 0 ("to the
    end of the file"), which no fragment can use.
    """
    if len(data) < HEADER_BYTES:
        return None
    size = int.from_bytes(data[:4], "big")
    name = bytes(data[4:8])
    if not all(0x20 <= c <= 0x7E or c == 0xA9 for c in name):
        raise Mp4Error("this is not MP4: a box type must be printable", name.decode("latin-1"), offset)
    kind = name.decode("latin-1")
    header_bytes = HEADER_BYTES
    if size == 1:
        if len(data) < LARGE_HEADER_BYTES:
            return None
        size = int.from_bytes(data[8:16], "big")
        header_bytes = LARGE_HEADER_BYTES
    if size == 0:
        raise Mp4Error("a box without an end cannot be streamed", kind, offset)
    if size < header_bytes:
        raise Mp4Error(f"size {size} is smaller than a box header", kind, offset)
    return Header(kind, size, header_bytes)


def read_box(data: memoryview, offset: int) -> Box:
    """Read the box that starts `data`, which stands at `offset` of the stream and holds all of it."""
    header = read_header(data, offset)
    if header is None or header.size > len(data):
        raise Mp4Error("truncated box", header.type if header else "?", offset)
    return Box(header.type, offset, header.header_bytes, data[header.header_bytes : header.size])


def children(parent: Box, skip_bytes: int = 0) -> Iterator[Box]:
    """The boxes inside `parent`, after `skip_bytes` of fields of its own."""
    at = skip_bytes
    body = parent.body
    if at > len(body):
        raise parent.error("truncated box")
    for _ in range(MAX_CHILDREN):
        if at == len(body):
            return
        # A few tools end a container with a 32-bit zero (QuickTime's terminator).
        if len(body) - at == 4 and not any(body[at:]):
            return
        start = parent.offset + parent.header_bytes + at
        header = read_header(body[at:], start)
        if header is None:
            raise parent.error(f"truncated: {len(body) - at} bytes where a box should start")
        if header.size > len(body) - at:
            raise Mp4Error(f"reaches beyond its container {parent.type!r}", header.type, start)
        yield Box(header.type, start, header.header_bytes, body[at + header.header_bytes : at + header.size])
        at += header.size
    raise parent.error(f"more than {MAX_CHILDREN} boxes in one container")


def find(parent: Box, *path: str) -> Box | None:
    """The first box along a path of container types; None where a step is missing."""
    at: Box | None = parent
    for kind in path:
        at = next((child for child in children(at) if child.type == kind), None) if at else None
    return at


def need(parent: Box, *path: str) -> Box:
    """As `find`, for a box that must be there."""
    found = find(parent, *path)
    if found is None:
        raise parent.error(f"has no {'/'.join(path)}")
    return found


class Fields:
    """A cursor over a box's own fields."""

    __slots__ = ("_at", "_box", "_data")

    def __init__(self, box: Box) -> None:
        self._box = box
        self._data = box.body
        self._at = 0

    def raw(self, size: int) -> bytes:
        return bytes(self._take(size))

    def skip(self, size: int) -> None:
        self._take(size)

    def u8(self) -> int:
        return self._take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def i32(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def i64(self) -> int:
        return int.from_bytes(self._take(8), "big", signed=True)

    def full_box(self) -> tuple[int, int]:
        """The version and flags that start a full box."""
        word = self.u32()
        return word >> 24, word & 0xFFFFFF

    def table(self, record: struct.Struct, count: int) -> Iterable[tuple[int, ...]]:
        """`count` records in a row; the caller has bounded `count`."""
        return record.iter_unpack(self._take(record.size * count))

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def _take(self, size: int) -> memoryview:
        if size > self.left:
            raise self._box.error("truncated box")
        self._at += size
        return self._data[self._at - size : self._at]


def box(kind: str, *parts: bytes | memoryview) -> bytes:
    """A box with these parts as its body."""
    size = HEADER_BYTES + sum(len(part) for part in parts)
    if size > 0xFFFFFFFF:
        raise ValueError("a box of 4 GiB or more")
    return b"".join((size.to_bytes(4, "big"), kind.encode("latin-1"), *parts))


def full_box(kind: str, version: int, flags: int, *parts: bytes) -> bytes:
    """A full box: version and flags, then the parts."""
    return box(kind, (version << 24 | flags).to_bytes(4, "big"), *parts)
