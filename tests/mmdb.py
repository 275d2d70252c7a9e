"""A writer of small MaxMind-format databases, after the specification ("MaxMind DB File Format", version 2.0)."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"
_TEXT, _DOUBLE, _UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 2, 3, 5, 6, 7, 9, 11


def write(
    records: dict[str, Any], ip_version: int = 6, database_type: str = "Test-City", record_size: int = 28
) -> bytes:
    """The database in which each prefix has its record; the longest prefix counts."""
    bits = 128 if ip_version == 6 else 32
    tree: list[list[Any]] = [[None, None]]
    for prefix, record in sorted(records.items(), key=lambda item: ipaddress.ip_network(item[0]).prefixlen):
        network = ipaddress.ip_network(prefix)
        # IPv4 lives at ::/96.
        length = network.prefixlen + bits - network.max_prefixlen
        _insert(tree, int(network.network_address), length, bits, record)
    data, offsets = b"", {}
    for node in tree:
        for side in node:
            if isinstance(side, _Leaf) and id(side.record) not in offsets:
                offsets[id(side.record)] = len(data)
                data += _field(side.record)
    count = len(tree)

    def number(side: Any) -> int:
        if side is None:
            return count
        return count + 16 + offsets[id(side.record)] if isinstance(side, _Leaf) else side

    nodes = b"".join(_node(number(left), number(right), record_size) for left, right in tree)
    about = {
        "binary_format_major_version": (_UINT16, 2),
        "binary_format_minor_version": (_UINT16, 0),
        "build_epoch": (_UINT64, 1_700_000_000),
        "database_type": database_type,
        "description": {"en": "for tests"},
        "ip_version": (_UINT16, ip_version),
        "languages": ["en"],
        "node_count": (_UINT32, count),
        "record_size": (_UINT16, record_size),
    }
    return nodes + bytes(16) + data + MARKER + _field(about)


class _Leaf:
    def __init__(self, record: Any) -> None:
        self.record = record


def _insert(tree: list[list[Any]], address: int, length: int, bits: int, record: Any) -> None:
    at = 0
    for depth in range(length):
        bit = address >> (bits - 1 - depth) & 1
        if depth == length - 1:
            tree[at][bit] = _Leaf(record)
            return
        under = tree[at][bit]
        if not isinstance(under, int):
            # A longer prefix beneath a shorter one: what the shorter says goes on beside it.
            tree.append([under, under])
            under = tree[at][bit] = len(tree) - 1
        at = under


def _node(left: int, right: int, record_size: int) -> bytes:
    if record_size == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(record_size // 8, "big") + right.to_bytes(record_size // 8, "big")


def _field(value: Any) -> bytes:
    match value:
        case str():
            text = value.encode()
            return _control(_TEXT, len(text)) + text
        case bool():
            raise TypeError("not needed")
        case float():
            return _control(_DOUBLE, 8) + struct.pack(">d", value)
        case dict():
            return _control(_MAP, len(value)) + b"".join(_field(key) + _field(item) for key, item in value.items())
        case list():
            return _control(_ARRAY, len(value)) + b"".join(map(_field, value))
        case (kind, number):
            size = (number.bit_length() + 7) // 8
            return _control(kind, size) + number.to_bytes(size, "big")
    raise TypeError(type(value))


def _control(kind: int, size: int) -> bytes:
    assert size < 285
    first, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return bytes([kind << 5 | first]) + more if kind < 8 else bytes([first, kind - 7]) + more
