"""Objects on the wire: subgroup streams, datagrams and the kinds of unidirectional streams. Fetches: `fetched`.

Decoders are fed a stream in whatever pieces it arrives, and give headers as soon as they are whole and payload as it
comes, so that a key frame is not held back at each hop. `tradewind.moqt.session` decodes; whoever writes media
(`relay.node`, `tradewind.client`) encodes. This is the path of every object: what it does not need it does not do.
Source: draft-20, "Data Streams and Datagrams".
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from tradewind.moqt.errors import MisuseError
from tradewind.moqt.fetched import FETCH_TYPE
from tradewind.moqt.fields import decode_pairs, encode_pairs, violation
from tradewind.moqt.model import DatagramObject, ObjectHeader, ObjectStatus, Properties, SubgroupHeader
from tradewind.moqt.pieces import DEFAULT_LIMITS, ObjectLimits, ObjectTooLarge, Piece, StreamDecoder

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

SUBGROUP_BIT, SETUP_TYPE, PADDING_TYPE, PADDING_DATAGRAM = 0x10, 0x2F00, 0x132B3E28, 0x132B3E29

_PROPERTIES, _END_OF_GROUP, _DEFAULT_PRIORITY_SUBGROUP, _FIRST_OBJECT = 0x01, 0x08, 0x20, 0x40
_MODE_MASK, _MODE_ZERO, _MODE_FIRST, _MODE_PRESENT = 0x06, 0x00, 0x02, 0x04

_DATAGRAM_END_OF_GROUP, _ZERO_OBJECT_ID, _DEFAULT_PRIORITY, _STATUS = 0x02, 0x04, 0x08, 0x20
_DATAGRAM_BITS = 0x2F

_STATUSES = {0: ObjectStatus.NORMAL, 3: ObjectStatus.END_OF_GROUP, 4: ObjectStatus.END_OF_TRACK}
_NORMAL = ObjectStatus.NORMAL


class StreamKind(Enum):
    """What a unidirectional stream carries."""

    SETUP = auto()
    """Control messages, the first of which is the SETUP that the stream's type is part of."""
    SUBGROUP = auto()
    FETCH = auto()
    PADDING = auto()
    """Nothing: read and throw away."""


SubgroupItem: TypeAlias = SubgroupHeader | ObjectHeader | Piece


def stream_kind(profile: Profile, data: bytes) -> StreamKind | None:
    """What a unidirectional stream that begins with `data` carries; None until its type is whole.

    The type stays part of what the stream's own decoder reads. Raises ProtocolViolation for an unknown type.
    """
    found = profile.varint.decode(data, 0)
    if found is None:
        return None
    type = found[0]
    if type & SUBGROUP_BIT and type < 0x80:
        return StreamKind.SUBGROUP
    if type == FETCH_TYPE:
        return StreamKind.FETCH
    if type == SETUP_TYPE and profile.request_streams:
        return StreamKind.SETUP
    if type == PADDING_TYPE and profile.data.padding:
        return StreamKind.PADDING
    raise violation(f"unknown stream type {type:#x}")


class SubgroupDecoder(StreamDecoder[SubgroupHeader | ObjectHeader]):
    """A subgroup stream from its first byte: its header, then object headers and payload.

    Where the header says that the subgroup's id is its first object's, it comes with `subgroup` None and the id is
    that of the next `ObjectHeader`.
    """

    __slots__ = ("_has_properties", "_last", "_opened")

    def __init__(self, profile: Profile, limits: ObjectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(profile, limits)
        self._next = self._header
        self._opened = False
        self._has_properties = False
        self._last = -1

    def finish(self) -> None:
        """The stream ended with FIN here: raises ProtocolViolation in the middle of a header or a payload."""
        super().finish()
        if not self._opened:
            raise violation("a subgroup stream ended before its header")

    def _header(self, data: bytes, offset: int) -> tuple[SubgroupHeader, int] | None:
        decode = self._decode
        type = decode(data, offset)
        alias = decode(data, type[1]) if type else None
        group = decode(data, alias[1]) if alias else None
        if type is None or alias is None or group is None:
            return None
        flags, offset = _subgroup_flags(self._profile, type[0]), group[1]
        mode = flags & _MODE_MASK
        subgroup: int | None = None if mode == _MODE_FIRST else 0
        if mode == _MODE_PRESENT:
            found = decode(data, offset)
            if found is None:
                return None
            subgroup, offset = found
            self._check_id(subgroup)
        self._check_id(group[0])
        priority = None
        if not flags & _DEFAULT_PRIORITY_SUBGROUP:
            if offset >= len(data):
                return None
            priority = data[offset]
            offset += 1
        self._opened = True
        self._next = self._object
        self._has_properties = bool(flags & _PROPERTIES)
        header = SubgroupHeader(
            alias[0],
            group[0],
            subgroup,
            priority,
            end_of_group=bool(flags & _END_OF_GROUP),
            first_object=bool(flags & _FIRST_OBJECT),
            has_properties=self._has_properties,
        )
        return header, offset

    def _object(self, data: bytes, start: int) -> tuple[ObjectHeader, int] | None:
        delta = data[start]
        offset = start + 1
        if delta >= self._one:
            found = self._decode(data, start)
            if found is None:
                return None
            delta, offset = found
        properties: Properties = ()
        if self._has_properties:
            block = self._properties(data, start, offset)
            if block is None:
                return None
            properties, offset = block
        found = self._decode(data, offset)
        if found is None:
            return None
        length, offset = found
        id = self._last + 1 + delta
        if id > self._largest:
            self._check_id(id)
        status = _NORMAL
        if length:
            self._left = self._payload_length(length)
        else:
            found = self._decode(data, offset)
            if found is None:
                return None
            status, offset = _status(found[0], properties), found[1]
        self._last = id
        return ObjectHeader(id, length, status, properties), offset


def decode_datagram(profile: Profile, data: bytes, limits: ObjectLimits = DEFAULT_LIMITS) -> DatagramObject | None:
    """One whole datagram; None for padding. Raises ProtocolViolation for everything that the draft does not allow."""
    decode = profile.varint.decode
    offset = 0
    numbers: list[int] = []
    wanted = 3
    while len(numbers) < wanted:
        found = decode(data, offset)
        if found is None:
            raise violation("a datagram is cut short")
        value, offset = found
        numbers.append(value)
        if len(numbers) == 1:
            if value == PADDING_DATAGRAM and profile.data.padding:
                return None
            wanted = 3 if _datagram_flags(value) & _ZERO_OBJECT_ID else 4
    flags = numbers[0]
    if max(numbers[2:]) > limits.largest_id:
        raise ObjectTooLarge(f"id {max(numbers[2:])} is over {limits.largest_id}")
    priority = None
    if not flags & _DEFAULT_PRIORITY:
        if offset >= len(data):
            raise violation("a datagram is cut short")
        priority = data[offset]
        offset += 1
    properties: Properties = ()
    if flags & _PROPERTIES:
        properties, offset = _datagram_properties(profile, data, offset, limits)
    status = _NORMAL
    if flags & _STATUS:
        found = decode(data, offset)
        if found is None or found[1] != len(data):
            raise violation("a status datagram is cut short or has a payload")
        status, offset = _status(found[0], properties), found[1]
    payload = data[offset:]
    if len(payload) > limits.payload_bytes:
        raise ObjectTooLarge(f"an object of {len(payload)} bytes, over {limits.payload_bytes}")
    header = ObjectHeader(0 if flags & _ZERO_OBJECT_ID else numbers[3], len(payload), status, properties)
    end_of_group = bool(flags & _DATAGRAM_END_OF_GROUP)
    return DatagramObject(numbers[1], numbers[2], header, priority, end_of_group, payload)


def encode_subgroup_header(profile: Profile, header: SubgroupHeader) -> bytes:
    """What a subgroup stream begins with. `subgroup` None: the id of the first object sent on it."""
    encode = profile.varint.encode
    flags = SUBGROUP_BIT
    if header.has_properties:
        flags |= _PROPERTIES
    if header.end_of_group:
        flags |= _END_OF_GROUP
    if header.first_object and profile.data.first_object_flag:
        flags |= _FIRST_OBJECT
    tail = b""
    if header.subgroup is None:
        flags |= _MODE_FIRST
    elif header.subgroup:
        flags |= _MODE_PRESENT
        tail = encode(header.subgroup)
    if header.priority is None:
        flags |= _DEFAULT_PRIORITY_SUBGROUP
    else:
        tail += bytes((header.priority,))
    return encode(flags) + encode(header.alias) + encode(header.group) + tail


def encode_object_header(profile: Profile, previous: int | None, header: ObjectHeader, has_properties: bool) -> bytes:
    """An object's fields before its payload, on a subgroup stream whose last object was `previous` (None: none).

    The bytes depend on the profile, on `header.id - previous` and on nothing else but the arguments: cache them.
    """
    encode = profile.varint.encode
    delta = header.id if previous is None else header.id - previous - 1
    if delta < 0:
        raise MisuseError(f"object {header.id} after {previous} on one stream")
    length = header.length
    if has_properties:
        block = encode_pairs(profile.varint, header.properties) if header.properties else b""
        start = encode(delta) + encode(len(block)) + block
    elif header.properties:
        raise MisuseError("properties on a stream that announced none")
    else:
        start = encode(delta)
    if length:
        if header.status is not _NORMAL:
            raise MisuseError(f"status {header.status} with a payload")
        return start + encode(length)
    return start + encode(0) + encode(header.status)


def encode_datagram(profile: Profile, datagram: DatagramObject) -> bytes:
    """Everything of a datagram before its payload, which `datagram.payload` need not hold."""
    encode = profile.varint.encode
    header = datagram.header
    flags = 0
    parts = [encode(datagram.alias), encode(datagram.group)]
    if header.id:
        parts.append(encode(header.id))
    else:
        flags |= _ZERO_OBJECT_ID
    if datagram.priority is None:
        flags |= _DEFAULT_PRIORITY
    else:
        parts.append(bytes((datagram.priority,)))
    # What the draft has no room for is left out, and then perhaps nothing is left.
    if header.properties and (block := encode_pairs(profile.varint, header.properties)):
        flags |= _PROPERTIES
        parts += (encode(len(block)), block)
    if header.status is not _NORMAL:
        # A status says on its own what ends there.
        flags |= _STATUS
        parts.append(encode(header.status))
    elif datagram.end_of_group:
        flags |= _DATAGRAM_END_OF_GROUP
    return encode(flags) + b"".join(parts)


def _subgroup_flags(profile: Profile, type: int) -> int:
    first_object_allowed = profile.data.first_object_flag or not type & _FIRST_OBJECT
    if type >= 0x80 or not type & SUBGROUP_BIT or type & _MODE_MASK == _MODE_MASK or not first_object_allowed:
        raise violation(f"subgroup type {type:#x}")
    return type


def _datagram_flags(type: int) -> int:
    both = _STATUS | _DATAGRAM_END_OF_GROUP
    if type & ~_DATAGRAM_BITS or type & both == both:
        raise violation(f"datagram type {type:#x}")
    return type


def _datagram_properties(profile: Profile, data: bytes, offset: int, limits: ObjectLimits) -> tuple[Properties, int]:
    found = profile.varint.decode(data, offset)
    if found is None or found[1] + found[0] > len(data):
        raise violation("a datagram is cut short")
    length, offset = found
    if length == 0:
        raise violation("a datagram announces properties and has none")
    if length > limits.properties_bytes:
        raise ObjectTooLarge(f"properties of {length} bytes, over {limits.properties_bytes}")
    return decode_pairs(profile.varint, data, offset, offset + length), offset + length


def _status(value: int, properties: Properties) -> ObjectStatus:
    status = _STATUSES.get(value)
    if status is None:
        raise violation(f"object status {value:#x}")
    if properties and status is not _NORMAL:
        raise violation("properties on an object that is not normal")
    return status
