"""Fetch streams: objects of many groups and subgroups on one stream, each written as what differs from the last.

`tradewind.moqt.session` decodes; whoever answers a FETCH or a fill encodes. Group and object ids are differences from
draft 17 on and absolute before. Source: draft-20, "Fetch Header".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tradewind.moqt.errors import MisuseError
from tradewind.moqt.fields import encode_pairs, violation, write_location
from tradewind.moqt.model import FetchObject, GroupOrder, Location, ObjectHeader, ObjectStatus, Properties, RangeEnd
from tradewind.moqt.pieces import DEFAULT_LIMITS, ObjectLimits, Piece, StreamDecoder

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

FETCH_TYPE = 0x05

_SUBGROUP_MASK, _SUBGROUP_ZERO, _SUBGROUP_SAME, _SUBGROUP_NEXT, _SUBGROUP_PRESENT = 0x03, 0x00, 0x01, 0x02, 0x03
_OBJECT, _GROUP, _PRIORITY, _PROPERTIES, _DATAGRAM = 0x04, 0x08, 0x10, 0x20, 0x40
_RANGE_ENDS = {end.value: end for end in RangeEnd}


class RangeMark(NamedTuple):
    """Everything after the last object or mark, up to `location` inclusive, is what `kind` says."""

    kind: RangeEnd
    location: Location


FetchItem: TypeAlias = FetchObject | RangeMark | Piece


class _Prior(NamedTuple):
    """What the next object may leave out."""

    location: Location
    subgroup: int | None
    """None where no object had one yet, or the last one was sent as a datagram."""
    priority: int | None


def decode_fetch_header(profile: Profile, data: bytes) -> tuple[int, int] | None:
    """The request that a fetch stream answers, and the offset of its first object; None until the header is whole."""
    type = profile.varint.decode(data, 0)
    request = profile.varint.decode(data, type[1]) if type else None
    if type is not None and type[0] != FETCH_TYPE:
        raise violation(f"fetch stream type {type[0]:#x}")
    return request


def encode_fetch_header(profile: Profile, request: int) -> bytes:
    """What a fetch stream begins with."""
    return profile.varint.encode(FETCH_TYPE) + profile.varint.encode(request)


class FetchDecoder(StreamDecoder[FetchObject | RangeMark]):
    """A fetch stream from behind its header: objects, payload and range marks.

    `order` is what the request asked for: differences of group ids count in its direction.
    """

    __slots__ = ("_order", "_prior")

    def __init__(self, profile: Profile, order: GroupOrder, limits: ObjectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(profile, limits)
        self._next = self._item
        self._order = order
        self._prior: _Prior | None = None

    def _item(self, data: bytes, start: int) -> tuple[FetchObject | RangeMark, int] | None:
        found = self._decode(data, start)
        if found is None:
            return None
        flags, offset = found
        if flags < 0x80:
            return self._object(data, start, flags, offset)
        kind = _RANGE_ENDS.get(flags)
        if kind is None or (kind is RangeEnd.TIMED_OUT and not self._profile.data.timed_out_ranges):
            raise violation(f"fetch serialization flags {flags:#x}")
        group = self._decode(data, offset)
        object = self._decode(data, group[1]) if group else None
        if group is None or object is None:
            return None
        # Absolute on every draft: a difference could not say the group that the last object was in.
        location = Location(group[0], object[0])
        prior = self._prior
        self._prior = _Prior(location, prior.subgroup, prior.priority) if prior else _Prior(location, None, None)
        return RangeMark(kind, location), object[1]

    def _object(self, data: bytes, start: int, flags: int, offset: int) -> tuple[FetchObject, int] | None:
        read = self._numbers(data, flags, offset)
        if read is None:
            return None
        group, subgroup, object, offset = read
        location = self._location(group, object)
        subgroup = self._subgroup(flags, subgroup)
        priority = self._prior.priority if self._prior else None
        if flags & _PRIORITY:
            if offset >= len(data):
                return None
            priority = data[offset]
            offset += 1
        if priority is None:
            raise violation("a fetch object takes its priority from an object that is not there")
        properties: Properties = ()
        if flags & _PROPERTIES:
            block = self._properties(data, start, offset)
            if block is None:
                return None
            properties, offset = block
        found = self._decode(data, offset)
        if found is None:
            return None
        length, offset = found
        self._left = self._payload_length(length)
        self._prior = _Prior(location, subgroup, priority)
        header = ObjectHeader(location.object, length, ObjectStatus.NORMAL, properties)
        return FetchObject(location.group, subgroup, header, priority), offset

    def _numbers(self, data: bytes, flags: int, offset: int) -> tuple[int | None, int | None, int | None, int] | None:
        """Group, subgroup and object as they are written, or None each; then the offset behind them."""
        has_subgroup = flags & _SUBGROUP_MASK == _SUBGROUP_PRESENT and not flags & _DATAGRAM
        numbers: list[int | None] = []
        for present in (flags & _GROUP, has_subgroup, flags & _OBJECT):
            if not present:
                numbers.append(None)
                continue
            found = self._decode(data, offset)
            if found is None:
                return None
            value, offset = found
            numbers.append(value)
        return numbers[0], numbers[1], numbers[2], offset

    def _location(self, group: int | None, object: int | None) -> Location:
        prior = self._prior
        if prior is None:
            if group is None or object is None:
                raise violation("the first fetch object has no group or object id")
            self._check_id(max(group, object))
            return Location(group, object)
        last = prior.location
        if not self._profile.data.fetch_deltas:
            location = Location(last.group if group is None else group, last.object + 1 if object is None else object)
        elif group is None:
            location = Location(last.group, last.object + (1 if object is None else object))
        else:
            step = group + 1 if self._order is GroupOrder.ASCENDING else -(group + 1)
            location = Location(last.group + step, last.object + 1 if object is None else object)
        if location.group < 0:
            raise violation("a fetch object's group is below 0")
        self._check_id(max(location))
        return location

    def _subgroup(self, flags: int, written: int | None) -> int | None:
        if flags & _DATAGRAM:
            return None
        mode = flags & _SUBGROUP_MASK
        if mode == _SUBGROUP_ZERO:
            return 0
        if mode == _SUBGROUP_PRESENT:
            self._check_id(written or 0)
            return written
        if self._prior is None or self._prior.subgroup is None:
            raise violation("a fetch object takes its subgroup from an object that is not there")
        subgroup = self._prior.subgroup + (mode == _SUBGROUP_NEXT)
        self._check_id(subgroup)
        return subgroup


class FetchEncoder:
    """Writes the objects of one fetch stream, in the order that its request asked for."""

    __slots__ = ("_order", "_prior", "_profile")

    def __init__(self, profile: Profile, order: GroupOrder) -> None:
        self._profile = profile
        self._order = order
        self._prior: _Prior | None = None

    def object(self, sent: FetchObject) -> bytes:
        """An object's fields before its payload; MisuseError out of order or for a status that is not normal."""
        encode = self._profile.varint.encode
        header = sent.header
        if header.status is not ObjectStatus.NORMAL:
            raise MisuseError("only normal objects are fetched: what does not exist is left out")
        prior = self._prior
        location = Location(sent.group, header.id)
        flags, parts = self._place(location)
        mode, subgroup = self._subgroup(sent.subgroup)
        flags |= mode
        if subgroup is not None:
            # Between the group and the object.
            parts.insert(1 if flags & _GROUP else 0, encode(subgroup))
        if prior is None or prior.priority != sent.priority:
            flags |= _PRIORITY
            parts.append(bytes((sent.priority,)))
        if header.properties and (block := encode_pairs(self._profile.varint, header.properties)):
            flags |= _PROPERTIES
            parts += (encode(len(block)), block)
        self._prior = _Prior(location, sent.subgroup, sent.priority)
        return encode(flags) + b"".join(parts) + encode(header.length)

    def range_end(self, kind: RangeEnd, location: Location) -> bytes:
        """A range mark. A draft without timed-out ranges says that they are unknown."""
        if kind is RangeEnd.TIMED_OUT and not self._profile.data.timed_out_ranges:
            kind = RangeEnd.UNKNOWN
        prior = self._prior
        self._prior = _Prior(location, prior.subgroup, prior.priority) if prior else _Prior(location, None, None)
        return self._profile.varint.encode(kind.value) + write_location(self._profile, location)

    def _place(self, location: Location) -> tuple[int, list[bytes]]:
        """The flags and fields for a group and an object id."""
        encode = self._profile.varint.encode
        deltas = self._profile.data.fetch_deltas
        prior = self._prior
        if prior is None:
            return _GROUP | _OBJECT, [encode(location.group), encode(location.object)]
        last = prior.location
        if location.group != last.group:
            ahead = location.group - last.group
            step = (ahead if self._order is GroupOrder.ASCENDING else -ahead) - 1
            if step < 0:
                raise MisuseError(f"group {location.group} after {last.group} in {self._order.name} order")
            return _GROUP | _OBJECT, [encode(step if deltas else location.group), encode(location.object)]
        if location.object <= last.object:
            raise MisuseError(f"object {location.object} after {last.object} in one group")
        if location.object == last.object + 1:
            return 0, []
        return _OBJECT, [encode(location.object - last.object if deltas else location.object)]

    def _subgroup(self, subgroup: int | None) -> tuple[int, int | None]:
        """The flags for a subgroup id, and the id where it has to be written."""
        if subgroup is None:
            return _DATAGRAM, None
        if subgroup == 0:
            return _SUBGROUP_ZERO, None
        prior = self._prior.subgroup if self._prior else None
        if prior is not None and subgroup - prior in (0, 1):
            return (_SUBGROUP_NEXT if subgroup > prior else _SUBGROUP_SAME), None
        return _SUBGROUP_PRESENT, subgroup
