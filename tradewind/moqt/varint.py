"""The two variable-length integers that MoQT drafts write: RFC 9000's up to draft 16, "leading ones" (vi64) later.

Every decoder and encoder of this room is the caller. Decoding accepts encodings longer than necessary, as the drafts
demand, and never looks past the end of its buffer. Source: RFC 9000, section 16; draft-20, "Variable-Length Integers".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tradewind.moqt.errors import MisuseError

Buffer: TypeAlias = bytes | bytearray | memoryview

QUIC_MAX = 2**62 - 1
VI64_MAX = 2**64 - 1

_VI64_LENGTH = bytes(min(8 - (0xFF ^ first).bit_length(), 8) + 1 for first in range(256))
_VI64_MASK = (0, *((1 << 7 * length) - 1 for length in range(1, 9)), VI64_MAX)


def decode_quic(buffer: Buffer, offset: int) -> tuple[int, int] | None:
    """The value at `offset` and the offset behind it; None where the buffer ends first."""
    if offset >= len(buffer):
        return None
    first = buffer[offset]
    if first < 0x40:
        return first, offset + 1
    length = 1 << (first >> 6)
    end = offset + length
    if end > len(buffer):
        return None
    if length == 2:
        return (first & 0x3F) << 8 | buffer[offset + 1], end
    return int.from_bytes(buffer[offset:end], "big") & ((1 << 8 * length - 2) - 1), end


def encode_quic(value: int) -> bytes:
    """The shortest encoding of 0..2^62-1; MisuseError outside."""
    if value < 0:
        raise MisuseError(f"{value} is negative")
    if value < 0x40:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if value <= QUIC_MAX:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise MisuseError(f"{value} does not fit a QUIC variable-length integer")


def decode_vi64(buffer: Buffer, offset: int) -> tuple[int, int] | None:
    """The value at `offset` and the offset behind it; None where the buffer ends first."""
    if offset >= len(buffer):
        return None
    first = buffer[offset]
    if first < 0x80:
        return first, offset + 1
    length = _VI64_LENGTH[first]
    end = offset + length
    if end > len(buffer):
        return None
    if length == 2:
        return (first & 0x3F) << 8 | buffer[offset + 1], end
    return int.from_bytes(buffer[offset:end], "big") & _VI64_MASK[length], end


def encode_vi64(value: int) -> bytes:
    """The shortest encoding of 0..2^64-1; MisuseError outside."""
    if value < 0x80:
        if value < 0:
            raise MisuseError(f"{value} is negative")
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value | 0x8000).to_bytes(2, "big")
    length = (value.bit_length() + 6) // 7
    if length <= 8:
        # As many leading ones as further bytes, then a zero.
        return ((0xFF00 >> length - 1 & 0xFF) << 8 * (length - 1) | value).to_bytes(length, "big")
    if value <= VI64_MAX:
        return b"\xff" + value.to_bytes(8, "big")
    raise MisuseError(f"{value} does not fit 64 bits")


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


@dataclass(frozen=True, slots=True)
class VarintCodec:
    """One way to write integers, as a profile names it."""

    name: str
    maximum: int
    one_byte_limit: int
    """First bytes below this are whole integers: hot paths look for them before they call `decode`."""
    decode: Callable[[Buffer, int], tuple[int, int] | None]
    encode: Callable[[int], bytes]


QUIC = VarintCodec("quic", QUIC_MAX, 0x40, decode_quic, encode_quic)
VI64 = VarintCodec("vi64", VI64_MAX, 0x80, decode_vi64, encode_vi64)
